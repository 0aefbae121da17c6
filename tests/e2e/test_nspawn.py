#!/usr/bin/python3
"""Both units under a real systemd, in a container: active, watched, and VMs outlive their agent."""

import json
import os
import re
import unittest

from harness import images, paths, processes
from harness.nspawn import Container

import oci

DROP_IN = "[Service]\nWatchdogSec=6\n"


class UnitsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        processes.skip_in_plain_chroot("container with user namespaces")
        cls.c = Container()
        try:
            cls.prepare()
        except BaseException:
            cls.print_journal()
            cls.c.close()
            raise

    @classmethod
    def prepare(cls):
        cls.c.mount()
        environment = dict(os.environ, DESTDIR=cls.c.root, BUNKER_BUILD=os.path.dirname(paths.BIN))
        processes.run([os.path.join(paths.ROOT, "deploy/install")], env=environment, seconds=300)
        cls.c.write("/etc/bunker/agent.toml", '[worker]\nname = "inside"\n[images]\ntar_root = "/srv/images"\n')
        for unit in ("controller", "agent"):
            cls.c.write(f"/etc/systemd/system/bunker-{unit}.service.d/test.conf", DROP_IN)
        cls.c.boot()
        init = cls.c.run("runuser", "-u", "bunker-controller", "--", "bunker-controller", "init",
                         "--config", "/etc/bunker/controller.toml")
        cls.key = re.search(r"sgk_[0-9A-Za-z]{43}", init.stdout).group(0)
        cls.c.run("systemctl", "start", "bunker-controller")
        token = cls.c.run("bunker-controller", "join-token", "--worker", "inside").stdout.split()[-1]
        cls.c.run("bunker-agent", "join", "--token", token)
        cls.c.run("systemctl", "start", "bunker-agent")

    @classmethod
    def print_journal(cls):
        if cls.c.leader:
            done = cls.c.run("journalctl", "--no-pager", "-n", "60", "-u", "bunker-controller", "-u", "bunker-agent",
                             check=False)
            print(done.stdout)

    @classmethod
    def tearDownClass(cls):
        cls.c.close()

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            self.print_journal()

    def ctl(self, *arguments, check=True):
        rest = self.rest_address()
        return self.c.run("env", f"SCAIGRID_HOST=http://{rest}", f"SCAIGRID_API_KEY={self.key}", "bunkerctl",
                          *arguments, check=check)

    def rest_address(self):
        with open(os.path.join(paths.ROOT, "deploy/config/controller.toml"), encoding="utf-8") as source:
            section = source.read().split("[rest]", 1)[1]
        return re.search(r'^#?address = "([^"]+)"', section, re.M).group(1)

    def test_1_units_are_sound(self):
        for unit in ("controller", "agent"):
            done = self.c.run("systemd-analyze", "verify", f"bunker-{unit}.service", check=False)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        score = self.c.run("systemd-analyze", "security", "--no-pager", "--threshold=20", "bunker-controller.service",
                           check=False)
        print(score.stdout.strip().splitlines()[-1])
        self.assertEqual(score.returncode, 0)

    def test_2_both_are_active(self):
        for unit in ("bunker-controller", "bunker-agent"):
            self.assertEqual(self.c.show(unit, "ActiveState", "SubState", "NotifyAccess"),
                             {"ActiveState": "active", "SubState": "running", "NotifyAccess": "main"})
        pid = self.c.show("bunker-controller", "MainPID")["MainPID"]
        self.assertEqual(self.c.run("stat", "-c", "%U", f"/proc/{pid}").stdout.strip(), "bunker-controller")
        processes.wait_until(lambda: json.loads(self.ctl("--json", "worker", "list").stdout)[0]["status"] == "online",
                             "the worker is online")

    def test_3_a_restart_of_the_agent_leaves_its_vm_alive(self):
        layout = self.c.path("/srv/images")
        tenant = json.loads(self.ctl("--json", "image", "register", "probe", "--tar", "/srv/images/none", "--size-mib",
                                     "64").stdout)["tenant_id"]
        oci.write_layout(os.path.join(layout, tenant, "tiny"), images.tiny(), "latest")
        self.ctl("image", "register", "tiny", "--tar", f"/srv/images/{tenant}/tiny", "--size-mib", "64",
                 "--memory-mb", "256", "--disk-mb", "64")
        self.ctl("group", "create", "g", "--worker", "inside", "--image", "tiny")
        self.ctl("image", "watch", "tiny", "--timeout-s", "90")
        bunker = json.loads(self.ctl("--json", "bunker", "create", "tiny").stdout)["id"]
        self.ctl("bunker", "exec", bunker, "--shell", "echo kept > /note")
        vms = self.vms()
        self.assertEqual(len(vms), 1)
        agent = self.c.show("bunker-agent", "MainPID")["MainPID"]
        self.c.run("systemctl", "restart", "bunker-agent")
        self.assertNotEqual(self.c.show("bunker-agent", "MainPID")["MainPID"], agent)
        self.assertEqual(self.vms(), vms, "the VM did not survive its agent's restart")
        self.assertEqual(self.ctl("bunker", "exec", bunker, "--", "cat", "/note").stdout, "kept\n")
        self.ctl("bunker", "rm", bunker)
        processes.wait_until(lambda: not self.vms(), "the VM is gone")

    def vms(self):
        """(pid, start time) of QEMU processes inside."""
        found = []
        for pid in processes.processes():
            line = processes.command_line(pid)
            try:
                inside = os.readlink(f"/proc/{pid}/ns/net") and self.below_leader(pid)
            except OSError:
                continue
            # What becomes a template or waits in the pool is no bunker's, and begun anew by a new agent.
            if line and "qemu-system" in line[0] and inside and not any(x.startswith(("template.", "pool.")) for x in line):
                found.append((pid, processes.start_time(pid)))
        return found

    def below_leader(self, pid):
        while pid > 1:
            if pid == self.c.leader:
                return True
            status = processes.status_of(pid)
            pid = int(status["PPid"]) if status else 0
        return False

    def test_4_the_watchdog_fires(self):
        for unit in ("bunker-controller", "bunker-agent"):
            before = self.c.show(unit, "MainPID", "NRestarts")
            self.c.run("kill", "-STOP", before["MainPID"])

            def restarted():
                now = self.c.show(unit, "MainPID", "NRestarts", "ActiveState")
                return now["NRestarts"] != before["NRestarts"] and now["ActiveState"] == "active"
            processes.wait_until(restarted, f"{unit} is started anew by its watchdog", 60, 0.5)
            log = self.c.run("journalctl", "--no-pager", "-u", unit).stdout
            self.assertRegex(log, r"(?i)watchdog timeout")


if __name__ == "__main__":
    unittest.main(verbosity=2)
