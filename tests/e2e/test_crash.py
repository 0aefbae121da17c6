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
        answer = processes.wait_until(lambda: self.answer(bunker["id"]), "exec works again", 60)
        self.assertEqual(answer, "kept\n1\n")
        self.assertEqual(agent.vm_pids(), before)
        self.assertEqual(processes.start_time(before[0]), started)
        row = self.c.get(f"/bunkers/{bunker['id']}")
        self.assertEqual((row["status"], row["incarnation"]), ("running", bunker["incarnation"]))
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        processes.wait_until(lambda: not agent.vm_pids(), "the VM is gone after the delete")
        folder = os.path.join(agent.state, "vm")
        processes.wait_until(lambda: not [x for x in os.listdir(folder) if x.startswith("bnk_")],
                             "its folder is gone")


    def answer(self, bunker):
        return answer_of(self, bunker, "cat /root/note; ps | grep -c '[s]leep 600'")


def answer_of(test, bunker, command):
    """What the guest says, or None while the worker's link is not back yet."""
    call = test.c.call("POST", f"/bunkers/{bunker}/exec", {"command": command, "timeout_s": 60})
    if call.status_code == 503:
        test.assertEqual(call.json()["error"]["code"], "UNAVAILABLE")
        return None
    test.assertEqual(call.status_code, 200, call.text)
    return call.json()["data"]["stdout"]


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
        for agent in self.c.agents:
            for image in (first["id"], row["id"]):
                baked = [x for x in agent.daemon.log().splitlines() if "image.baked" in x and image in x]
                self.assertEqual(len(baked), 1, f"{agent.name} baked {image} so often")
        self.assertEqual(self.c.sh(self.c.bunker("second")["id"], "wc -c < /big"), f"{48 << 20}\n")

    def test_a_bunker_runs_on(self):
        if not any(x["name"] == "steady" for x in self.c.get("/images")):
            self.c.ready_image("steady", images.tiny(marker="steady"))
        bunker = self.c.bunker("steady")
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        again = processes.wait_until(lambda: answer_of(self, bunker["id"], "cat /etc/marker"), "exec works again", 60)
        self.assertEqual(again, "steady")
        self.assertEqual(self.c.get(f"/bunkers/{bunker['id']}")["status"], "running")


if __name__ == "__main__":
    unittest.main(verbosity=2)
