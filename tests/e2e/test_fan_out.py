#!/usr/bin/python3
"""Two agents on one machine, one group: each pulls and bakes for itself, and both agree."""

import unittest

from harness import case, images


class FanOutTest(case.ClusterTest):
    AGENTS = 2

    def test_1_both_bake_the_same_file(self):
        image = images.tiny(marker="fan-out")
        ref = self.c.registry.push(image, "fan-out")
        row = self.c.register("fan-out", ref)
        self.assertEqual(row["warm"], {"queued": 0, "ready": 0, "failed": 0, "skipped": 0})
        self.c.group("both", images=[row["id"]])
        view = self.c.wait_cache(row["id"], rows=2)
        digests = {x["rootfs_digest"] for x in view}
        self.assertEqual(len(digests), 1, view)
        self.assertRegex(digests.pop(), r"^fsverity-sha256:[0-9a-f]{64}$")
        for layer in image.layers:
            self.assertEqual(self.c.registry.blob_requests("fan-out", layer.digest), 2,
                             "each agent pulls each layer once")
        after = self.c.get(f"/images/{row['id']}")
        self.assertEqual(after["resolved_digest"], image.digest)
        self.assertEqual(after["cache_summary"]["ready"], 2)
        self.assertEqual(after["env"]["FROM_IMAGE"], "yes")
        self.assertTrue(after["url"].endswith("@" + image.digest), after["url"])

    def test_2_four_bunkers_spread(self):
        bunkers = [self.c.bunker("fan-out") for _ in range(4)]
        by_worker = {}
        for bunker in bunkers:
            self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "fan-out")
            by_worker.setdefault(bunker["worker_id"], []).append(bunker["id"])
        self.assertEqual(sorted(len(x) for x in by_worker.values()), [2, 2], by_worker)
        for bunker in bunkers:
            self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)

    def test_3_not_ready_is_refused_unless_lazy(self):
        cold = self.c.register("cold", self.c.registry.push(images.tiny(marker="cold"), "cold"))
        status, code, message = self.c.error("POST", "/bunkers", {"image": "cold"})
        self.assertEqual((status, code), (503, "NO_SUITABLE_WORKER"))
        self.assertIn("lazy_pull", message)
        self.assertEqual(self.c.cache(cold["id"]), [])
        self.c.register("lazy", self.c.registry.push(images.tiny(marker="lazy"), "lazy"), lazy_pull=True)
        bunker = self.c.bunker("lazy", seconds=150)
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "lazy")

    def test_4_a_worker_that_joins_the_group_is_warmed(self):
        row = self.c.register("late", self.c.registry.push(images.tiny(marker="late"), "late"))
        workers = list(self.c.workers().values())
        group = self.c.group("late", workers=workers[:1], images=[row["id"]])
        self.c.wait_cache(row["id"], rows=1)
        self.c.call("POST", f"/availability-groups/{group}/workers", {"ref": workers[1]["name"]}, expect=200)
        self.c.wait_cache(row["id"], rows=2)
        warm = self.c.post(f"/images/{row['id']}/warm", expect=200)
        self.assertEqual(warm, {"queued": 0, "ready": 2, "failed": 0, "skipped": 0})


if __name__ == "__main__":
    unittest.main(verbosity=2)
