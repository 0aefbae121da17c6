#!/usr/bin/python3
"""An image that the worker has no disk for: DISK_FULL, nothing half made left, the agent lives."""

import os
import unittest

from harness import case, images, processes

import oci


def files_below(root):
    return {os.path.relpath(os.path.join(folder, name), root): os.path.getsize(os.path.join(folder, name))
            for folder, _, names in os.walk(root) for name in names}


class DiskFullTest(case.ClusterTest):
    AGENTS = 0

    def test_disk_full(self):
        mount = os.path.join(self.c.folder, "m")
        os.mkdir(mount, 0o711)
        processes.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "bunker-test", mount])
        try:
            self.fill(mount)
        finally:
            for agent in self.c.agents:
                agent.stop()
            processes.run(["umount", "-l", mount])

    def fill(self, mount):
        agent = self.c.add_agent("small", {"state": {"dir": os.path.join(mount, "s")}})
        agent.state = os.path.join(mount, "s")
        self.c.wait_online(1)
        # The layer (36 MiB) fits beside what is there; layer and baked file together do not.
        big = oci.TarBuilder().file("big", os.urandom(36 << 20)).bytes()
        ref = self.c.registry.push(images.tiny(extra_layers=[big], marker="big"), "big")
        row = self.c.register("big", ref)
        group = self.c.group("small", images=[row["id"]])

        def full():
            return [x for x in self.c.cache(row["id"]) if x["error"] and x["error"]["code"] == "DISK_FULL"]
        # Before the bake where the layers' size tells, else in the middle of it.
        processes.wait_until(full, "the image does not fit", 180, 0.2)
        self.assertTrue(agent.daemon.alive())
        left = files_below(agent.state)
        self.assertFalse([x for x in left if x.endswith("rootfs.ext4") or ".tmp" in x], left)
        self.c.call("DELETE", f"/availability-groups/{group}/images/{row['id']}", expect=200)
        small = self.c.register("little", self.c.registry.push(images.tiny(marker="little"), "little"))
        self.c.attach(group, small["id"])
        self.c.wait_cache(small["id"])
        # Room made by the operator, or by the sweep, lets the failed one through again.
        processes.run(["mount", "-o", "remount,size=512m", mount])
        self.c.attach(group, row["id"])
        self.c.post(f"/images/{row['id']}/warm", expect=200)

        def ready():
            return [x for x in self.c.cache(row["id"]) if x["status"] == "ready"]
        processes.wait_until(ready, "the image bakes once there is room", 180, 0.2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
