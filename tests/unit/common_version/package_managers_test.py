#!/usr/bin/python3
"""Our order of versions against the package managers' own: dpkg, rpm, PyPA's packaging, npm's semver.

usage: package_managers_test.py VERSION_PAIRS_BINARY

At least 10,000 pairs each, real versions of this machine's packages and made ones. A manager that is
not installed is skipped, which is said loudly; deploy/packages/test installs all four. BUNKER_SEED
chooses other pairs.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import zlib

PAIRS = 10_000
SEED = int(os.environ.get("BUNKER_SEED", "1"))
PROGRAM = sys.argv[1]


def ours(scheme, pairs):
    text = "".join(f"{scheme}\t{a}\t{b}\n" for a, b in pairs)
    done = subprocess.run([PROGRAM], input=text, capture_output=True, text=True, check=True)
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == len(pairs), (len(lines), len(pairs))
    return [None if x == "none" else int(x) for x in lines]


def changed(rng, version, letters):
    """A version near another: what real ones differ in."""
    text = list(version)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(3)
        if kind == 0 and text:
            text[min(at, len(text) - 1)] = rng.choice(letters)
        elif kind == 1:
            text.insert(at, rng.choice(letters))
        elif len(text) > 1:
            del text[min(at, len(text) - 1)]
    return "".join(text)


def pairs_of(rng, real, make, letters, legal, valid=lambda x: True):
    """PAIRS pairs of versions that are `valid`, and a few more of what is none."""
    found, good = [], 0
    while good < PAIRS:
        kind = rng.randrange(4)
        a = rng.choice(real) if real and kind < 3 else make(rng)
        b = rng.choice(real) if real and kind == 0 else changed(rng, a, letters) if kind < 3 else make(rng)
        if not legal(a) or not legal(b):
            continue
        comparable = valid(a) and valid(b)
        if comparable or rng.randrange(5) == 0:
            found.append((a, b) if rng.randrange(2) else (b, a))
            good += comparable
    return found


def compare(name, scheme, pairs, theirs):
    """`theirs`: -1, 0, 1, or None where the manager calls one of the two no version."""
    mine = ours(scheme, pairs)
    wrong = [(a, b, x, y) for (a, b), x, y in zip(pairs, mine, theirs) if x != y]
    print(f"{name}: {len(pairs)} pairs, with no version in {sum(1 for x in theirs if x is None)}, "
          f"{len(wrong)} differ")
    for a, b, x, y in wrong[:10]:
        print(f"   {a!r} and {b!r}: ours {x}, theirs {y}")
    return not wrong


def skipped(name, package):
    print(f"*** SKIPPED: {name} is not installed here (package {package}): its versions were not compared ***")
    return True


def installed_debian():
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}\n"], capture_output=True, text=True, check=False)
    return sorted(set(done.stdout.split()))


def number(rng):
    return str(rng.choice([0, 1, 2, 9, 10, 11, 99, 100, rng.randrange(10**6)]))


def made_debian(rng):
    text = (number(rng) + ":") if rng.randrange(4) == 0 else ""
    text += number(rng) + "".join(rng.choice([".", "+", "~", "a", "rc", ".0"]) + number(rng)
                                  for _ in range(rng.randrange(4)))
    return text + (("-" + number(rng) + rng.choice(["", "~bpo12+1", "+deb12u2", "+b1"])) if rng.randrange(3) else "")


def check_debian(rng):
    if not shutil.which("dpkg"):
        return skipped("dpkg", "dpkg")
    # dpkg's own library, through perl's Dpkg or one process a pair: the latter needs nothing else.
    legal = re.compile(r"^([0-9]{1,9}:)?[0-9][A-Za-z0-9.+~]*(-[A-Za-z0-9.+~]+)?$").match
    pairs = pairs_of(rng, installed_debian(), made_debian, "0123456789.~+-abz", lambda x: legal(x) is not None)
    script = ('while IFS="\t" read -r a b; do if dpkg --compare-versions "$a" lt "$b"; then echo -1; '
              'elif dpkg --compare-versions "$a" eq "$b"; then echo 0; else echo 1; fi; done')
    text = "".join(f"{a}\t{b}\n" for a, b in pairs)
    done = subprocess.run(["bash", "-c", script], input=text, capture_output=True, text=True, check=True)
    return compare("dpkg", "debian", pairs, [int(x) for x in done.stdout.split()])


def made_rpm(rng):
    text = (str(rng.randrange(3)) + ":") if rng.randrange(3) == 0 else ""
    text += number(rng) + "".join(rng.choice([".", "_", "~rc", "^git", "a", "..", "+"]) + number(rng)
                                  for _ in range(rng.randrange(4)))
    return text + (("-" + number(rng) + rng.choice(["", ".el9", ".fc40", ".el9_4.1"])) if rng.randrange(5) else "")


def check_rpm(rng):
    if not shutil.which("rpm"):
        return skipped("rpm", "rpm")
    legal = re.compile(r"^([0-9]+:)?[A-Za-z0-9._~^+]+(-[A-Za-z0-9._~^+]+)?$").match
    pairs = pairs_of(rng, [], made_rpm, "0123456789.~^_+az", lambda x: legal(x) is not None)
    # One process for all: rpm's Lua knows rpm.vercmp().
    theirs = []
    for begin in range(0, len(pairs), 500):
        calls = "".join(f"print(rpm.vercmp({json.dumps(a)},{json.dumps(b)}),' ');" for a, b in pairs[begin:begin + 500])
        done = subprocess.run(["rpm", "--eval", "%{lua:" + calls + "}"], capture_output=True, text=True, check=True)
        theirs += [int(x) for x in done.stdout.split()]
    return compare("rpm", "rpm", pairs, theirs)


def made_python(rng):
    text = rng.choice(["", "", "", "v", "1!", "2!"]) + number(rng)
    text += "".join("." + number(rng) for _ in range(rng.randrange(4)))
    text += rng.choice(["", "", rng.choice([".", "-", "_", ""]) + rng.choice(["a", "b", "rc", "c", "alpha", "Beta",
                                                                            "pre", "preview"]) + rng.choice(["", ".", "-"]) + number(rng)])
    text += rng.choice(["", "", ".post" + number(rng), "-" + number(rng), "-r" + number(rng), ".rev", "post"])
    text += rng.choice(["", "", ".dev" + number(rng), "dev", "-dev_" + number(rng)])
    return text + rng.choice(["", "", "", "+local." + number(rng), "+" + number(rng), "+deb-12_x"])


def check_python(rng):
    try:
        from packaging.version import InvalidVersion, Version
    except ImportError:
        return skipped("PyPA's packaging", "python3-packaging")

    def parse(text):
        try:
            return Version(text)
        except InvalidVersion:
            return None
    pairs = pairs_of(rng, [], made_python, "0123456789.-_+!abcrdevpost", lambda x: x.strip() and "\t" not in x,
                     lambda x: parse(x) is not None)
    theirs = []
    for a, b in pairs:
        left, right = parse(a), parse(b)
        theirs.append(None if left is None or right is None else (left > right) - (left < right))
    return compare("packaging", "pep440", pairs, theirs)


def made_npm(rng):
    text = rng.choice(["", "", "", "", "", "v", "="]) + ".".join(number(rng) for _ in range(3))
    if rng.randrange(2):
        text += "-" + ".".join(rng.choice([number(rng), "alpha", "rc", "x-y", "0a", "01"]) for _ in range(rng.randint(1, 3)))
    return text + rng.choice(["", "", "+build.5", "+01"])


def check_npm(rng):
    if not shutil.which("node"):
        return skipped("npm's semver", "nodejs and node-semver")
    environment = dict(os.environ, NODE_PATH="/usr/share/nodejs")
    probe = subprocess.run(["node", "-e", "require('/usr/share/nodejs/semver')"], env=environment,
                           capture_output=True, check=False)
    if probe.returncode != 0:
        return skipped("npm's semver", "node-semver")
    part = r"(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
    valid = re.compile(r"^v?(0|[1-9][0-9]{0,9})(\.(0|[1-9][0-9]{0,9})){2}" + rf"(-{part}(\.{part})*)?" +
                       r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$").match
    pairs = pairs_of(rng, [], made_npm, "0123456789.-+avx", lambda x: x != "", lambda x: valid(x) is not None)
    script = ("const s=require('/usr/share/nodejs/semver');const p=JSON.parse(require('fs').readFileSync(0));"
              "console.log(JSON.stringify(p.map(([a,b])=>s.valid(a)===null||s.valid(b)===null?null:s.compare(a,b))))")
    done = subprocess.run(["node", "-e", script], input=json.dumps(pairs), env=environment,
                          capture_output=True, text=True, check=True)
    return compare("npm's semver", "semver", pairs, json.loads(done.stdout))


def main():
    print(f"seed {SEED}")
    good = True
    for check in (check_debian, check_rpm, check_python, check_npm):
        good = check(random.Random(SEED + zlib.crc32(check.__name__.encode()))) and good
    print("*** SKIPPED: Debian has no apk: its order is tested by a table alone (version_test) ***")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
