#!/usr/bin/python3
"""What goes from a worker's disk, and what does not: deactivation, the sweep, gc, a disk that fills."""

import os
import unittest

from harness import case, images, processes


class CollectionTest(case.ClusterTest):
    CONTROLLER = {"images": {"sweep_interval_s": 2, "keep_unused_s": 0, "retry_base_s": 1, "retry_max_s": 4}}
    AGENT = {"worker": {"cpu_millicores": 4000, "memory_mb": 4096, "disk_mb": 400},
             "images": {"disk_check_s": 1, "bake_uid": 64010}}

    def files(self):
        return self.c.agents[0].image_files()

    def row(self, image):
        return next(iter(self.c.cache(image)), None)

    def gc(self, dry_run):
        return self.c.post("/workers/w1/gc", {"dry_run": dry_run}, expect=200)

    def test_1_deactivation_waits_for_the_bunker(self):
        image = self.c.register("used", self.c.registry.push(images.tiny(marker="used"), "used"))
        group = self.c.group("g", images=["used"])
        self.c.wait_cache("used")
        bunker = self.c.bunker("used")
        answer = self.c.call("DELETE", "/images/used", expect=200).json()["data"]
        self.assertFalse(answer["active"])
        self.assertEqual(self.c.error("POST", "/bunkers", {"image": "used"})[:2], (409, "IMAGE_INACTIVE"))
        self.assertEqual(self.c.error("POST", "/images/used/warm")[:2], (409, "IMAGE_INACTIVE"))
        # Two sweeps later it is there, and the bunker works.
        sweeps = self.c.controller.daemon.log().count(" image.evicted ")
        report = self.gc(dry_run=True)
        self.assertEqual(report["would_evict"], [])
        self.assertEqual([(x["image"], x["reason"]) for x in report["pinned"]],
                         [(image["id"], "a bunker uses it")])
        self.assertEqual(self.gc(dry_run=False)["would_evict"], [])
        processes.wait_until(lambda: self.c.get("/images/used")["cache_summary"]["ready"] == 1, "it stays", 5)
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "used")
        self.assertEqual(self.c.controller.daemon.log().count(" image.evicted "), sweeps)
        self.assertEqual(len(self.files()), 1)
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        processes.wait_until(lambda: not self.files(), "the file is swept once the bunker has ended", 30)
        processes.wait_until(lambda: self.c.get("/images/used")["cache_summary"]["evicted"] == 1, "the row says so", 10)
        self.c.call("DELETE", f"/availability-groups/{group}", expect=200)

    def test_2_gc_does_what_its_dry_run_said(self):
        for name in ("lazy-a", "lazy-b"):
            self.c.register(name, self.c.registry.push(images.tiny(marker=name), name), lazy_pull=True)
            bunker = self.c.bunker(name, seconds=150)
            self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        self.c.register("held", self.c.registry.push(images.tiny(marker="held"), "held"))
        group = self.c.group("holds", images=["held"])
        self.c.wait_cache("held")

        def two_loose():
            report = self.gc(dry_run=True)
            return report if len(report["would_evict"]) == 2 else None
        dry = processes.wait_until(two_loose, "both bunkers have ended", 60)
        self.assertTrue(dry["dry_run"])
        self.assertEqual([x["image_name"] for x in dry["would_evict"]], ["lazy-a", "lazy-b"])  # LRU first
        self.assertEqual([x["image_name"] for x in dry["pinned"]], ["held"])
        for row in dry["would_evict"]:
            self.assertGreater(row["bytes"], 0)
            self.assertRegex(row["last_used_at"], r"^20\d\d-")
        self.assertEqual(len(self.files()), 3, "a dry run changes nothing")
        done = self.gc(dry_run=False)
        self.assertEqual(done["would_evict"], dry["would_evict"])
        processes.wait_until(lambda: len(self.files()) == 1, "exactly these two are gone", 30)
        self.assertEqual(self.row("held")["status"], "ready")
        self.assertEqual(self.gc(dry_run=True)["would_evict"], [])
        self.assertEqual(self.c.error("POST", "/workers/none/gc", {})[:2], (404, "NOT_FOUND"))
        self.c.call("DELETE", f"/availability-groups/{group}", expect=200)
        processes.wait_until(lambda: not self.files(), "the group's is swept", 30)

    def test_3_a_disk_that_fills_costs_blobs_then_what_nobody_wants(self):
        agent = self.c.agents[0]
        self.c.register("spare", self.c.registry.push(images.padded(30, "spare"), "spare"), lazy_pull=True)
        bunker = self.c.bunker("spare", seconds=150)
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        self.c.register("wanted", self.c.registry.push(images.padded(30, "wanted"), "wanted"))
        group = self.c.group("wants", images=["wanted"])
        self.c.wait_cache("wanted")
        blobs = os.path.join(agent.state, "blobs/sha256")
        self.assertGreaterEqual(len(os.listdir(blobs)), 4)
        processes.wait_until(lambda: not self.c.workers()["w1"]["allocated"]["disk_mb"], "the bunker is gone", 30)

        def fill(name, mib):
            with open(os.path.join(agent.state, name), "wb") as out:
                for _ in range(mib):
                    out.write(os.urandom(1 << 20))

        # 400 MiB in all, high mark 360: 250 beside two images and their blobs cost the blobs alone.
        fill("other", 250)
        processes.wait_until(lambda: not os.listdir(blobs), "the blobs are dropped", 30)
        self.assertEqual(len(self.files()), 2)
        self.assertEqual(self.row("wanted")["status"], "ready")
        # 320 beside two images are above the mark again: what no group wants goes.
        fill("more", 80)
        processes.wait_until(lambda: len(self.files()) == 1, "the spare image is dropped", 30)
        processes.wait_until(lambda: self.c.get("/images/spare")["cache_summary"]["evicted"] == 1,
                             "the controller knows", 30)
        self.assertEqual(self.row("wanted")["status"], "ready")
        # Full as it is, nothing that does not fit is sent.
        self.c.register("late", self.c.registry.push(images.padded(60, "late"), "late"))
        self.c.attach(group, "late")
        late = processes.wait_until(lambda: (lambda r: r if r and r["error"] else None)(self.row("late")),
                                    "the row says what is in the way", 60)
        self.assertEqual(late["error"]["code"], "DISK_FULL")
        for name in ("other", "more"):
            os.unlink(os.path.join(agent.state, name))
        processes.wait_until(lambda: self.row("late")["status"] == "ready", "room was made, and it is there", 60)


if __name__ == "__main__":
    unittest.main(verbosity=2)
