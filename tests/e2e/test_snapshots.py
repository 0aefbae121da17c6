#!/usr/bin/python3
"""Snapshots of bunkers' disks: what they hold, where they live, and what may go wrong meanwhile."""

import os
import stat
import unittest

import httpx

from harness import case, images, processes


class Snapshots(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image()

    def agent_of(self, row):
        name = next(x["name"] for x in self.c.workers().values() if x["id"] == row["worker_id"])
        return next(x for x in self.c.agents if x.name == name)

    def files(self, agent=None):
        return sorted(os.listdir(os.path.join((agent or self.c.agents[0]).state, "snapshots")))

    def take(self, bunker, expect=201, **more):
        return self.c.post(f"/bunkers/{bunker}/snapshot", more, expect=expect)

    def wait_settled(self, snapshot, seconds=60):
        def settled():
            row = self.c.get(f"/snapshots/{snapshot}")
            return row if row["status"] != "creating" else None
        return processes.wait_until(settled, f"{snapshot} is ready or failed", seconds, 0.05)

    def taken(self, bunker, **more):
        row = self.wait_settled(self.take(bunker, **more)["id"])
        self.assertEqual(row["status"], "ready", row["error"])
        return row

    def drop(self, snapshot):
        self.assertTrue(self.c.call("DELETE", f"/snapshots/{snapshot}", expect=200).json()["data"]["deleting"])
        processes.wait_until(lambda: self.c.call("GET", f"/snapshots/{snapshot}").status_code == 404, "its row goes")

    def create_from(self, snapshot, **more):
        row = self.c.post("/bunkers", {"snapshot": snapshot, **more})
        return self.wait_status(row["id"], "running")

    def wait_status(self, bunker, status, seconds=90):
        def there():
            row = self.c.get(f"/bunkers/{bunker}")
            self.assertNotEqual(row["status"], "failed", (row["status_reason"], row["status_message"]))
            return row if row["status"] == status else None
        return processes.wait_until(there, f"{bunker} is {status}", seconds, 0.1)

    def end(self, *bunkers):
        for bunker in bunkers:
            self.c.call("DELETE", f"/bunkers/{bunker}", expect=200)
        for bunker in bunkers:
            processes.wait_until(lambda: self.c.get(f"/bunkers/{bunker}")["terminated_at"], f"{bunker} ends", 60)

    def answers(self, bunker):
        return self.c.call("POST", f"/bunkers/{bunker}/exec", {"command": "true"}).status_code == 200


class SnapshotTest(Snapshots):
    CONTROLLER = {"images": {"sweep_interval_s": 2}}

    def test_a_copy_holds_what_the_disk_held(self):
        source = self.c.bunker("tiny", name="source")
        # Not synced by the guest's user: the snapshot has to see to that.
        self.c.sh("source", "echo then > /root/note; echo changed > /etc/marker; rm /etc/hosts")
        pids = self.c.agents[0].vm_pids()
        row = self.take("source", name="then")
        self.assertEqual((row["status"], row["memory"], row["bunker_id"], row["size_bytes"]),
                         ("creating", False, source["id"], 0))
        row = self.wait_settled("then")
        self.assertEqual((row["status"], row["worker_id"], row["image_digest"], row["disk_mb"]),
                         ("ready", source["worker_id"], source["image_digest"], 128))
        self.assertGreater(row["size_bytes"], 0)
        self.assertLess(row["size_bytes"], 64 << 20)
        self.assertIsNotNone(row["ready_at"])
        path = os.path.join(self.c.agents[0].state, "snapshots", row["id"] + ".ext4")
        info = os.stat(path)
        self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid, info.st_size), (0o600, 0, 128 << 20))
        self.assertEqual(self.c.agents[0].vm_pids(), pids, "the bunker goes on")
        self.c.sh("source", "echo now > /root/note; echo more > /root/more; sync")
        copy = self.create_from("then", name="copy", disk_mb=192)
        self.assertEqual((copy["snapshot_id"], copy["worker_id"], copy["image_id"], copy["disk_mb"]),
                         (row["id"], source["worker_id"], source["image_id"], 192))
        self.assertEqual(copy["start_kind"], "cold")
        self.assertEqual(self.c.sh("copy", "cat /root/note /etc/marker; ls /root/more 2>/dev/null | wc -l; hostname"),
                         "then\nchanged\n0\ncopy\n")
        # Its files have grown with it: what would not fit into 128 MiB is written.
        self.c.sh("copy", "dd if=/dev/zero of=/root/large bs=1048576 count=140 && sync && rm /root/large")
        self.assertEqual(self.c.sh("source", "cat /root/note"), "now\n")
        self.c.sh("copy", "echo mine > /root/note; sync")
        again = self.create_from("then")
        self.assertEqual(self.c.sh(again["id"], "cat /root/note"), "then\n")
        self.assertEqual([x["id"] for x in self.c.get("/snapshots?bunker=source")], [row["id"]])
        self.end(source["id"], copy["id"], again["id"])
        self.assertEqual([x["name"] for x in self.c.get(f"/snapshots?bunker={source['id']}")], ["then"])
        self.drop("then")
        self.assertFalse(os.path.exists(path))
        actions = {x["action"] for x in self.c.get("/audit?limit=200")}
        self.assertTrue({"Snapshots.CreateSnapshot", "Snapshots.DeleteSnapshot"} <= actions, actions)

    def test_of_a_stopped_bunker_and_into_one_that_is_kept(self):
        source = self.c.bunker("tiny", lifecycle_mode="session")["id"]
        self.c.sh(source, "echo kept > /root/note")
        self.c.call("POST", f"/bunkers/{source}/stop", expect=200)
        self.wait_status(source, "stopped")
        row = self.taken(source)
        self.assertEqual(self.c.get(f"/bunkers/{source}")["status"], "stopped")
        copy = self.c.post("/bunkers", {"snapshot": row["id"], "lifecycle_mode": "persistent", "start": False})
        self.assertEqual(self.c.error("DELETE", f"/snapshots/{row['id']}")[:2], (409, "RESOURCE_IN_USE"))
        self.c.call("POST", f"/bunkers/{copy['id']}/start", expect=200)
        self.wait_status(copy["id"], "running")
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note; echo own > /root/note"), "kept\n")
        self.drop(row["id"])
        self.c.call("POST", f"/bunkers/{copy['id']}/restart", expect=200)
        self.wait_status(copy["id"], "running")
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "own\n")
        self.c.call("POST", f"/bunkers/{source}/start", expect=200)
        self.wait_status(source, "running")
        self.assertEqual(self.c.sh(source, "cat /root/note"), "kept\n")
        self.end(source, copy["id"])

    def test_of_a_paused_bunker_that_stays_paused(self):
        source = self.c.bunker("tiny")["id"]
        self.c.sh(source, "echo paused > /root/note")
        self.c.call("POST", f"/bunkers/{source}/pause", expect=200)
        self.wait_status(source, "paused")
        row = self.taken(source)
        self.assertEqual(self.c.get(f"/bunkers/{source}")["status"], "paused")
        copy = self.create_from(row["id"])
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "paused\n")
        self.c.call("POST", f"/bunkers/{source}/resume", expect=200)
        self.wait_status(source, "running")
        self.end(source, copy["id"])
        self.drop(row["id"])

    def test_a_final_snapshot(self):
        source = self.c.bunker("tiny", name="last")["id"]
        self.c.sh(source, "echo last > /root/note")
        ending = self.c.call("DELETE", "/bunkers/last?snapshot=true", expect=200).json()["data"]
        final = ending["final_snapshot_id"]
        self.assertEqual((ending["status_reason"], ending["terminated_at"]), ("FINAL_SNAPSHOT", None))
        processes.wait_until(lambda: self.c.get(f"/bunkers/{source}")["terminated_at"], "it ends", 60)
        row = self.c.get(f"/snapshots/{final}")
        self.assertEqual((row["status"], row["bunker_id"]), ("ready", source))
        again = self.c.call("DELETE", f"/bunkers/{source}?snapshot=true", expect=200).json()["data"]
        self.assertEqual(again["final_snapshot_id"], final)
        copy = self.create_from(final)
        self.assertEqual(self.c.sh(copy["id"], "cat /root/note"), "last\n")
        self.end(copy["id"])
        self.drop(final)

    def test_its_image_stays_where_it_is(self):
        used = self.c.ready_image("used", images.tiny(marker="used"))
        other = self.c.ready_image("unused", images.tiny(marker="unused"))
        source = self.c.bunker("used")["id"]
        row = self.taken(source)
        self.end(source)
        for image in (used, other):
            self.c.call("DELETE", f"/images/{image['id']}", expect=200)
        processes.wait_until(lambda: self.c.cache(other["id"])[0]["status"] == "evicted", "the sweep has been there", 60)
        self.assertEqual(self.c.error("POST", "/bunkers", {"image": "used"})[:2], (409, "IMAGE_INACTIVE"))
        copy = self.create_from(row["id"])
        self.assertEqual(self.c.sh(copy["id"], "cat /etc/marker"), "used")
        self.end(copy["id"])
        self.drop(row["id"])
        processes.wait_until(lambda: self.c.cache(used["id"])[0]["status"] == "evicted", "now it goes", 60)

    def test_what_is_refused(self):
        source = self.c.bunker("tiny", name="refuses")["id"]
        row = self.taken(source, name="taken")
        self.assertEqual(self.c.error("POST", f"/bunkers/{source}/snapshot", {"name": "taken"})[:2],
                         (409, "SLUG_CONFLICT"))
        for body, field in (({"snapshot": "taken", "image": "tiny"}, "snapshot"), ({}, "image"),
                            ({"snapshot": "taken", "disk_mb": 127}, "disk_mb")):
            status, code, message = self.c.error("POST", "/bunkers", body)
            self.assertEqual((status, code), (422, "VALIDATION_ERROR"), message)
            self.assertIn(field, message)
        self.assertEqual(self.c.error("POST", "/bunkers", {"snapshot": "none"})[:2], (404, "NOT_FOUND"))
        for path in ("/snapshots/../../etc", "/snapshots/%2e%2e"):
            self.assertGreaterEqual(self.c.call("GET", path).status_code, 400)
        self.end(source)
        self.assertEqual(self.c.error("POST", f"/bunkers/{source}/snapshot", {})[:2], (409, "BUNKER_NOT_RUNNING"))
        self.drop(row["id"])


