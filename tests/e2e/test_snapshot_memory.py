#!/usr/bin/python3
"""Snapshots with memory: what runs goes on in the bunkers made of them, each itself."""

import os
import unittest

from harness import case, images, processes

COUNTER = {"Env": ["PATH=/bin:/usr/bin"], "Entrypoint": ["/bin/sh", "-c"],
           "Cmd": ["i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.1; done"]}


class MemoryTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image("counter", images.tiny(config=COUNTER))

    def files(self):
        return sorted(os.listdir(os.path.join(self.c.agents[0].state, "snapshots")))

    def taken(self, bunker, **more):
        row = self.c.post(f"/bunkers/{bunker}/snapshot", {"memory": True, **more})
        self.assertEqual((row["memory"], row["status"]), (True, "creating"))

        def settled():
            now = self.c.get(f"/snapshots/{row['id']}")
            return now if now["status"] != "creating" else None
        row = processes.wait_until(settled, "the snapshot is ready or failed", 60, 0.05)
        self.assertEqual(row["status"], "ready", row["error"])
        return row

    def count(self, bunker):
        return int(self.c.sh(bunker, "cat /tmp/count"))

    def growing(self, bunker):
        before = self.count(bunker)
        processes.wait_until(lambda: self.count(bunker) > before, f"{bunker} counts on", 20)
        return before

    def source(self, **more):
        row = self.c.bunker("counter", main={}, **more)
        processes.wait_until(lambda: self.c.exec(row["id"], "test -s /tmp/count")["exit_code"] == 0, "it counts")
        return row

    def end(self, *ids):
        for one in ids:
            self.c.call("DELETE", f"/bunkers/{one}", expect=200)
        for one in ids:
            processes.wait_until(lambda: self.c.get(f"/bunkers/{one}")["terminated_at"], f"{one} ends", 60)

    def drop(self, snapshot):
        self.c.call("DELETE", f"/snapshots/{snapshot}", expect=200)
        processes.wait_until(lambda: self.c.call("GET", f"/snapshots/{snapshot}").status_code == 404, "its row goes")
        self.assertFalse([x for x in self.files() if snapshot in x])

    def test_what_ran_goes_on_in_each_copy(self):
        source = self.source()
        self.c.sh(source["id"], "echo kept > /root/note")
        snapshot = self.taken(source["id"], name="running")
        self.assertEqual((snapshot["memory_mb"], snapshot["vcpus"]), (source["memory_mb"], 1))
        self.assertGreater(snapshot["size_bytes"], 10 << 20)
        at = self.growing(source["id"])
        copies = [self.c.bunker_from(snapshot["id"]) for _ in range(2)]
        for copy in copies:
            self.assertEqual((copy["start_kind"], copy["fallback_reason"]), ("restore", None), copy)
            self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "kept\n")
            self.growing(copy["id"])
        print("counted", at, "in the source,", [self.count(x["id"]) for x in copies], "in the copies", flush=True)
        # Each is itself: name, machine id, randomness; and the clock is the host's.
        rows = [source, *copies]
        for script in ("cat /proc/sys/kernel/hostname", "cat /etc/machine-id", "head -c 16 /dev/urandom | base64"):
            self.assertEqual(len({self.c.sh(x["id"], script) for x in rows}), 3, script)
        clocks = [int(self.c.sh(x["id"], "date +%s")) for x in rows]
        self.assertLess(max(clocks) - min(clocks), 5, clocks)
        # Of one copy nothing reaches another.
        self.c.sh(copies[0]["id"], "echo other > /root/note; sync")
        self.assertEqual(self.c.sh(copies[1]["id"], "cat /root/note"), "kept\n")
        self.end(*(x["id"] for x in rows))
        self.drop(snapshot["id"])

    def test_a_paused_one_a_larger_disk_and_a_kept_one(self):
        source = self.source(lifecycle_mode="session")
        self.c.call("POST", f"/bunkers/{source['id']}/pause", expect=200)
        self.c.get(f"/bunkers/{source['id']}?wait_status=paused&wait_s=30")
        snapshot = self.taken(source["id"])
        self.assertEqual(self.c.get(f"/bunkers/{source['id']}")["status"], "paused")
        copy = self.c.bunker_from(snapshot["id"], disk_mb=700, lifecycle_mode="session")
        self.assertEqual(copy["start_kind"], "restore", copy)
        self.assertGreater(int(self.c.sh(copy["id"], "df -k / | tail -n 1").split()[1]), 600 * 1024)
        self.growing(copy["id"])
        # Once stopped, it boots from its own disk.
        self.c.sh(copy["id"], "echo later > /root/note; sync")
        for verb, status in (("stop", "stopped"), ("start", "running")):
            self.c.call("POST", f"/bunkers/{copy['id']}/{verb}", expect=200)
            again = self.c.get(f"/bunkers/{copy['id']}?wait_status={status}&wait_s=60")
            self.assertEqual(again["status"], status, again)
        self.assertEqual(again["start_kind"], "cold", again)
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "later\n")
        self.c.call("POST", f"/bunkers/{source['id']}/resume", expect=200)
        self.c.get(f"/bunkers/{source['id']}?wait_status=running&wait_s=30")
        self.growing(source["id"])
        self.end(source["id"], copy["id"])
        self.drop(snapshot["id"])

    def test_a_cold_boot_and_a_copy_of_a_copy(self):
        source = self.source(memory_mb=200)
        self.assertEqual(source["start_kind"], "cold", source)
        first = self.taken(source["id"])
        copy = self.c.bunker_from(first["id"])
        self.assertEqual((copy["start_kind"], copy["memory_mb"]), ("restore", 200), copy)
        second = self.taken(copy["id"])
        again = self.c.bunker_from(second["id"])
        self.assertEqual(again["start_kind"], "restore", again)
        self.growing(again["id"])
        self.end(source["id"], copy["id"], again["id"])
        self.drop(first["id"])
        self.drop(second["id"])

    def test_a_damaged_memory_boots_from_the_disk(self):
        source = self.source()
        self.c.sh(source["id"], "echo kept > /root/note")
        snapshot = self.taken(source["id"])
        path = os.path.join(self.c.agents[0].state, "snapshots", snapshot["id"] + ".dev")
        with open(path, "r+b") as file:
            file.truncate(3)
        copy = self.c.bunker_from(snapshot["id"])
        self.assertEqual(copy["start_kind"], "cold", copy)
        self.assertIn("RESTORE_FAILED", copy["fallback_reason"])
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "kept\n")
        self.end(source["id"], copy["id"])
        self.drop(snapshot["id"])

    def test_an_agent_killed_meanwhile_leaves_nothing_half_made(self):
        agent = self.c.agents[0]
        source = self.source()
        (pid,) = agent.vm_pids()
        folder = os.path.join(agent.state, "snapshots")
        row = self.c.post(f"/bunkers/{source['id']}/snapshot", {"memory": True})
        part = os.path.join(folder, row["id"] + ".mem.part")
        whole = os.path.join(folder, row["id"] + ".ext4")
        processes.wait_until(lambda: os.path.exists(part) or os.path.exists(whole), "its memory is written", 60, 0.001)
        print("killed in mid-copy:", not os.path.exists(whole), flush=True)
        agent.daemon.kill9()
        agent.start()
        row = processes.wait_until(
            lambda: (lambda x: x if x["status"] != "creating" else None)(self.c.get(f"/snapshots/{row['id']}")),
            "the snapshot is settled", 60)
        self.assertEqual(row["status"], "ready", row["error"])
        self.assertEqual(agent.vm_pids(), [pid])
        processes.wait_until(
            lambda: self.c.call("POST", f"/bunkers/{source['id']}/exec", {"command": "true"}).status_code == 200,
            "the bunker answers", 60)
        self.assertEqual([x for x in self.files() if x.endswith(".part")], [])
        copy = self.c.bunker_from(row["id"])
        self.assertEqual(copy["start_kind"], "restore", copy)
        self.growing(copy["id"])
        self.growing(source["id"])
        self.end(source["id"], copy["id"])
        self.drop(row["id"])

    def test_what_is_refused(self):
        source = self.source(lifecycle_mode="session")
        snapshot = self.taken(source["id"])
        for more, field in (({"memory_mb": 4096}, "memory_mb"), ({"cpu_millicores": 3000}, "cpu_millicores"),
                            ({"main": {}}, "main"), ({"network_profile": "registry"}, "network_profile")):
            status, code, message = self.c.error("POST", "/bunkers", {"snapshot": snapshot["id"], **more})[:3]
            self.assertEqual((status, code), (422, "VALIDATION_ERROR"), message)
            self.assertIn(field, message)
        self.c.call("POST", f"/bunkers/{source['id']}/stop", expect=200)
        self.c.get(f"/bunkers/{source['id']}?wait_status=stopped&wait_s=30")
        self.assertEqual(self.c.error("POST", f"/bunkers/{source['id']}/snapshot", {"memory": True})[:2],
                         (409, "BUNKER_NOT_RUNNING"))
        self.end(source["id"])
        self.drop(snapshot["id"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
