#!/usr/bin/python3
"""Ends: maximum lifetime, idle time, delete, and the sweep that evicts what is retired."""

import os
import signal
import time
import unittest

from harness import case, images, processes
from harness.events import EventStream


class LifecycleTest(case.ClusterTest):
    CONTROLLER = {"images": {"sweep_interval_s": 2}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()

    def wait_ended(self, bunker, seconds):
        def ended():
            row = self.c.get(f"/bunkers/{bunker}")
            return row if row["terminated_at"] else None
        return processes.wait_until(ended, "the bunker ends", seconds, 0.2)

    def test_maximum_lifetime(self):
        bunker = self.c.bunker("tiny", max_lifetime_s=20)
        row = self.wait_ended(bunker["id"], 60)
        self.assertEqual(row["status"], "stopped")
        status, code, _ = self.c.error("POST", f"/bunkers/{bunker['id']}/exec", {"command": "true"})
        self.assertEqual((status, code), (409, "BUNKER_NOT_RUNNING"))

    def test_idle(self):
        bunker = self.c.bunker("tiny", idle_timeout_s=5)
        for _ in range(4):
            time.sleep(2)  # traffic within the idle time keeps it alive
            self.c.sh(bunker["id"], "true")
        started = time.monotonic()
        self.wait_ended(bunker["id"], 30)
        self.assertGreater(time.monotonic() - started, 3)

    def test_delete_frees_everything(self):
        agent = self.c.agents[0]
        before = set(agent.vm_pids())
        bunker = self.c.bunker("tiny")
        started = set(agent.vm_pids()) - before
        self.assertEqual(len(started), 1)
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        processes.wait_until(lambda: not started & set(agent.vm_pids()), "its VM is gone")
        processes.wait_until(lambda: not [x for x in os.listdir(os.path.join(agent.state, "vm")) if bunker["id"] in x],
                             "its folder is gone")
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)

    def test_the_sweep_never_evicts_what_is_in_use(self):
        image = self.c.ready_image("retired", images.tiny(marker="retired"))
        bunker = self.c.bunker("retired")
        self.c.call("DELETE", f"/images/{image['id']}", expect=200)
        time.sleep(6)  # several sweeps
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "retired")
        self.assertEqual(self.c.cache(image["id"])[0]["status"], "ready")
        files = len(self.c.agents[0].image_files())
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        processes.wait_until(lambda: len(self.c.agents[0].image_files()) == files - 1, "the file is evicted", 30)
        processes.wait_until(lambda: self.c.cache(image["id"])[0]["status"] == "evicted", "its row says so", 30)


