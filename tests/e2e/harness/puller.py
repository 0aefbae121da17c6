"""The product's own image puller as a process of the test's (tests/unit/agent_pull/pull_probe.cc),
configured by an agent.toml like the agent is; and the scripted registry."""

import base64
import gzip
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

from . import configs, paths, processes

PYTHON = "/usr/bin/python3"
FAST = {"first_backoff_ms": 1, "retry_after_cap_ms": 2000}


def probe_binary():
    path = os.path.join(os.path.dirname(paths.BIN), "tests/pull_probe")
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is missing: build first (tests/run does), or set BUNKER_BIN")
    return path


def make_layout(folder, *options):
    """tests/support/oci_layout.py: what it printed."""
    done = processes.run([PYTHON, os.path.join(paths.ROOT, "tests/support/oci_layout.py"), folder, *options])
    return json.loads(done.stdout)


def listed(host, **more):
    """An images.registry table for a registry on loopback."""
    return {"host": host, "allow_address": True, **more}


def content_digest(path, compression):
    """(digest of the file, digest of what it decompresses to), by other programs than ours."""
    with open(path, "rb") as source:
        data = source.read()
    plain = data
    if compression == "gzip":
        plain = gzip.decompress(data)
    elif compression == "zstd":
        plain = processes.run_bytes(["zstd", "-q", "-d", "-c"], data)
    return tuple("sha256:" + hashlib.sha256(x).hexdigest() for x in (data, plain))


class Refused(Exception):
    """The configuration was refused; the text says why."""


class Probe:
    def __init__(self, folder, registries=(), images=None, credentials=None, tuning=None, env=None, inside=None):
        self.folder = tempfile.mkdtemp(prefix="probe", dir=folder)
        self.log_path = os.path.join(self.folder, "stderr")
        sections = {"state": {"dir": self.folder}, "images": dict(images or {})}
        if credentials is not None:
            path = os.path.join(self.folder, "config.json")
            with open(path, "w", encoding="utf-8") as out:
                out.write(credentials if isinstance(credentials, str) else json.dumps(credentials))
            sections["images"]["docker_config"] = path
        config = os.path.join(self.folder, "agent.toml")
        with open(config, "w", encoding="utf-8") as out:
            out.write(configs.toml(sections, {"images.registry": list(registries)}))
        self.blobs = os.path.join(self.folder, "blobs")
        argv = [probe_binary(), config, self.blobs, json.dumps({**FAST, **(tuning or {})})]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(inside(argv) if inside else argv, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log,
                                            env={**os.environ, **(env or {})})
        first = json.loads(self.process.stdout.readline() or '{"fatal": "it did not start"}')
        if "fatal" in first:
            self.close()
            raise Refused(first["fatal"])

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def pull(self, ref=None, **more):
        """One pull's answer; with times=N a list. What was pulled is checked by other programs."""
        return self._ask({"ref": ref or "", **more}, ref)

    def pull_all(self, refs, later=()):
        """Several pulls at once, those of `later` 0.2 s after the others; their answers."""
        return self._ask([{"ref": x} for x in refs] + [{"ref": x, "after_ms": 200} for x in later], refs)

    def _ask(self, wanted, ref):
        self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the puller ended with {self.process.wait(10)}")
        answer = json.loads(line)
        checked = set()
        for one in answer if isinstance(answer, list) else [answer]:
            for layer in one.get("layers", []) if one["ok"] and ref else []:
                if layer["path"] in checked:
                    continue
                checked.add(layer["path"])
                digests = content_digest(layer["path"], layer["compression"])
                if digests != (layer["digest"], layer["diff_id"]):
                    raise AssertionError(f"wrong content was kept: {layer} {digests}")
        return answer

    def kept(self):
        """Blobs that were kept, by digest."""
        return ["sha256:" + x for x in sorted(os.listdir(os.path.join(self.blobs, "sha256")))]

    def partial(self):
        return os.listdir(os.path.join(self.blobs, "partial"))

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as source:
            return source.read()


class Scripted:
    """tests/support/faulty_registry.py"""

    def __init__(self, layout, *options):
        script = os.path.join(paths.ROOT, "tests/support/faulty_registry.py")
        self.process = subprocess.Popen([PYTHON, script, layout, *options], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())
        self.host = f"127.0.0.1:{self.port}"
        scheme = "https" if "--certificate" in options else "http"
        self.url = f"{scheme}://{self.host}"
        # Head and body in one write, unlike richer clients: hundreds of documents are put there.
        self.client = (http.client.HTTPConnection(self.host, timeout=30) if scheme == "http" else
                       http.client.HTTPSConnection(self.host, timeout=30, context=ssl._create_unverified_context()))

    def _call(self, method, path, body=None):
        self.client.request(method, path, None if body is None else json.dumps(body).encode())
        answer = self.client.getresponse()
        data = answer.read()
        assert answer.status == 200, (path, answer.status)
        return data

    def stop(self):
        self.client.close()
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def fault(self, match, kind, **more):
        self._call("POST", "/_fault", {"match": match, "kind": kind, **more})

    def clear(self):
        self._call("POST", "/_clear", {})

    def put(self, kind, body, media_type="application/octet-stream", name=None):
        """A document of the test's own; returns its descriptor."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        for each in {digest, name or digest}:
            self._call("POST", "/_put", {"kind": kind, "name": each, "type": media_type,
                                         "base64": base64.b64encode(body).decode()})
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def log(self, part=""):
        return [x for x in json.loads(self._call("GET", "/_log")) if part in x["path"]]

    def count(self, part=""):
        return len(self.log(part))

    def sent(self, part=""):
        return sum(x["sent"] for x in self.log(part))

    def ref(self, tag="1"):
        return f"{self.host}/team/app:{tag}"


class RegistryCase(unittest.TestCase):
    """Gives each class a folder, and each row one line that can be quoted."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bkr")
        os.chmod(cls.folder, 0o711)
        cls.stack = []
        try:
            cls.prepare()
        except BaseException:
            cls.tearDownClass()
            raise

    @classmethod
    def prepare(cls):
        """What all tests of the class share."""

    @classmethod
    def tearDownClass(cls):
        for end in reversed(cls.stack):
            end()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def run(self, result=None):
        started = time.monotonic()
        super().run(result)
        print(f"{self.id().split('.', 1)[1]}: {time.monotonic() - started:.1f} s", file=sys.stderr)

    def scripted(self, layout, *options):
        registry = Scripted(layout, *options)
        self.addCleanup(registry.stop)
        return registry

    def probe(self, registries=(), **more):
        probe = Probe(self.folder, registries, **more)
        self.addCleanup(probe.close)
        return probe

    def row(self, number, case, evidence):
        sys.stderr.flush()
        print(f"{number:<8} {case:<66} {evidence}", flush=True)

    def good(self, answer):
        self.assertTrue(answer["ok"], answer)
        return answer

    def bad(self, answer, reason, words=""):
        self.assertFalse(answer["ok"], f"it was taken, not refused: {answer}")
        self.assertEqual(answer["reason"], reason, answer)
        self.assertIn(words, answer["message"])
        return answer
