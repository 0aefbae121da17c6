#!/usr/bin/python3
"""Layers made to escape: what they name lands inside the image, as umoci puts it, or is refused."""

import os
import subprocess
import unittest

from harness import case, images, paths, processes

import oci

COMPARE = os.path.join(paths.ROOT, "tests/support/compare_rootfs.py")


def layer(build):
    builder = oci.TarBuilder()
    build(builder)
    return oci.layer_from_tar(builder.bytes())


ESCAPES = {
    "dotdot": [lambda x: x.file("../escaped-dotdot", "1").file("../../../tmp/escaped-deep", "2")],
    "absolute": [lambda x: x.file("/escaped-absolute", "1").file("//etc/escaped-twice", "2")],
    "symlink-parent": [lambda x: x.symlink("out", "/tmp").file("out/escaped-link", "1")],
    "symlink-dots": [lambda x: x.symlink("up", "../../../../tmp").file("up/escaped-up", "1")],
    "symlink-later": [lambda x: x.symlink("later", "/var"), lambda x: x.file("later/escaped-later", "1")],
    "hardlink-out": [lambda x: x.file("real", "r").hardlink("linked", "/real")],
    "whiteout-through-link": [lambda x: x.directory("keep").file("keep/a", "1").symlink("alias", "keep"),
                              lambda x: x.whiteout("alias/a")],
}

REFUSED = {
    "bare-dotdot": [lambda x: x.file("..", "1")],
    "whiteout-of-nothing": [lambda x: x.file(".wh.", "")],
    "whiteout-dot": [lambda x: x.file(".wh..", "")],
    "whiteout-dotdot": [lambda x: x.file(".wh...", "")],
}

OUTSIDE = ["/escaped-dotdot", "/tmp/escaped-deep", "/escaped-absolute", "/etc/escaped-twice", "/tmp/escaped-link",
           "/tmp/escaped-up", "/var/escaped-later"]


class HostileLayersTest(case.ClusterTest):
    def tearDown(self):
        left = [x for x in OUTSIDE if os.path.lexists(x)]
        self.assertEqual(left, [], "a layer wrote outside its image")
        self.assertTrue(self.c.agents[0].daemon.alive())

    def build(self, name, layers):
        return oci.Image([images.base_layer(lambda x: x.file("etc/name", name))] + [layer(x) for x in layers],
                         images.CONFIG)

    def test_escapes_land_inside_as_umoci_puts_them(self):
        for name, layers in ESCAPES.items():
            with self.subTest(name):
                image = self.build(name, layers)
                layout, bundle = (os.path.join(self.c.folder, name + x) for x in (".oci", ".bundle"))
                oci.write_layout(layout, image, "v1")
                subprocess.run(["umoci", "unpack", "--image", layout + ":v1", bundle], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                before = set(self.c.agents[0].image_files())
                row = self.c.register(name, self.c.registry.push(image, name))
                self.c.group(name, images=[row["id"]])
                self.c.wait_cache(row["id"])
                files = self.c.agents[0].image_files()
                added = set(files) - before
                self.assertEqual(len(added), 1)
                done = processes.run(["/usr/bin/python3", COMPARE, files[added.pop()], bundle + "/rootfs",
                                      "--implied", "/"], check=False)
                self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-500:])

    def test_what_means_nothing_is_refused(self):
        for name, layers in REFUSED.items():
            with self.subTest(name):
                row = self.c.register(name, self.c.registry.push(self.build(name, layers), name))
                self.c.group(name, images=[row["id"]])
                view = self.c.wait_cache(row["id"], status="failed")
                self.assertEqual(view[0]["error"]["code"], "LAYER_UNSUPPORTED", view[0]["error"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
