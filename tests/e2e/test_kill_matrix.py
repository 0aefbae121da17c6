#!/usr/bin/python3
"""kill -9 of the agent, the controller and a bunker's VM in the middle of a command, a shell, an upload, a
snapshot and a pause. Whatever is killed: its client hears an end in time, nothing half made is seen, the
rows say what is there, and the bunker next to it has not noticed."""

import os
import signal
import socket
import threading
import time
import unittest

import httpx
import websocket

from harness import case, processes
from harness.cluster import MODULE

PATIENCE_S = 45  # a client that hears nothing for so long has been forgotten
SLEEPER = "sleep 5757"


class Activity:
    """Something a client does to a bunker, caught in its middle."""

    def __init__(self, test):
        self.test, self.c, self.bunker = test, test.c, test.bunker
        self.end = None  # what its client was told
        self.thread = threading.Thread(target=self.listen, daemon=True)

    def listen(self):
        try:
            self.end = self.wait_end()
        except (httpx.HTTPError, OSError, websocket.WebSocketException) as error:
            self.end = type(error).__name__

    def begin(self):
        """Returns once it is in its middle."""
        self.thread.start()
        processes.wait_until(self.in_guest, "the guest is at it", 30)

    def finish(self):
        """Once the client has been told; bounded."""
        self.thread.join(PATIENCE_S)
        self.test.assertFalse(self.thread.is_alive(), f"{type(self).__name__}: its client was never told")
        self.test.assertIsNotNone(self.end)
        self.test.assertNotIn("Timeout", str(self.end), "its client gave up waiting")

    def check(self, target):
        """When everything runs again."""


class Command(Activity):
    def wait_end(self):
        answer = self.c.call("POST", f"/bunkers/{self.bunker}/exec", {"command": SLEEPER, "timeout_s": 600},
                             seconds=PATIENCE_S)
        return answer.status_code, answer.json().get("error", {}).get("code")

    def in_guest(self):
        return self.test.sleepers() == 1

    def check(self, target):
        if target != "controller":
            self.test.assertEqual(self.end, (503, "UNAVAILABLE"))
        self.test.await_guest(lambda: self.test.sleepers() == 0, "nothing of the command is left")


class Shell(Activity):
    def wait_end(self):
        url = f"ws://127.0.0.1:{self.c.controller.rest_port}{MODULE}/bunkers/{self.bunker}/shell"
        shell = websocket.create_connection(
            f"{url}?command={SLEEPER.replace(' ', '%20')}", timeout=PATIENCE_S, suppress_origin=True,
            header=[f"Authorization: Bearer {self.c.controller.key}"])
        said = ""
        while True:
            code, data = shell.recv_data()
            if code == websocket.ABNF.OPCODE_CLOSE:
                return "closed", said
            said += data.decode(errors="replace")

    in_guest = Command.in_guest

    def check(self, target):
        if target != "controller":
            self.test.assertIn("UNAVAILABLE", str(self.end))
        self.test.await_guest(lambda: self.test.sleepers() == 0, "nothing of the shell is left")


class Upload(Activity):
    FOLDER = "/root/upload"

    def begin(self):
        self.c.sh(self.bunker, f"mkdir -p {self.FOLDER} && echo old > {self.FOLDER}/file && sync")
        self.socket = socket.create_connection(("127.0.0.1", self.c.controller.rest_port), PATIENCE_S)
        head = (f"PUT {MODULE}/bunkers/{self.bunker}/files?path={self.FOLDER}/file HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {self.c.controller.key}\r\nContent-Length: 4000000\r\n\r\n")
        self.socket.sendall(head.encode() + b"x" * 1_000_000)
        super().begin()

    def wait_end(self):
        with self.socket:
            return self.socket.recv(4096)[:40]

    def in_guest(self):
        return ".bunker-" in self.c.sh(self.bunker, f"ls -A {self.FOLDER}")

    def check(self, target):
        if target != "controller":
            self.test.assertIn(b" 503 ", self.end)
        whole = "old\nfile\n"
        if target == "vm":  # a disk that was cut off may hold the rest of it, under no name of ours
            whole = "old\n"
        look = f"cat {self.FOLDER}/file" + ("" if target == "vm" else f"; ls -A {self.FOLDER}")
        self.test.await_guest(lambda: self.c.sh(self.bunker, look) == whole, "the old file and nothing else")
        self.c.sh(self.bunker, f"rm -rf {self.FOLDER} && sync")


