#!/usr/bin/python3
"""A fleet of scripted agents through one day: images, bunkers, cuts, a restart of the controller.

BUNKER_FLEET_AGENTS sets their number (default 40).
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from harness import cluster, fleet, processes  # pylint: disable=wrong-import-position

AGENTS = int(os.environ.get("BUNKER_FLEET_AGENTS", "40"))
LIMITS = {"limits": {"requests_per_s": 100000, "request_burst": 100000}}


class ScriptedAgentsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = cluster.Cluster(agents=0, controller=LIMITS, registry=False)
        cls.c.__enter__()
        cls.addClassCleanup(lambda: cls.c.__exit__(None))
        cls.fleet = fleet.ScriptedAgents(cls.c, AGENTS, image_ms=50, boot_ms=50, stop_ms=20).start()
        cls.addClassCleanup(cls.fleet.stop)
        cls.fleet.dial()

    def online(self):
        return self.fleet.stats()["connected"]

    def all_workers(self):
        rows, cursor = [], ""
        while True:
            page = self.c.call("GET", f"/workers?limit=200{cursor}", expect=200).json()
            rows += page["data"]
            if not page["has_more"]:
                return rows
            cursor = "&cursor=" + page["next_cursor"]

    def test_a_day(self):
        workers = self.all_workers()
        self.assertEqual(len(workers), AGENTS)
        self.assertEqual({x["status"] for x in workers}, {"online"})
        image = self.c.register("tiny", "registry.example/scripted/tiny:1", default_cpu_millicores=1000)
        self.c.group(workers=workers, images=[image["id"]])
        self.fleet.wait("images_ready", AGENTS)
        for number in range(2 * AGENTS):
            self.c.post("/bunkers", {"image": "tiny", "name": f"b{number}"})
        self.fleet.wait("bunkers_running", 2 * AGENTS)
        row = self.c.get("/bunkers/b0?wait_status=running&wait_s=20")
        self.assertEqual((row["status"], row["isolation"]), ("running", "kvm"))

        # Cut and back: what ran runs on, and nothing starts twice.
        booted = self.fleet.stats()["booted"]
        self.fleet.do("drop", AGENTS // 2)
        processes.wait_until(lambda: self.online() == AGENTS - AGENTS // 2, "half of them are gone")
        self.fleet.dial()
        self.c.call("DELETE", "/bunkers/b0", expect=200)
        processes.wait_until(lambda: self.c.get(f"/bunkers/{row['id']}")["terminated_at"], "b0 has ended")
        stats = self.fleet.stats()
        self.assertEqual((stats["booted"], stats["bunkers_running"]), (booted, 2 * AGENTS - 1))

        # A controller that dies takes nothing along.
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        self.fleet.wait("connected", AGENTS)
        self.assertEqual(self.c.get("/bunkers/b1")["status"], "running")
        self.assertEqual(self.fleet.stats()["booted"], booted)


if __name__ == "__main__":
    unittest.main(verbosity=2)