class KilledTest(Snapshots):
    """kill -9 of the agent at several moments of a snapshot: nothing half made is seen, the VM goes on."""

    def test_an_agent_that_is_killed_meanwhile(self):
        agent = self.c.agents[0]
        source = self.c.bunker("tiny", disk_mb=512)["id"]
        self.c.sh(source, "dd if=/dev/urandom of=/root/data bs=1048576 count=120 && sync && sha256sum /root/data"
                          " > /root/sum && sync", timeout_s=120)
        (pid,) = agent.vm_pids()
        folder = os.path.join(agent.state, "snapshots")
        caught = []
        for moment in ("begun", "half", "still", "later"):
            with self.subTest(moment=moment):
                row = self.take(source)
                part = os.path.join(folder, row["id"] + ".ext4.part")
                whole = os.path.join(folder, row["id"] + ".ext4")
                logged = agent.daemon.log().count("snapshot.bunker_stood_still")

                def reached():
                    if os.path.exists(whole):
                        return True
                    if not os.path.exists(part):
                        return False
                    blocks = os.stat(part).st_blocks * 512
                    return {"begun": True, "half": blocks > 40 << 20, "still": blocks > 119 << 20,
                            "later": agent.daemon.log().count("snapshot.bunker_stood_still") > logged}[moment]
                processes.wait_until(reached, f"{moment} of the copy", 60, 0.001)
                agent.daemon.kill9()
                caught.append((moment, not os.path.exists(whole)))
                agent.start()
                row = self.wait_settled(row["id"], 120)
                self.assertEqual(row["status"], "ready", row["error"])
                processes.wait_until(lambda: self.answers(source), "the bunker answers", 60)
                self.assertEqual(agent.vm_pids(), [pid])
                self.assertEqual(self.c.get(f"/bunkers/{source}")["status"], "running")
                self.assertEqual([x for x in self.files() if x.endswith(".part")], [])
        print(f"killed in mid-copy: {caught}", flush=True)
        self.assertTrue(any(mid for _, mid in caught), "no kill came before the end of its copy")
        copy = self.create_from(row["id"])
        self.assertEqual(self.c.sh(copy["id"], "sha256sum -c /root/sum", timeout_s=120), "/root/data: OK\n")
        self.end(source, copy["id"])

    def test_a_deletion_goes_on_with_the_next_agent(self):
        agent = self.c.agents[0]
        source = self.c.bunker("tiny")["id"]
        row = self.taken(source)
        agent.daemon.kill9()
        self.c.call("DELETE", f"/snapshots/{row['id']}", expect=200)
        self.assertTrue(self.c.get(f"/snapshots/{row['id']}")["deleting"])
        agent.start()
        processes.wait_until(lambda: self.c.call("GET", f"/snapshots/{row['id']}").status_code == 404, "its row goes")
        self.assertFalse([x for x in self.files() if row["id"] in x])
        self.end(source)

    def test_a_file_that_is_lost_fails_its_row(self):
        agent = self.c.agents[0]
        source = self.c.bunker("tiny")["id"]
        row = self.taken(source)
        agent.daemon.kill9()
        os.unlink(os.path.join(agent.state, "snapshots", row["id"] + ".ext4"))
        with open(os.path.join(agent.state, "snapshots", "snap_stranger.ext4"), "w", encoding="ascii"):
            pass
        agent.start()

        def failed():
            return self.c.get(f"/snapshots/{row['id']}")["status"] == "failed"
        processes.wait_until(failed, "its row says so")
        self.assertEqual(self.c.get(f"/snapshots/{row['id']}")["error"]["code"], "SNAPSHOT_LOST")
        self.assertNotIn("snap_stranger.ext4", self.files(), "a file that nobody knows is swept")
        self.assertEqual(self.c.error("POST", "/bunkers", {"snapshot": row["id"]})[:2], (422, "VALIDATION_ERROR"))
        self.c.call("DELETE", f"/snapshots/{row['id']}", expect=200)
        self.assertEqual(self.c.call("GET", f"/snapshots/{row['id']}").status_code, 404)
        self.end(source)


