#!/usr/bin/python3
"""Who gets in when more is asked for than there is, with a real controller and scripted agents: the
last room, quotas of users and of nested groups, copies, and what comes back when creates fail.

BUNKER_ADMISSION_ROUNDS sets how often the first two are tried (default 1).
"""

import collections
import concurrent.futures
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from harness import cluster, fleet, processes  # pylint: disable=wrong-import-position

ROUNDS = int(os.environ.get("BUNKER_ADMISSION_ROUNDS", "1"))
WORKERS = 5
WORKER_CPU = 1200
PLACES = 50  # of SMALL, by the workers' cores
SMALL = {"image": "tiny", "cpu_millicores": WORKER_CPU * WORKERS // PLACES, "memory_mb": 64, "disk_mb": 64}
SMALLER = {**SMALL, "cpu_millicores": 100}  # 60 of them have room
LIMITS = {"limits": {"requests_per_s": 100000.0, "request_burst": 100000.0}}


class AdmissionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = cluster.Cluster(agents=0, controller=LIMITS, registry=False)
        cls.c.__enter__()
        cls.addClassCleanup(lambda: cls.c.__exit__(None))
        cls.fleet = fleet.ScriptedAgents(cls.c, WORKERS, image_ms=20, boot_ms=20, stop_ms=5,
                                         cpu_millicores=WORKER_CPU).start()
        cls.addClassCleanup(cls.fleet.stop)
        cls.fleet.dial()
        cls.c.register("tiny", "registry.example/scripted/tiny:1")
        cls.c.group(workers=cls.c.get("/workers"), images=["tiny"])
        cls.fleet.wait("images_ready", WORKERS)
        cls.user = cls.account("GET", "/v1/whoami")["user"]["id"]

    def tearDown(self):
        self.fleet.do("set", "boot_failures", 0)
        self.end_all()
        for row in self.c.get("/quota-assignments"):
            self.c.call("DELETE", f"/quota-assignments/{row['id']}", expect=200)

    @classmethod
    def account(cls, method, path, body=None):
        answer = cls.c.call(method, "/../.." + path[len("/v1"):], body)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["data"]

    def live(self):
        return [x for status in ("provisioning", "running", "stopping")
                for x in self.c.get(f"/bunkers?limit=200&status={status}")]

    def end_all(self):
        for row in self.live():
            self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)
        processes.wait_until(lambda: not self.live(), "all bunkers have ended", 60)
        processes.wait_until(lambda: not any(x["allocated"]["cpu_millicores"] for x in self.c.get("/workers")),
                             "their room is free")

    def at_once(self, count, body, keys=(None,)):
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            return list(pool.map(lambda i: self.c.call("POST", "/bunkers", body, key=keys[i % len(keys)]), range(count)))

    def check_room(self):
        for worker in self.c.get("/workers"):
            self.assertLessEqual(worker["allocated"]["cpu_millicores"], worker["capacity"]["cpu_millicores"])

    def assign(self, name, kind, target, mode, **caps):
        self.c.post("/quota-profiles", {"name": name, **caps})
        self.c.post("/quota-assignments", {"profile_id": name, "target_kind": kind, "target_id": target, "mode": mode})

    def test_fifty_of_two_hundred_get_the_room(self):
        for _ in range(ROUNDS):
            answers = self.at_once(200, SMALL)
            self.assertEqual(collections.Counter(x.status_code for x in answers), {201: PLACES, 503: 150})
            for refused in (x.json()["error"] for x in answers if x.status_code == 503):
                self.assertEqual((refused["code"], refused["counts"]), ("WORKER_UNAVAILABLE", {"cpu": WORKERS}))
                self.assertEqual(len(refused["details"]), WORKERS)
                for detail in refused["details"]:
                    self.assertEqual(detail["shortfall"], "not enough cpu: 0 millicores left, 120 needed")
                    self.assertTrue(detail["remedy"])
            self.assertEqual(len(self.live()), PLACES)
            self.check_room()
            self.end_all()

    def test_fifty_of_two_hundred_get_in_by_quota(self):
        self.assign("fifty", "user", self.user, "individual", max_concurrent_bunkers=50)
        for _ in range(ROUNDS):
            answers = self.at_once(200, SMALLER)
            self.assertEqual(collections.Counter(x.status_code for x in answers), {201: 50, 429: 150})
            for refused in (x.json()["error"] for x in answers if x.status_code == 429):
                self.assertEqual(refused["code"], "BUNKER_QUOTA_EXCEEDED")
                self.assertIn("quota profile fifty: max_concurrent_bunkers is 50, 50 in use", refused["message"])
            usage, = self.c.get("/quota-profiles/usage")
            self.assertEqual((usage["usage"]["bunkers"], usage["headroom"]["bunkers"]), (50, 0))
            self.end_all()

    def test_copies_come_all_or_not_at_all(self):
        answers = self.at_once(40, {**SMALL, "replicas": 6})
        created = [x.json()["data"] for x in answers if x.status_code == 201]
        self.assertEqual([len(x) for x in created], [7] * 7)
        self.assertEqual({x.json()["error"]["code"] for x in answers if x.status_code != 201}, {"WORKER_UNAVAILABLE"})
        self.assertEqual(len(self.live()), 49)
        self.check_room()

    def test_what_fails_gives_its_place_back(self):
        self.assign("few", "user", self.user, "individual", max_concurrent_bunkers=PLACES)
        self.fleet.do("set", "boot_failures", 1)
        answers = self.at_once(PLACES, SMALL)
        self.assertEqual({x.status_code for x in answers}, {201})
        processes.wait_until(lambda: not self.live(), "all of them have failed")
        self.fleet.do("set", "boot_failures", 0)
        answers = self.at_once(PLACES, SMALL)
        self.assertEqual({x.status_code for x in answers}, {201})

    def test_a_group_shares_what_its_nested_groups_use(self):
        outer = self.account("POST", "/v1/groups", {"name": "outer"})["id"]
        inner = self.account("POST", "/v1/groups", {"name": "inner", "parent_id": outer})["id"]
        keys, users = [], []
        for name, group in (("ann", outer), ("bob", inner)):
            users.append(self.account("POST", "/v1/users", {"name": name, "role": "tenant_user"})["id"])
            keys.append(self.account("POST", "/v1/api-keys", {"name": name, "user_id": users[-1]})["key"])
            self.account("PUT", f"/v1/groups/{group}/members/{users[-1]}")
        self.assign("shared", "group", outer, "shared", max_concurrent_bunkers=20)
        self.assign("each", "group", inner, "per_user", max_concurrent_bunkers=7)
        answers = self.at_once(80, SMALL, keys)
        by_key = [collections.Counter(x.status_code for x in answers[i::2]) for i in (0, 1)]
        self.assertLessEqual(by_key[1][201], 7)
        self.assertEqual(by_key[0][201] + by_key[1][201], 20)
        rows = {x["profile_name"]: x for x in self.c.get("/quota-profiles/usage", key=keys[1])}
        self.assertEqual(rows["shared"]["usage"]["bunkers"], 20)
        self.assertEqual(rows["each"]["usage"]["bunkers"], by_key[1][201])
        self.assertTrue(rows["shared"]["bucket"]["nested"])
        # Out of the group, into the default; what runs goes on and no longer counts there.
        self.account("DELETE", f"/v1/groups/{inner}/members/{users[1]}")
        rows = {x["profile_name"]: x for x in self.c.get("/quota-profiles/usage", key=keys[0])}
        self.assertEqual(rows["shared"]["usage"]["bunkers"], by_key[0][201])
        self.assertEqual(self.c.get("/quota-profiles/usage", key=keys[1]), [])
        # The sums come from the rows: a controller that died has the same.
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        rows = {x["profile_name"]: x for x in self.c.get("/quota-profiles/usage", key=keys[0])}
        self.assertEqual(rows["shared"]["usage"]["bunkers"], by_key[0][201])
        self.fleet.wait("connected", WORKERS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
