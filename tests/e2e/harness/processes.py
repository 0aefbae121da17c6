"""Child processes, waits with deadlines, and reads of /proc. Nothing is ever killed by name."""

import os
import signal
import socket
import subprocess
import time
import unittest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, seconds=30.0, interval=0.05):
    """Polls until condition() is true (and returns its value); an AssertionError names `what`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(interval)


def cgroups_of(pid):
    """Controller -> path of the process's control group; "" is version 2's."""
    found = {}
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                found[controller] = path
    return found


class Daemon:
    """A daemon with a log file. stop() ends it by its pid; it is never restarted by itself."""

    def __init__(self, name, argv, log_path, env=None, cwd=None):
        self.name, self.argv, self.log_path = name, argv, log_path
        self.env, self.cwd = env, cwd
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        environment = dict(os.environ)
        environment.update(self.env or {})
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment, cwd=self.cwd, start_new_session=True)
        return self

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill9(self):
        self.process.kill()
        self.process.wait(10)

    def stop(self, seconds=15):
        if not self.alive():
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def check(self):
        if not self.alive():
            raise AssertionError(f"{self.name} ended with {self.process.poll()}:\n{self.log()[-3000:]}")


def tcp_open(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(argv, seconds=120, check=True, **more):
    """Runs a command to its end and returns it, output captured as text."""
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=seconds,
                          check=False, **more)
    done.stdout = done.stdout.decode(errors="replace")
    done.stderr = done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def status_of(pid):
    """/proc/PID/status as a dict, or None once it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as source:
            return dict(line.rstrip("\n").split(":\t", 1) for line in source if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):
        return None


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            return [x.decode(errors="replace") for x in source.read().split(b"\0")[:-1]]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def processes():
    return [int(x) for x in os.listdir("/proc") if x.isdigit()]


def children_of(parent):
    """Direct children of `parent`."""
    found = []
    for pid in processes():
        status = status_of(pid)
        if status and int(status.get("PPid", "0")) == parent:
            found.append(pid)
    return found


def start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as source:
        return source.read().rsplit(")", 1)[1].split()[19]


def run_bytes(argv, data, seconds=60):
    """Feeds bytes to a command and returns the bytes it printed."""
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, timeout=seconds, check=True).stdout


def sockets_below(prefix):
    """Inodes of Unix sockets bound to a path that starts with `prefix`."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as source:
        rows = [line.split(None, 7) for line in source.read().splitlines()[1:]]
    return {row[6] for row in rows if len(row) == 8 and row[7].startswith(prefix)}


def sockets_of(pid):
    """Inodes of the sockets that a process holds."""
    found = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found


def skip_in_plain_chroot(what):
    """Skips a class, and says so, where the root is no mount point: the kernel lets nobody there have user
    namespaces or enter a mount namespace and stay in the chroot."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        if any(line.split(" ")[4] == "/" for line in mounts):
            return
    reason = "a plain chroot (its root is no mount point) can hold no " + what
    print("SKIPPED, all of it: " + reason, flush=True)
    raise unittest.SkipTest(reason)