class Steps(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.agent = cls.c.agents[0]

    def step(self, bunker, verb, expect=200, incarnation=None):
        headers = {"If-Match": str(incarnation)} if incarnation is not None else None
        return self.c.call("POST", f"/bunkers/{bunker}/{verb}", expect=expect, headers=headers).json()

    def wait_status(self, bunker, *statuses, seconds=90):
        def there():
            row = self.c.get(f"/bunkers/{bunker}")
            return row if row["status"] in statuses else None
        return processes.wait_until(there, f"{bunker} is {statuses}", seconds, 0.1)

    def delete(self, bunker):
        self.c.call("DELETE", f"/bunkers/{bunker}", expect=200)
        def gone():
            return self.c.get(f"/bunkers/{bunker}")["terminated_at"] is not None
        processes.wait_until(gone, "it has ended", 60)

    def disks(self):
        return sorted(os.listdir(os.path.join(self.agent.state, "disks")))

    def allocated(self):
        return self.c.workers()["w1"]["allocated"]

    def vm_of(self, before):
        (pid,) = set(self.agent.vm_pids()) - set(before)
        return pid


class KeptDiskTest(Steps):
    """Bunkers that are stopped and started again: their disk stays, their VM does not."""

    AGENT = {"vm": {"usage_period_s": 1}}

    def test_what_was_written_before_a_stop_is_there_after_the_start(self):
        before = self.agent.vm_pids()
        bunker = self.c.bunker("tiny", lifecycle_mode="session")["id"]
        # Not synced by the guest's user: the stop has to see to that.
        self.c.sh(bunker, "echo kept > /root/note; echo gone > /run/note; echo changed > /etc/marker")
        held = self.allocated()
        self.step(bunker, "stop")
        row = self.wait_status(bunker, "stopped")
        self.assertIsNone(row["terminated_at"])
        self.assertEqual(row["incarnation"], 1)
        processes.wait_until(lambda: self.agent.vm_pids() == before, "its VM is gone")
        now = self.allocated()
        self.assertEqual(held["cpu_millicores"] - now["cpu_millicores"], 500)
        self.assertEqual(held["disk_mb"], now["disk_mb"])
        self.assertEqual(self.c.error("POST", f"/bunkers/{bunker}/exec", {"command": "true"})[:2],
                         (409, "BUNKER_NOT_RUNNING"))
        self.assertEqual(self.c.error("POST", f"/bunkers/{bunker}/pause")[:2], (409, "BUNKER_NOT_RUNNING"))
        started = self.step(bunker, "start", incarnation=1)["data"]
        self.assertEqual((started["incarnation"], started["status"]), (2, "provisioning"))
        self.wait_status(bunker, "running")
        self.assertEqual(self.c.sh(bunker, "cat /root/note /etc/marker; ls /run/note 2>/dev/null | wc -l"),
                         "kept\nchanged\n0\n")
        answer = self.c.call("POST", f"/bunkers/{bunker}/stop", headers={"If-Match": "1"})
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (409, "STALE_INCARNATION"))
        self.step(bunker, "restart", incarnation=2)
        row = self.wait_status(bunker, "running")
        self.assertEqual(row["incarnation"], 3)
        self.assertEqual(self.c.sh(bunker, "cat /root/note"), "kept\n")
        self.delete(bunker)
        processes.wait_until(lambda: not [x for x in self.disks() if bunker in x], "its disk is gone")

    def test_ephemeral_ones_have_no_stop(self):
        bunker = self.c.bunker("tiny")["id"]
        for verb in ("stop", "start", "restart"):
            self.assertEqual(self.c.error("POST", f"/bunkers/{bunker}/{verb}")[:2], (403, "LIFECYCLE_MODE_DENIED"))
        self.delete(bunker)

    def test_a_pause_stops_the_clock_and_a_resume_sets_it(self):
        bunker = self.c.bunker("tiny", on_idle="pause", idle_timeout_s=4)["id"]
        self.c.sh(bunker, "(while true; do date +%s > /run/tick; sleep 1; done) > /dev/null 2>&1 &")
        row = self.wait_status(bunker, "paused", seconds=40)
        self.assertEqual(row["status_reason"], "IDLE_TIMEOUT")
        self.assertEqual(self.c.error("POST", f"/bunkers/{bunker}/exec", {"command": "true"})[:2],
                         (409, "BUNKER_NOT_RUNNING"))
        paused_at = time.time()
        self.c.call("PATCH", f"/bunkers/{bunker}", {"idle_timeout_s": 600, "name": "napper"}, expect=200)
        time.sleep(5)
        self.step("napper", "resume")
        self.wait_status(bunker, "running")
        said = int(self.c.sh(bunker, "date +%s"))
        self.assertLess(abs(said - time.time()), 3, "the guest's clock is late by the pause")
        self.assertGreater(said, paused_at + 4)
        self.step(bunker, "pause")
        self.wait_status(bunker, "paused")
        self.delete(bunker)

    def test_idle_stops_a_session(self):
        bunker = self.c.bunker("tiny", lifecycle_mode="session", idle_timeout_s=3)["id"]
        row = self.wait_status(bunker, "stopped", seconds=40)
        self.assertEqual((row["status_reason"], row["terminated_at"]), ("IDLE_TIMEOUT", None))
        self.delete(bunker)

    def test_created_without_a_start(self):
        self.assertEqual(self.c.error("POST", "/bunkers", {"image": "tiny", "start": False})[:2],
                         (403, "LIFECYCLE_MODE_DENIED"))
        row = self.c.post("/bunkers", {"image": "tiny", "lifecycle_mode": "persistent", "start": False})
        self.assertEqual((row["status"], row["terminated_at"]), ("stopped", None))
        self.step(row["id"], "start")
        self.wait_status(row["id"], "running")
        self.assertEqual(self.c.sh(row["id"], "echo up"), "up\n")
        self.delete(row["id"])

    def test_a_vm_that_is_killed_leaves_its_disk(self):
        before = self.agent.vm_pids()
        bunker = self.c.bunker("tiny", lifecycle_mode="persistent")["id"]
        self.c.sh(bunker, "echo kept > /root/note; sync")
        os.kill(self.vm_of(before), signal.SIGKILL)
        row = self.wait_status(bunker, "failed")
        self.assertEqual((row["status_reason"], row["terminated_at"]), ("VM_ENDED", None))
        self.step(bunker, "start")
        self.wait_status(bunker, "running")
        self.assertEqual(self.c.sh(bunker, "cat /root/note"), "kept\n")
        self.delete(bunker)

    def test_its_vm_is_held_to_its_share_and_measured(self):
        before = self.agent.vm_pids()
        row = self.c.bunker("tiny", lifecycle_mode="session", cpu_millicores=500, memory_mb=256)
        bunker, pid = row["id"], self.vm_of(before)
        guest_mb = 256 * (2 if row["start_kind"] == "restore" else 1)  # a clone's pages count twice
        groups = processes.cgroups_of(pid)
        if not os.path.isdir("/sys/fs/cgroup/cpu"):
            self.skipTest("version 1 of control groups is not mounted here")
        for controller, file, value in (("cpu", "cpu.cfs_quota_us", 10000),
                                        ("memory", "memory.limit_in_bytes", (guest_mb + 96) << 20),
                                        ("pids", "pids.max", 256)):
            self.assertTrue(groups[controller].endswith(f"bunker-vms/{bunker}.1"), groups)
            path = f"/sys/fs/cgroup/{controller}{groups[controller]}/{file}"

            def bound():
                with open(path, encoding="ascii") as limit:
                    return int(limit.read())
            if controller == "cpu":  # not before vm.start_burst_ms
                processes.wait_until(lambda: bound() > 0, "its CPU is bounded", 10)
            self.assertEqual(bound(), value, path)
        self.c.sh(bunker, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; dd if=/dev/urandom of=/root/x bs=1M count=8; sync")
        def measured():
            usage = self.c.get(f"/bunkers/{bunker}")["usage"]
            return usage if usage and usage["disk_bytes"] > 8 << 20 else None
        usage = processes.wait_until(measured, "its usage is on the row", 60)
        self.assertGreater(usage["cpu_s"], 0.3)
        self.assertGreater(usage["rss_bytes"], 50 << 20)
        self.delete(bunker)
        processes.wait_until(lambda: not os.path.isdir("/sys/fs/cgroup/cpu" + groups["cpu"]), "its group is gone")

    def test_its_disk_is_held_to_its_rate(self):
        write = "dd if=/dev/zero of=/root/x bs=64k count=128 2>/dev/null && sync"
        rows = [self.c.bunker("tiny", lifecycle_mode="session", **more)
                for more in ({}, {"disk_bytes_per_s": 2 << 20})]
        self.assertEqual([x["disk_bytes_per_s"] for x in rows], [None, 2 << 20])
        took = []
        for row in rows:
            begun = time.monotonic()
            self.c.sh(row["id"], write)
            took.append(time.monotonic() - begun)
        # 8 MiB at 2 MiB/s, of which QEMU lets the first tenth of a second's worth through at once.
        self.assertGreater(took[1], 3.5, took)
        self.assertLess(took[0], took[1], took)
        for row in rows:
            self.delete(row["id"])

    def test_events_tell_each_change_and_go_on_after_an_id(self):
        bunker = self.c.post("/bunkers", {"image": "tiny", "lifecycle_mode": "session"})["id"]
        def told(stream, status):
            stream.wait(lambda e: any(x[1] == "bunker" and x[2]["id"] == bunker and x[2]["status"] == status for x in e),
                        status, 90)
        with EventStream(self.c, f"/bunkers/{bunker}/events") as stream:
            told(stream, "running")
            self.step(bunker, "stop")
            told(stream, "stopped")
            seen = stream.last_id()
        self.step(bunker, "start")
        self.wait_status(bunker, "running")
        self.kill_controller()
        self.wait_status(bunker, "running")
        with EventStream(self.c, "/bunkers/events", seen) as stream:
            stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
            rows = [x[2] for x in stream.events if x[1] == "bunker" and x[2]["id"] == bunker]
            self.assertEqual([(x["incarnation"], x["status"]) for x in rows], [(2, "running")])
            self.assertNotIn("reset", [x[1] for x in stream.events])
            self.c.call("DELETE", f"/bunkers/{bunker}", expect=200)
            stream.wait(lambda e: any(x[1] == "bunker" and x[2]["id"] == bunker and x[2]["terminated_at"] for x in e),
                        "its end", 60)
        with EventStream(self.c, f"/bunkers/{bunker}/events") as stream:
            self.assertTrue(stream.ended(), "its stream does not end with its end")
            self.assertEqual([x[1] for x in stream.events], ["bunker"])

    def test_a_lost_disk_fails_the_start_and_says_so(self):
        bunker = self.c.bunker("tiny", lifecycle_mode="session")["id"]
        self.step(bunker, "stop")
        self.wait_status(bunker, "stopped")
        os.unlink(os.path.join(self.agent.state, "disks", bunker + ".ext4"))
        self.step(bunker, "start")
        row = self.wait_status(bunker, "failed", "running")
        self.assertEqual(row["status_reason"], "DISK_LOST")
        self.delete(bunker)

    def kill_agent(self):
        self.agent.daemon.kill9()
        self.agent.start()

    def kill_controller(self):
        self.c.controller.daemon.kill9()
        self.c.controller.start()

    def test_either_daemon_killed_in_each_transition(self):
        bunker = self.c.bunker("tiny", lifecycle_mode="persistent")["id"]
        self.c.sh(bunker, "echo kept > /root/note; sync")
        for kill in (self.kill_agent, self.kill_controller):
            for verb, status in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"),
                                 ("start", "running"), ("restart", "running")):
                with self.subTest(kill=kill.__name__, verb=verb):
                    incarnation = self.step(bunker, verb)["data"]["incarnation"]
                    kill()
                    row = self.wait_status(bunker, status)
                    self.assertEqual(row["incarnation"], incarnation)
        processes.wait_until(lambda: self.answers(bunker), "exec works", 60)
        self.assertEqual(self.c.sh(bunker, "cat /root/note"), "kept\n")
        self.assertEqual(len(self.agent.vm_pids()), 1)
        self.delete(bunker)

    def answers(self, bunker):
        return self.c.call("POST", f"/bunkers/{bunker}/exec", {"command": "true"}).status_code == 200


