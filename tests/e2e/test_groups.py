#!/usr/bin/python3
"""Availability groups on real agents: joining, leaving, being killed, a disk that is too small, a
thousand warms at once, plans and what comes of them, and a registry that fails for a while."""

import concurrent.futures
import time
import unittest

from harness import case, images, processes

WORKERS = 4  # w1, w2, w3 and `small`


class GroupsTest(case.ClusterTest):
    AGENTS = 3
    CONTROLLER = {"workers": {"offline_after_s": 8, "lost_after_s": 600},
                  "images": {"sweep_interval_s": 2, "retry_base_s": 2, "retry_max_s": 8},
                  "limits": {"requests_per_s": 100000.0, "request_burst": 100000.0}}

    @classmethod
    def prepare(cls):
        cls.c.add_agent("small", {"worker": {"disk_mb": 48, "cpu_millicores": 4000, "memory_mb": 4096}})
        cls.c.wait_online(WORKERS)
        cls.by_name = cls.c.workers()
        cls.group = cls.c.post("/availability-groups", {"name": "all", "auto_images": True})["id"]
        for name in ("w1", "w2", "w3", "small"):
            cls.attach_worker(name)

    @classmethod
    def attach_worker(cls, name):
        cls.c.call("POST", f"/availability-groups/{cls.group}/workers", {"ref": name}, expect=200)

    def detach_worker(self, name):
        self.c.call("DELETE", f"/availability-groups/{self.group}/workers/{name}", expect=200)

    def agent(self, name):
        return next(x for x in self.c.agents if x.name == name)

    def rows(self, image):
        return {x["worker_name"]: x for x in self.c.cache(image)}

    def warm(self, image):
        answer = self.c.post(f"/images/{image}/warm", expect=200)
        self.assertEqual(sum(answer.values()), WORKERS, answer)
        return answer

    def wait_ready(self, image, names):
        return processes.wait_until(
            lambda: {n for n, r in self.rows(image).items() if r["status"] == "ready"} == set(names),
            f"{image} ready on {names}: {self.rows(image)}", 90)

    def test_1_a_thousand_warms_bake_once(self):
        image = images.padded(8, "many")
        ref = self.c.registry.push(image, "many")
        row = self.c.register("many", ref)
        sums, answers = set(), 0
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            for answer in pool.map(lambda _: self.c.post(f"/images/{row['id']}/warm", expect=200), range(1000)):
                sums.add(sum(answer.values()))
                answers += 1
        self.assertEqual((answers, sums), (1000, {WORKERS}))
        self.wait_ready("many", ["w1", "w2", "w3", "small"])
        for layer in image.layers:
            self.assertEqual(self.c.registry.blob_requests("many", layer.digest), WORKERS)
        for name, cache in self.rows("many").items():
            self.assertEqual(cache["attempt"], 1, name)
        for agent in self.c.agents:
            self.assertEqual(agent.daemon.log().count(' image.baked '), 1, agent.name)

    def test_2_a_disk_that_is_too_small_is_left_out_by_name(self):
        row = self.c.register("large", self.c.registry.push(images.padded(40, "large"), "large"))
        self.wait_ready("large", ["w1", "w2", "w3"])
        small = processes.wait_until(
            lambda: (lambda r: r if r["status"] == "pending" and r["error"] else None)(self.rows("large")["small"]),
            "small's row says why it has none", 30)
        self.assertEqual(small["error"]["code"], "DISK_FULL")
        self.assertIn("can never fit", small["error"]["message"])
        self.assertEqual(self.warm("large"), {"queued": 0, "ready": 3, "failed": 0, "skipped": 1})
        # Room for one of two: the second names what would have to go.
        second = self.c.register("second", self.c.registry.push(images.padded(16, "second"), "second"))
        self.wait_ready("second", ["w1", "w2", "w3"])
        held = processes.wait_until(
            lambda: (lambda r: r if r["error"] else None)(self.rows("second")["small"]), "second is held back", 30)
        self.assertEqual((held["status"], held["error"]["code"]), ("pending", "DISK_FULL"))
        self.assertIn("many", held["error"]["message"])
        self.assertEqual(self.warm("second")["skipped"], 1)
        # Once that is deactivated and swept, it gets its room without being asked.
        self.c.call("DELETE", "/images/many", expect=200)
        self.wait_ready("second", ["w1", "w2", "w3", "small"])
        self.c.call("DELETE", f"/images/{row['id']}", expect=200)
        self.c.call("DELETE", f"/images/{second['id']}", expect=200)

    def test_3_joining_leaving_and_dying(self):
        self.c.register("moves", self.c.registry.push(images.tiny(marker="moves"), "moves"))
        self.wait_ready("moves", ["w1", "w2", "w3", "small"])
        self.detach_worker("w3")
        processes.wait_until(lambda: not self.agent("w3").image_files(), "w3's file is swept", 30)
        self.assertNotIn("w3", self.rows("moves"))
        self.agent("w2").daemon.kill9()
        ref = self.c.registry.push(images.tiny(marker="meanwhile"), "meanwhile")
        self.c.register("meanwhile", ref)
        self.wait_ready("meanwhile", ["w1", "small"])
        processes.wait_until(lambda: self.c.workers()["w2"]["status"] == "offline", "w2 is offline", 30)
        answer = self.c.post("/images/meanwhile/warm", expect=200)
        self.assertEqual(answer, {"queued": 0, "ready": 2, "failed": 0, "skipped": 1})
        self.agent("w2").start()
        self.attach_worker("w3")
        self.wait_ready("meanwhile", ["w1", "w2", "w3", "small"])  # by themselves
        self.assertEqual(self.warm("meanwhile"), {"queued": 0, "ready": 4, "failed": 0, "skipped": 0})

    def test_4_a_plan_is_what_happens(self):
        self.c.register("planned", self.c.registry.push(images.tiny(marker="planned"), "planned"))
        self.wait_ready("planned", ["w1", "w2", "w3", "small"])
        other = self.c.group("other", workers=[self.by_name["w1"]], images=["planned"])
        before = {name: self.rows(name) for name in ("planned", "moves", "meanwhile")}
        plan = self.c.post(f"/availability-groups/{self.group}/plan",
                           {"remove_workers": ["w1", "w2"]}, expect=200)
        after = {name: self.rows(name) for name in ("planned", "moves", "meanwhile")}
        self.assertEqual(before, after, "a plan changes nothing")
        actions = {(x["worker_name"], x["image_name"]): x["action"] for x in plan}
        self.assertEqual(actions[("w1", "planned")], "keep")  # the other group has it
        self.assertEqual(actions[("w2", "planned")], "evict")
        self.assertEqual(actions[("w1", "moves")], "evict")
        self.assertEqual(actions[("w3", "moves")], "keep")
        for row in plan:
            self.assertEqual(set(row), {"worker", "worker_name", "image", "image_name", "action", "bytes", "reason"})
        self.detach_worker("w1")
        self.detach_worker("w2")
        self.settle_and_compare(plan)
        back = self.c.post(f"/availability-groups/{self.group}/plan", {"add_workers": ["w1", "w2"]}, expect=200)
        self.assertEqual({x["action"] for x in back if x["worker_name"] == "w2"}, {"pull"})
        self.attach_worker("w1")
        self.attach_worker("w2")
        self.settle_and_compare(back)
        self.c.call("DELETE", f"/availability-groups/{other}", expect=200)
        for bad in ({"add_images": ["no-such"]}, {"add_workers": ["no-such"]}, {"add_images": [""]}, {"surprise": 1}):
            status, code, _ = self.c.error("POST", f"/availability-groups/{self.group}/plan", bad)
            self.assertIn((status, code), ((404, "NOT_FOUND"), (422, "VALIDATION_ERROR")), bad)

    def settle_and_compare(self, plan):
        def agrees():
            for row in plan:
                cache = self.rows(row["image"]).get(row["worker_name"])
                there = cache is not None and cache["status"] == "ready"
                if there != (row["action"] in ("pull", "keep")):
                    return False
            return True
        processes.wait_until(agrees, "what the plan said happens", 60)

    def test_5_auto_images_is_a_switch(self):
        self.assertTrue(self.agent("w1").image_files())
        row = self.c.call("PATCH", f"/availability-groups/{self.group}",
                          {"auto_images": False, "description": "by hand"}, expect=200).json()["data"]
        self.assertEqual((row["auto_images"], row["description"], row["name"]), (False, "by hand", "all"))
        processes.wait_until(lambda: not self.agent("w1").image_files(), "everything is swept", 30)
        self.c.call("PATCH", f"/availability-groups/{self.group}", {"auto_images": True}, expect=200)
        self.wait_ready("planned", ["w1", "w2", "w3", "small"])
        self.c.post("/availability-groups", {"name": "taken"})
        status, code, _ = self.c.error("PATCH", f"/availability-groups/{self.group}", {"name": "taken"})
        self.assertEqual((status, code), (409, "SLUG_CONFLICT"))
        status, code, _ = self.c.error("PATCH", f"/availability-groups/{self.group}", {"scope": "platform"})
        self.assertEqual((status, code), (422, "VALIDATION_ERROR"))

    def test_6_a_registry_that_fails_for_a_while(self):
        ref = self.c.registry.push(images.tiny(marker="later"), "later")
        self.c.registry.stop()
        self.c.register("later", ref)
        gaps, last = [], None

        def failed_twice():
            nonlocal last
            attempts = max(x["attempt"] for x in self.rows("later").values())
            if attempts != last:
                gaps.append(time.monotonic())
                last = attempts
            return len(gaps) >= 4
        processes.wait_until(failed_twice, "three further attempts", 90, 0.2)
        waits = [b - a for a, b in zip(gaps, gaps[1:])]
        self.assertGreater(waits[1], waits[0] * 1.2, f"back-off grows: {waits}")
        row = next(x for x in self.rows("later").values() if x["error"])
        self.assertEqual(row["error"]["code"], "REGISTRY_UNREACHABLE")
        processes.wait_until(lambda: any(x["status"] == "failed" for x in self.rows("later").values()),
                             "a row has failed", 30)
        before = sum(x["attempt"] for x in self.rows("later").values())
        forced = self.warm("later")
        self.assertEqual(forced["failed"], 0, forced)
        self.assertGreater(sum(x["attempt"] for x in self.rows("later").values()), before)
        self.c.registry.start()
        self.wait_ready("later", ["w1", "w2", "w3", "small"])
        self.assertEqual(self.warm("later"), {"queued": 0, "ready": 4, "failed": 0, "skipped": 0})


if __name__ == "__main__":
    unittest.main(verbosity=2)
