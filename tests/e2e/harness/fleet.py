"""Scripted agents: many workers in one process, of which only the links are real."""

import json
import os
import select
import subprocess

from . import paths, processes


def tool(name):
    """A test's own binary, beside the products of the same build."""
    path = os.path.join(os.path.dirname(paths.BIN), "tests", name)
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{path} is missing: build it first")
    return path


class ScriptedAgents:
    """with ScriptedAgents(cluster, 50, boot_ms=20) as fleet: …  Flags are those of scripted_agents."""

    def __init__(self, cluster, count, prefix="w", ca_file=None, **flags):
        self.count = count
        self.log_path = os.path.join(cluster.folder, f"scripted-{prefix}.log")
        argv = [tool("scripted_agents"), "--controller", f"127.0.0.1:{cluster.controller.grpc_port}",
                "--agents", str(count), "--prefix", prefix, "--admin-socket", cluster.controller.admin_socket,
                "--identities", os.path.join(cluster.folder, f"identities-{prefix}")]
        if ca_file:
            argv += ["--ca-file", ca_file]
        for key, value in flags.items():
            argv += [f"--{key.replace('_', '-')}"] + ([] if value is True else [str(value)])
        self.argv = argv
        self.process = None

    def start(self, seconds=120):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            bufsize=0, start_new_session=True)
        self._pending = b""
        assert self._answer(seconds) == {"ready": True}  # all have joined
        return self

    def _answer(self, seconds):
        while b"\n" not in self._pending:
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                raise AssertionError(f"the scripted agents say nothing: {self.log()}")
            data = os.read(self.process.stdout.fileno(), 1 << 20)
            if not data:
                raise AssertionError(f"the scripted agents ended with {self.process.wait()}: {self.log()}")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        return json.loads(line)

    def do(self, *words, seconds=60):
        """One command; see tests/fleet/scripted_fleet.h."""
        self.process.stdin.write((" ".join(str(x) for x in words) + "\n").encode())
        answer = self._answer(seconds)
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{words}: {answer}")
        return answer

    def stats(self):
        return self.do("stats")

    def wait(self, counter, least, seconds=60):
        """Waits until stats()[counter] is at least that, and returns the stats."""
        last = {}

        def reached():
            last.update(self.stats())
            return last if last[counter] >= least else None
        return processes.wait_until(reached, f"{counter} of the scripted agents reaches {least}", seconds)

    def dial(self, seconds=60, at_once=200):
        """All of them, some at a time, until all are connected."""
        for count in range(at_once, self.count + at_once, at_once):
            self.do("dial", min(count, self.count))
            self.wait("connected", min(count, self.count), seconds)
        return self

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-3000:]

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


def certificate(folder, host="127.0.0.1"):
    """A self-signed certificate for `host`: (certificate, key), both PEM files."""
    cert, key = os.path.join(folder, "link.crt"), os.path.join(folder, "link.key")
    processes.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-days", "2", "-subj", "/CN=controller", "-addext", f"subjectAltName=IP:{host}",
                   "-keyout", key, "-out", cert])
    return cert, key


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as source:
        fields = source.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    return int(processes.status_of(pid)["VmRSS"].split()[0]) * 1024