class Snapshot(Activity):
    def begin(self):
        self.row = self.c.post(f"/bunkers/{self.bunker}/snapshot", {})
        self.folder = os.path.join(self.test.agent.state, "snapshots")
        self.path = os.path.join(self.folder, self.row["id"] + ".ext4")
        processes.wait_until(lambda: os.path.exists(self.path + ".part") or os.path.exists(self.path),
                             "the copy has begun", 30, 0.001)
        self.caught = not os.path.exists(self.path)

    def finish(self):
        pass  # its client was answered when it began

    def check(self, target):
        def settled():
            row = self.c.get(f"/snapshots/{self.row['id']}")
            return row if row["status"] != "creating" else None
        row = processes.wait_until(settled, "the snapshot is ready or failed", 90, 0.1)
        if target != "vm":
            self.test.assertEqual(row["status"], "ready", row["error"])
        self.test.assertEqual(os.path.exists(self.path), row["status"] == "ready")
        self.end = row["status"] + (", in mid-copy" if self.caught else ", too late")
        self.c.call("DELETE", f"/snapshots/{self.row['id']}", expect=200)
        processes.wait_until(lambda: os.listdir(self.folder) == [], "no file of it is left", 30)


class Pause(Activity):
    def begin(self):
        self.c.call("POST", f"/bunkers/{self.bunker}/pause", expect=200)

    def finish(self):
        pass

    def check(self, target):
        self.end = self.test.status_before
        if target != "vm":
            self.c.call("POST", f"/bunkers/{self.bunker}/resume", expect=200)
            self.test.wait_status("running")


ACTIVITIES = (Command, Shell, Upload, Snapshot, Pause)


