"""This machine's own system, booted once more in a container: its root below an overlay in memory.

So the units run under a real systemd, with the very libraries that the binaries were linked with,
and nothing that happens inside stays.
"""

import os
import signal
import subprocess
import tempfile

from . import processes


class Container:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="bunker-nspawn")
        self.root = os.path.join(self.folder, "root")
        self.log_path = os.path.join(self.folder, "console.log")
        self.mounted = []
        self.process = None
        self.leader = None

    def mount(self):
        processes.run(["mount", "-t", "tmpfs", "-o", "size=2g,mode=755", "bunker-test", self.folder])
        self.mounted.append(self.folder)
        upper, work = os.path.join(self.folder, "upper"), os.path.join(self.folder, "work")
        for folder in (upper, work, self.root):
            os.mkdir(folder, 0o755)
        processes.run(["mount", "-t", "overlay", "overlay", "-o",
                       f"lowerdir=/,upperdir={upper},workdir={work}", self.root])
        self.mounted.append(self.root)
        self.write("/etc/machine-id", "uninitialized\n")
        self.write("/etc/systemd/system/bunker-test.target",
                   "[Unit]\nDescription=Only what the test starts\nRequires=basic.target\nAfter=basic.target\n")

    def path(self, inside):
        return self.root + inside

    def write(self, inside, text):
        os.makedirs(os.path.dirname(self.path(inside)), exist_ok=True)
        if os.path.lexists(self.path(inside)):
            os.unlink(self.path(inside))
        with open(self.path(inside), "w", encoding="utf-8") as out:
            out.write(text)

    def boot(self):
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", "-M", f"bunker-{os.getpid()}", "-D", self.root, "--private-network",
                 "--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "-b",
                 "systemd.unit=bunker-test.target"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        processes.wait_until(self._find_leader, "the container's PID 1 starts", 30)
        try:
            processes.wait_until(
                lambda: self.run("systemctl", "is-active", "basic.target", check=False).returncode == 0,
                "the container boots", 90, 0.3)
        except AssertionError:
            print(self.run("systemctl", "list-jobs", check=False).stdout, flush=True)
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                print(log.read()[-4000:], flush=True)
            raise

    def _find_leader(self):
        if self.process.poll() is not None:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                raise AssertionError("systemd-nspawn ended: " + log.read())
        for pid in processes.children_of(self.process.pid):
            if "systemd" in " ".join(processes.command_line(pid)[:1]):
                self.leader = pid
                return True
        return False

    def run(self, *argv, check=True, seconds=120, **more):
        """Runs a command inside."""
        return processes.run(["nsenter", "-t", str(self.leader), "-m", "-p", "-u", "-i", "-n", "-C", *argv],
                             check=check, seconds=seconds, **more)

    def show(self, unit, *properties):
        text = self.run("systemctl", "show", unit, "-p", ",".join(properties)).stdout
        return dict(line.split("=", 1) for line in text.splitlines())

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        for folder in reversed(self.mounted):
            processes.run(["umount", "-l", folder], check=False)
        os.rmdir(self.folder)
