"""Looks for secrets where none may be: state files, logs, argument lists, environments, answers."""

import base64
import os
import urllib.parse

from . import processes


def forms_of(user, password):
    """The spellings in which a login could have leaked."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return [password, urllib.parse.quote(password, safe=""), base64.b64encode(password.encode()).decode(),
            pair, pair[:20], password.encode().hex()]


def search(cluster, secrets, answers=""):
    """Raises where one of `secrets` is found. Returns what was searched, as text for people."""
    text = answers
    daemons = [cluster.controller.daemon] + [x.daemon for x in cluster.agents]
    for daemon in daemons:
        text += daemon.log()
    searched = len(text)
    for pid in processes.processes():
        text += " ".join(processes.command_line(pid))
    for daemon in daemons:
        try:
            with open(f"/proc/{daemon.pid}/environ", "rb") as source:
                text += source.read().decode(errors="replace")
        except OSError:
            pass  # it has ended
    for secret in secrets:
        if secret in text:
            at = text.index(secret)
            raise AssertionError(f"a secret is in a log, an answer or /proc: …{text[max(0, at - 200):at]}…")
    files = size = 0
    for folder in [cluster.controller.folder] + [x.state for x in cluster.agents]:
        for root, _, names in os.walk(folder):
            for path in (os.path.join(root, x) for x in names):
                if not os.path.isfile(path) or os.path.islink(path):
                    continue
                with open(path, "rb") as source:
                    content = source.read()
                files, size = files + 1, size + len(content)
                for secret in secrets:
                    if secret.encode() in content:
                        raise AssertionError(f"a secret is in {path}")
    return f"in none of {files} state files ({size} B), {searched} B of logs and answers, no argv, no environment"
