#!/usr/bin/python3
"""What a confined process may do is read from /proc while it runs, not from our own claims."""

import os
import threading
import time
import unittest

from harness import case, images, processes


def network_of(pid):
    """(namespace, interface names) as the process itself sees them."""
    namespace = os.readlink(f"/proc/{pid}/ns/net")
    with open(f"/proc/{pid}/net/dev", encoding="ascii") as source:
        names = [x.split(":")[0].strip() for x in source.read().splitlines()[2:]]
    return namespace, names


class BakeWatcher(threading.Thread):
    """Looks at every child of the agent that runs as another user, as often as it can."""

    def __init__(self, agent_pid):
        super().__init__(daemon=True)
        self.agent_pid = agent_pid
        self.seen = {}
        self.done = threading.Event()

    def run(self):
        while not self.done.is_set():
            for pid in processes.children_of(self.agent_pid):
                line = processes.command_line(pid)
                if any("bake" in x for x in line[1:]):
                    self.look(pid)
            time.sleep(0.005)

    def look(self, pid):
        status = processes.status_of(pid)
        try:
            network = network_of(pid)
        except OSError:
            return
        # The last look counts: between fork and lock-down the child is still on its way.
        if status and status.get("State", "").startswith(("R", "S", "D")):
            self.seen[pid] = (status, network)


class ConfinementTest(case.ClusterTest):
    def assert_confined(self, status, what):
        self.assertNotIn("0", status["Uid"].split(), f"{what} runs as root: {status['Uid']}")
        self.assertEqual(int(status["CapEff"], 16), 0, f"{what} has capabilities")
        self.assertEqual(int(status["CapPrm"], 16), 0, f"{what} may raise capabilities")
        self.assertEqual(status["NoNewPrivs"], "1", what)
        self.assertEqual(status["Seccomp"], "2", what)

    def test_bake_child_and_qemu(self):
        ref = images.push_debian(self.c.registry)
        row = self.c.register("debian", ref, size_mib=1024)
        watcher = BakeWatcher(self.c.agents[0].daemon.pid)
        watcher.start()
        self.c.group("confined", images=[row["id"]])
        self.c.wait_cache(row["id"], seconds=240)
        watcher.done.set()
        watcher.join(5)
        self.assertTrue(watcher.seen, "no bake child was seen")
        status, (namespace, interfaces) = watcher.seen[max(watcher.seen)]
        self.assert_confined(status, "the bake child")
        self.assertNotEqual(namespace, os.readlink("/proc/self/ns/net"))
        self.assertEqual(interfaces, ["lo"])
        bunker = self.c.bunker("debian", memory_mb=512)
        pids = self.c.agents[0].vm_pids()
        self.assertEqual(len(pids), 1)
        self.assert_confined(processes.status_of(pids[0]), "QEMU")
        self.assertNotEqual(processes.status_of(pids[0])["Uid"], status["Uid"])
        namespace, interfaces = network_of(pids[0])
        self.assertNotEqual(namespace, os.readlink("/proc/self/ns/net"))
        self.assertEqual(interfaces, ["lo"])
        self.assert_base_is_read_only(pids[0])
        self.assertIn("ok", self.c.sh(bunker["id"], "python3 -c 'print(\"ok\")'", timeout_s=60))

    def assert_base_is_read_only(self, pid):
        base = list(self.c.agents[0].image_files().values())
        self.assertEqual(len(base), 1)
        mode = os.stat(base[0])
        self.assertEqual((mode.st_uid, mode.st_mode & 0o7777), (0, 0o444))
        opened = []
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.stat(f"/proc/{pid}/fd/{fd}").st_ino == mode.st_ino:
                    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as source:
                        opened.append(int(source.read().split("flags:")[1].split()[0], 8) & 3)
            except OSError:
                continue
        self.assertTrue(opened, "QEMU does not hold the base")
        self.assertEqual(set(opened), {os.O_RDONLY})


if __name__ == "__main__":
    unittest.main(verbosity=2)