class FleetTest(Snapshots):
    AGENTS = 2
    CONTROLLER = {"snapshots": {"per_tenant": 2, "deadline_s": 10},
                  "workers": {"offline_after_s": 4, "lost_after_s": 300}}

    def test_a_create_goes_to_the_snapshots_home(self):
        source = self.c.bunker("tiny", cpu_millicores=100, memory_mb=128)
        row = self.taken(source["id"])
        self.assertEqual([len(self.files(x)) for x in self.c.agents if x is not self.agent_of(source)], [0])
        told = self.c.post("/placement/explain", {"snapshot": row["id"]}, expect=200)
        by_worker = {x["worker_id"]: x for x in told["workers"]}
        self.assertTrue(by_worker.pop(source["worker_id"])["eligible"])
        (other,) = by_worker.values()
        self.assertEqual((other["eligible"], other["predicate"]), (False, "snapshot home"))
        rows = self.c.post("/bunkers", {"snapshot": row["id"], "cpu_millicores": 100, "memory_mb": 128,
                                        "replicas": 2})
        self.assertEqual({x["worker_id"] for x in rows}, {source["worker_id"]})
        self.end(source["id"], *[x["id"] for x in rows])
        self.drop(row["id"])

    def test_the_cap_and_a_worker_that_is_away(self):
        source = self.c.bunker("tiny")
        first = self.taken(source["id"])
        agent = self.agent_of(source)
        agent.daemon.kill9()
        second = self.take(source["id"])
        self.assertEqual(self.c.error("POST", f"/bunkers/{source['id']}/snapshot", {})[:2], (409, "RESOURCE_IN_USE"))
        row = self.wait_settled(second["id"], 40)
        self.assertEqual((row["status"], row["error"]["code"]), ("failed", "SNAPSHOT_TIMEOUT"))
        self.assertEqual(self.c.error("POST", f"/bunkers/{source['id']}/snapshot", {})[:2],
                         (503, "WORKER_UNAVAILABLE"))
        agent.start()
        self.c.wait_online(2)
        status, code, message = self.c.error("POST", f"/bunkers/{source['id']}/snapshot", {})
        self.assertEqual((status, code), (429, "BUNKER_QUOTA_EXCEEDED"))
        self.assertIn("may have 2 snapshots (snapshots.per_tenant) and has 2", message)
        self.c.call("DELETE", f"/snapshots/{second['id']}", expect=200)
        processes.wait_until(lambda: self.c.call("GET", f"/snapshots/{second['id']}").status_code == 404, "it goes")
        self.assertEqual(self.files(agent), [first["id"] + ".ext4"])
        self.end(source["id"])
        self.drop(first["id"])

    def account(self, path, body):
        answer = httpx.post(self.c.controller.host + path, json=body, timeout=30,
                            headers={"Authorization": f"Bearer {self.c.controller.key}"})
        self.assertEqual(answer.status_code, 201, answer.text)
        return answer.json()["data"]

    def test_another_tenant_sees_nothing(self):
        source = self.c.bunker("tiny")["id"]
        row = self.taken(source, name="ours")
        tenant = self.account("/v1/tenants", {"name": "others"})
        user = self.account("/v1/users", {"name": "mallory", "role": "tenant_admin", "tenant_id": tenant["id"]})
        key = self.account("/v1/api-keys", {"name": "k", "user_id": user["id"]})["key"]
        self.assertEqual(self.c.get("/snapshots", key=key), [])
        self.assertEqual(self.c.get(f"/snapshots?bunker={source}", key=key), [])
        for ref in (row["id"], "ours"):
            for method, path, body in (("GET", f"/snapshots/{ref}", None), ("DELETE", f"/snapshots/{ref}", None),
                                       ("POST", f"/bunkers/{source}/snapshot", {}),
                                       ("POST", "/bunkers", {"snapshot": ref})):
                self.assertEqual(self.c.error(method, path, body, key=key)[:2], (404, "NOT_FOUND"), path)
        self.assertEqual(self.c.get(f"/snapshots/{row['id']}")["status"], "ready")
        self.end(source)
        self.drop("ours")


