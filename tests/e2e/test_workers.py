#!/usr/bin/python3
"""Workers over REST, with real agents: joining by a token of the API, labels, who gets the last room,
drain with its deadline, silence, and removal."""

import collections
import concurrent.futures
import time
import unittest

from harness import case, images, processes

GUEST = {"cpu_millicores": 50, "memory_mb": 96, "disk_mb": 64}
VM_MB = GUEST["memory_mb"] + 96  # what placement adds for each VM


def ended(test, bunker):
    def final():
        row = test.c.get(f"/bunkers/{bunker}")
        return row if row["terminated_at"] else None
    return processes.wait_until(final, "the bunker ends", 60, 0.2)


class LastRoomTest(case.ClusterTest):
    """200 creates at once where six fit."""
    AGENT = {"worker": {"memory_mb": 6 * VM_MB + VM_MB // 2}}
    CONTROLLER = {"limits": {"requests_per_s": 10000.0, "request_burst": 10000.0}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()

    def test_six_run_and_the_rest_is_told_why(self):
        body = {"image": "tiny", **GUEST}
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: self.c.call("POST", "/bunkers", body), range(200)))
        self.assertEqual(collections.Counter(x.status_code for x in answers), {201: 6, 503: 194})
        worker = self.c.workers()["w1"]
        for refused in (x.json()["error"] for x in answers if x.status_code == 503):
            self.assertEqual(refused["code"], "WORKER_UNAVAILABLE")
            self.assertEqual(refused["counts"], {"memory": 1})
            self.assertEqual([(x["worker_id"], x["predicate"]) for x in refused["details"]],
                             [(worker["id"], "memory")])
            self.assertIn("192 needed", refused["details"][0]["shortfall"])
        for answer in answers:
            if answer.status_code == 201:
                row = answer.json()["data"]
                while row["status"] == "provisioning":
                    row = self.c.get(f"/bunkers/{row['id']}?wait_status=running&wait_s=30")
                self.assertEqual(row["status"], "running", row)
        self.assertEqual(len(self.c.agents[0].vm_pids()), 6)
        self.assertEqual(self.c.workers()["w1"]["allocated"]["memory_mb"], 6 * VM_MB)
        # One that ends makes room for one.
        ids = [x["id"] for x in self.c.get("/bunkers")]
        self.c.call("DELETE", f"/bunkers/{ids[0]}", expect=200)
        ended(self, ids[0])
        status, code, _ = self.c.error("POST", "/bunkers", {**body, "replicas": 1})
        self.assertEqual((status, code), (503, "WORKER_UNAVAILABLE"))
        self.assertEqual(len(self.c.post("/bunkers", {**body, "replicas": 0})), 1)


class FleetTest(case.ClusterTest):
    AGENTS = 2
    # An idle agent speaks about every 5 s: what is shorter makes it flap.
    CONTROLLER = {"workers": {"offline_after_s": 12, "lost_after_s": 24}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()

    def on(self, worker):
        """A running bunker on that worker."""
        processes.wait_until(lambda: self.c.workers()[worker]["status"] == "online", "it is online")
        self.c.call("PATCH", f"/workers/{worker}", {"labels": {"only": worker}}, expect=200)
        return self.c.bunker("tiny", worker_labels={"only": worker}, **GUEST)

    def test_1_a_token_of_the_api_joins_one_worker_once(self):
        token = self.c.post("/worker-tokens", {"name": "w3", "scope": "platform", "labels": {"metro": "fra"}})
        agent = self.c.new_agent("w3")
        agent.join(token["token"])
        self.assertNotEqual(self.c.new_agent("w3x").join(token["token"], check=False).returncode, 0)
        self.c.agents.pop()
        agent.start()
        self.c.wait_online(3)
        row = self.c.workers()["w3"]
        self.assertEqual((row["labels"]["metro"], row["scope"], row["shared"]), ("fra", "platform", False))
        spent = self.c.get(f"/worker-tokens/{token['id']}")
        self.assertEqual(spent["worker_id"], row["id"])
        self.assertIsNotNone(spent["used_at"])
        # Removed: its stream ends at once, and the agent does not come back.
        self.c.call("DELETE", f"/workers/{row['id']}", expect=200)
        self.assertNotIn("w3", self.c.workers())
        processes.wait_until(lambda: "no longer valid" in agent.daemon.log(), "its agent is told")
        self.c.agents.remove(agent)
        agent.stop()

    def test_2_a_drain_stops_at_its_deadline_and_survives_a_restart(self):
        bunker = self.on("w1")
        agent = self.c.agents[0]
        self.assertEqual(len(agent.vm_pids()), 1)
        row = self.c.post("/workers/w1/drain", {"deadline_s": 8, "then": "stop"}, expect=200)
        self.assertEqual(row["status"], "draining")
        create = {"image": "tiny", "worker_labels": {"only": "w1"}, **GUEST}
        self.assertEqual(self.c.error("POST", "/bunkers", create)[1], "WORKER_UNAVAILABLE")
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        self.assertEqual(self.c.workers()["w1"]["drain"]["then"], "stop")
        self.assertEqual(self.c.get(f"/bunkers/{bunker['id']}")["status"], "running")
        row = ended(self, bunker["id"])
        self.assertEqual((row["status"], row["status_reason"]), ("stopped", "WORKER_DRAINED"))
        processes.wait_until(lambda: not agent.vm_pids(), "its VM is gone")
        why = self.c.post("/placement/explain", create, expect=200)
        self.assertEqual((why["placeable"], why["counts"]["status"]), (False, 1))
        self.c.post("/workers/w1/resume", expect=200)
        processes.wait_until(lambda: self.c.workers()["w1"]["status"] == "online", "it is back")
        again = self.c.bunker("tiny", worker_labels={"only": "w1"}, **GUEST)
        self.assertEqual(again["worker_id"], row["worker_id"])
        self.c.call("DELETE", f"/bunkers/{again['id']}", expect=200)
        ended(self, again["id"])

    def test_3_a_silent_worker_is_offline_then_lost(self):
        bunker = self.on("w2")
        agent = self.c.agents[1]
        before = agent.vm_pids()
        agent.daemon.kill9()
        processes.wait_until(lambda: self.c.workers()["w2"]["status"] == "offline", "it is offline")
        row = self.c.get(f"/bunkers/{bunker['id']}")
        self.assertEqual((row["status"], row["status_reason"]), ("running", "WORKER_OFFLINE"))
        create = {"image": "tiny", "worker_labels": {"only": "w2"}, **GUEST}
        status, code, _ = self.c.error("POST", "/bunkers", create)
        self.assertEqual((status, code), (503, "WORKER_UNAVAILABLE"))
        # Back before it counts as lost: nothing is.
        agent.start()
        processes.wait_until(lambda: self.c.get(f"/bunkers/{bunker['id']}")["status_reason"] is None, "it is back")
        self.assertEqual(self.c.get(f"/bunkers/{bunker['id']}")["status"], "running")
        self.assertEqual(agent.vm_pids(), before)
        self.assertEqual(self.c.sh(bunker["id"], "echo alive"), "alive\n")
        # Later: the bunker has failed, and the worker, once it is back, ends it.
        agent.daemon.kill9()
        row = ended(self, bunker["id"])
        self.assertEqual((row["status"], row["status_reason"]), ("failed", "WORKER_LOST"))
        self.assertEqual(agent.vm_pids(), before, "nobody has told its agent yet")
        agent.start()
        processes.wait_until(lambda: not agent.vm_pids(), "its VM is ended")
        processes.wait_until(lambda: self.c.workers()["w2"]["allocated"]["memory_mb"] == 0, "its room is free")

    def test_4_removal_with_bunkers_needs_force(self):
        bunker = self.on("w2")
        self.assertEqual(self.c.error("DELETE", "/workers/w2")[:2], (409, "RESOURCE_IN_USE"))
        self.c.call("DELETE", "/workers/w2?force=true", expect=200)
        row = self.c.get(f"/bunkers/{bunker['id']}")
        self.assertEqual((row["status"], row["status_reason"]), ("failed", "WORKER_REMOVED"))
        agent = self.c.agents[1]
        processes.wait_until(lambda: "no longer valid" in agent.daemon.log(), "its agent is told")
        time.sleep(2)
        self.assertEqual(list(self.c.workers()), ["w1"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
