"""Where things are. BUNKER_BIN and BUNKER_GUEST override the debug build."""

import os
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
BIN = os.path.abspath(os.environ.get("BUNKER_BIN", os.path.join(ROOT, "build/debug/bin")))
GUEST = os.environ.get("BUNKER_GUEST", os.path.join(ROOT, "build/guest"))
CACHE = os.path.join(ROOT, "build/e2e-cache")  # slow inputs, made once: the Debian image
E2E = os.path.join(ROOT, "tests/e2e")

sys.path.insert(0, os.path.join(ROOT, "deploy/image"))


def binary(name):
    path = os.path.join(BIN, name)
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is missing: build first (tests/run does), or set BUNKER_BIN")
    return path


def guest_file(*names):
    for name in names:
        path = os.path.join(GUEST, name)
        if os.path.exists(path):
            return path
    raise SystemExit(f"{GUEST}/{names[0]} is missing: run deploy/guest-kernel first")
