#!/usr/bin/python3
"""Ends: maximum lifetime, idle time, delete, and the sweep that evicts what is retired."""

import os
import time
import unittest

from harness import case, images, processes


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
        bunker = self.c.bunker("tiny", max_lifetime_s=8)
        row = self.wait_ended(bunker["id"], 30)
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


if __name__ == "__main__":
    unittest.main(verbosity=2)