class RebootTest(Steps):
    """The host's reboot, stood in for by killing the agent and its VMs, and by another boot id."""

    def start_with_another_boot_id(self):
        path = os.path.join(self.agent.folder, "boot_id")
        with open(path, "w", encoding="ascii") as out:
            out.write("0b8a4c1e-0000-4000-8000-000000000001\n")
        script = f"mount --bind {path} /proc/sys/kernel/random/boot_id && exec \"$@\""
        self.agent.daemon.argv = ["unshare", "-m", "sh", "-c", script, "sh", *self.agent.daemon.argv]
        self.agent.start()

    def test_persistent_ones_start_again_and_the_others_fail(self):
        rows = {mode: self.c.bunker("tiny", lifecycle_mode=mode)["id"]
                for mode in ("persistent", "session", "ephemeral")}
        parked = self.c.bunker("tiny", lifecycle_mode="session")["id"]
        self.c.sh(rows["persistent"], "echo kept > /root/note; sync")
        self.c.sh(parked, "echo parked > /root/note; sync")
        self.step(parked, "stop")
        self.wait_status(parked, "stopped")
        self.agent.daemon.kill9()
        for pid in self.agent.vm_pids():
            os.kill(pid, signal.SIGKILL)
        self.start_with_another_boot_id()
        for mode in ("session", "ephemeral"):
            row = self.wait_status(rows[mode], "failed")
            self.assertEqual(row["status_reason"], "HOST_REBOOTED")
            self.assertIsNotNone(row["terminated_at"])
        def again():
            row = self.c.get(f"/bunkers/{rows['persistent']}")
            return row if (row["status"], row["incarnation"]) == ("running", 2) else None
        processes.wait_until(again, "the persistent one runs again", 90)
        self.assertEqual(self.c.sh(rows["persistent"], "cat /root/note"), "kept\n")
        self.step(parked, "start")
        self.wait_status(parked, "running")
        self.assertEqual(self.c.sh(parked, "cat /root/note"), "parked\n")
        processes.wait_until(lambda: len(self.disks()) == 2, "the session's disk is gone")


if __name__ == "__main__":
    unittest.main(verbosity=2)
