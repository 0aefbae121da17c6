#!/usr/bin/python3
"""kill -9 of either daemon: bunkers live on, nothing is lost, nothing is done twice."""

import os
import unittest

from harness import case, images, processes

import oci


class AgentKilledTest(case.ClusterTest):
    def test_the_bunker_is_adopted(self):
        self.c.ready_image()
        bunker = self.c.bunker("tiny")
        self.c.sh(bunker["id"], "echo kept > /root/note; sleep 600 >/dev/null 2>&1 &")
        agent = self.c.agents[0]
        before = agent.vm_pids()
        self.assertEqual(len(before), 1)
        started = processes.start_time(before[0])
        agent.daemon.kill9()
        self.assertEqual(agent.vm_pids(), before, "the VM died with its agent")
        agent.start()
        self.c.wait_online(1)
        self.assertEqual(self.c.sh(bunker["id"], "cat /root/note; ps | grep -c '[s]leep 600'", timeout_s=60),
                         "kept\n1\n")
        self.assertEqual(agent.vm_pids(), before)
        self.assertEqual(processes.start_time(before[0]), started)
        row = self.c.get(f"/bunkers/{bunker['id']}")
        self.assertEqual((row["status"], row["incarnation"]), ("running", bunker["incarnation"]))
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        processes.wait_until(lambda: not agent.vm_pids(), "the VM is gone after the delete")
        left = os.listdir(os.path.join(agent.state, "vm"))
        self.assertEqual([x for x in left if x.startswith("bnk_")], [])


class ControllerKilledTest(case.ClusterTest):
    AGENTS = 2

    def test_in_the_middle_of_a_fan_out(self):
        first = self.c.ready_image("first", images.tiny(marker="first"))
        # Large enough, and hard to compress, that the kill lands while it is under way.
        big = oci.TarBuilder().file("big", os.urandom(48 << 20)).bytes()
        image = images.tiny(extra_layers=[big], marker="second")
        ref = self.c.registry.push(image, "second")
        row = self.c.register("second", ref)
        self.c.group("second", images=[row["id"]])
        processes.wait_until(lambda: any(x["status"] == "building" for x in self.c.cache(row["id"])),
                             "a worker is at it", 60, 0.02)
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        view = self.c.wait_cache(row["id"], rows=2)
        self.assertEqual(len({x["rootfs_digest"] for x in view}), 1)
        self.assertEqual({x["status"] for x in self.c.cache(first["id"])}, {"ready"})
        for pulled, layers in (("first", images.tiny(marker="first").layers), ("second", image.layers)):
            for layer in layers:
                self.assertEqual(self.c.registry.blob_requests(pulled, layer.digest), 2,
                                 "a layer was pulled again after the crash")
        self.assertEqual(self.c.sh(self.c.bunker("second")["id"], "wc -c < /big"), f"{48 << 20}\n")

    def test_a_bunker_runs_on(self):
        if not any(x["name"] == "steady" for x in self.c.get("/images")):
            self.c.ready_image("steady", images.tiny(marker="steady"))
        bunker = self.c.bunker("steady")
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        self.c.wait_online(2)
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker", timeout_s=60), "steady")
        self.assertEqual(self.c.get(f"/bunkers/{bunker['id']}")["status"], "running")


if __name__ == "__main__":
    unittest.main(verbosity=2)