class KillMatrixTest(case.ClusterTest):
    AGENT = {"vm": {"template_max": 0}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.agent = cls.c.agents[0]
        profile = cls.c.post("/quota-profiles", {"name": "counts", "max_concurrent_bunkers": 10})
        me = httpx.get(cls.c.controller.host + "/v1/whoami",
                       headers={"Authorization": f"Bearer {cls.c.controller.key}"}).json()["data"]["user"]
        cls.c.post("/quota-assignments", {"profile_id": profile["id"], "target_kind": "user", "target_id": me["id"],
                                          "mode": "individual"})
        cls.neighbour = cls.c.bunker("tiny", network_profile="registry")["id"]
        (cls.neighbours_vm,) = cls.agent.vm_pids()
        cls.neighbours_start = processes.start_time(cls.neighbours_vm)
        cls.bunker = cls.c.bunker("tiny", lifecycle_mode="session", network_profile="registry")["id"]
        cls.c.sh(cls.bunker, "dd if=/dev/urandom of=/root/data bs=1048576 count=40 2>/dev/null && "
                             "sha256sum /root/data > /root/sum && sync", timeout_s=120)

    def vm(self):
        (pid,) = set(self.agent.vm_pids()) - {self.neighbours_vm}
        return pid

    def sleepers(self):
        told = self.c.sh(self.bunker, f"ps | grep -c '[{SLEEPER[0]}]{SLEEPER[1:]}' || true")
        return int(told)

    def row(self):
        return self.c.get(f"/bunkers/{self.bunker}")

    def wait_status(self, *statuses):
        def there():
            row = self.row()
            return row if row["status"] in statuses else None
        return processes.wait_until(there, f"the bunker is {statuses}", 90, 0.1)

    def await_guest(self, condition, what):
        """As wait_until, while the worker's link may not be back yet."""
        def holds():
            probe = self.c.call("POST", f"/bunkers/{self.bunker}/exec", {"command": "true"})
            if probe.status_code == 503:
                return None
            self.assertEqual(probe.status_code, 200, probe.text)
            return condition()
        processes.wait_until(holds, what, 60, 0.1)

    # What is killed, and what has to be true when it is back.

    def kill_agent(self):
        vm = self.vm()
        self.agent.daemon.kill9()
        return lambda: self.restart(self.agent, vm)

    def kill_controller(self):
        vm = self.vm()
        self.c.controller.daemon.kill9()
        return lambda: self.restart(self.c.controller, vm)

    def restart(self, daemon, vm):
        """A daemon that is killed touches no VM, and what was asked for before comes to its end."""
        daemon.start()
        self.c.wait_online(1)
        self.assertEqual(self.vm(), vm)
        status = self.wait_status("paused" if self.pausing else "running")
        self.status_before = status["status"]
        self.assertEqual(status["incarnation"], self.incarnation)

    def kill_vm(self):
        os.kill(self.vm(), signal.SIGKILL)
        return self.start_again

    def start_again(self):
        """It failed, its disk is there, and a start is the next incarnation on that disk."""
        row = self.wait_status("failed")
        self.assertEqual((row["status_reason"], row["terminated_at"]), ("VM_ENDED", None))
        self.status_before = row["status"]
        started = self.c.call("POST", f"/bunkers/{self.bunker}/start", expect=200).json()["data"]
        self.assertEqual(started["incarnation"], self.incarnation + 1)
        self.wait_status("running")

    def matrix(self, target, kill):
        told = {}
        for kind in ACTIVITIES:
            with self.subTest(killed=target, during=kind.__name__):
                begun = time.monotonic()
                self.incarnation = self.row()["incarnation"]
                self.pausing = kind is Pause
                activity = kind(self)
                activity.begin()
                bring_back = kill()
                activity.finish()
                bring_back()
                activity.check(target)
                self.assert_at_rest()
                told[kind.__name__] = (activity.end, f"{time.monotonic() - begun:.1f} s")
        print(f"{target} killed: {told}", flush=True)

    def test_agent(self):
        self.matrix("agent", self.kill_agent)

    def test_controller(self):
        self.matrix("controller", self.kill_controller)

    def test_vm(self):
        self.matrix("vm", self.kill_vm)

    def assert_at_rest(self):
        """Two bunkers run: that, and nothing more, is what rows, sums, processes and folders say."""
        self.await_guest(lambda: self.c.sh(self.bunker, "sha256sum -c /root/sum") == "/root/data: OK\n", "its data")
        self.assertEqual(processes.start_time(self.neighbours_vm), self.neighbours_start)
        self.assertEqual(self.c.sh(self.neighbour, "echo well"), "well\n")
        rows = [x for x in self.c.get("/bunkers") if not x["terminated_at"]]
        self.assertEqual({(x["id"], x["status"]) for x in rows},
                         {(self.bunker, "running"), (self.neighbour, "running")})
        allocated = self.c.workers()["w1"]["allocated"]
        (usage,) = [x["usage"] for x in self.c.get("/quota-profiles/usage") if x["profile_name"] == "counts"]
        for what in ("cpu_millicores", "memory_mb", "disk_mb"):
            wanted = sum(x[what] for x in rows)
            self.assertEqual(usage[what], wanted, what)
            if what != "memory_mb":  # placement counts the VMM's own on top
                self.assertEqual(allocated[what], wanted, what)
        self.assertEqual(usage["bunkers"], 2)
        names = {f"{x['id']}.{x['incarnation']}" for x in rows}
        processes.wait_until(lambda: self.left_over(names) == [], lambda: self.left_over(names), 60)
        self.assertEqual(len(self.agent.vm_pids()), 2)
        self.assertEqual(len(self.agent.guard_pids()), 2)

    def left_over(self, names):
        """Things of this agent's on the host that belong to no VM, or are missing for one."""
        state = self.agent.state
        wanted = {"vm": names, "disks": {self.bunker + ".ext4"}, "snapshots": set()}
        found = {folder: set(os.listdir(os.path.join(state, folder))) for folder in wanted}
        wanted["netns"] = {"bunker-" + x for x in names}
        found["netns"] = {x for x in os.listdir("/run/netns")
                          if self.bunker in x or self.neighbour in x}
        for controller, path in processes.cgroups_of(self.neighbours_vm).items():
            folder = f"/sys/fs/cgroup/{controller}{os.path.dirname(path)}"
            if "bunker-vms" in path and os.path.isdir(folder):
                wanted[controller] = names
                found[controller] = {x for x in os.listdir(folder) if self.bunker in x or self.neighbour in x}
        return [(x, sorted(wanted[x] ^ found[x])) for x in wanted if wanted[x] != found[x]]


if __name__ == "__main__":
    unittest.main(verbosity=2)