class DiskFullTest(Snapshots):
    AGENTS = 0

    @classmethod
    def prepare(cls):
        cls.mount = os.path.join(cls.c.folder, "m")
        os.mkdir(cls.mount, 0o711)
        processes.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=711", "bunker-test", cls.mount])

    @classmethod
    def tearDownClass(cls):
        for agent in cls.c.agents:
            agent.stop()
        processes.run(["umount", "-l", cls.mount])
        super().tearDownClass()

    def test_without_room_it_fails_and_leaves_nothing(self):
        agent = self.c.add_agent("small", {"state": {"dir": os.path.join(self.mount, "s")},
                                           "vm": {"template_max": 0}})
        agent.state = os.path.join(self.mount, "s")
        self.c.wait_online(1)
        self.c.ready_image()
        source = self.c.bunker("tiny", disk_mb=256)["id"]
        self.c.sh(source, "dd if=/dev/urandom of=/root/data bs=1048576 count=60 && sync", timeout_s=120)
        room = os.statvfs(self.mount)
        used_mib = (room.f_blocks - room.f_bfree) * room.f_frsize >> 20
        processes.run(["mount", "-o", f"remount,size={used_mib + 24}m", self.mount])
        row = self.wait_settled(self.take(source)["id"])
        self.assertEqual((row["status"], row["error"]["code"]), ("failed", "DISK_FULL"))
        self.assertIn("free some room", row["error"]["message"])
        self.assertEqual(self.files(agent), [])
        self.assertTrue(self.answers(source), "the bunker goes on")
        ending = self.c.call("DELETE", f"/bunkers/{source}?snapshot=true", expect=200).json()["data"]
        self.wait_settled(ending["final_snapshot_id"])
        kept = self.c.get(f"/bunkers/{source}")
        self.assertEqual((kept["status"], kept["status_reason"]), ("running", "SNAPSHOT_FAILED"))
        self.assertIn("DISK_FULL", kept["status_message"])
        processes.run(["mount", "-o", "remount,size=500m", self.mount])
        self.taken(source)
        self.end(source)


if __name__ == "__main__":
    unittest.main(verbosity=2)
