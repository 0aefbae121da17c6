#!/usr/bin/python3
"""The baked file against an independent unpack of the same image, and against itself."""

import hashlib
import os
import time
import unittest

from harness import case, images, paths, processes

import oci

COMPARE = os.path.join(paths.ROOT, "tests/support/compare_rootfs.py")


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as source:
        for piece in iter(lambda: source.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


class BakedFileTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.ref = images.push_debian(cls.c.registry)
        row = cls.c.register("debian", cls.ref, size_mib=1024)
        cls.c.group("debian", images=[row["id"]])
        cls.row = cls.c.wait_cache(row["id"], seconds=300)[0]
        cls.file = list(cls.c.agents[0].image_files().values())[0]

    def test_same_as_umoci_path_by_path(self):
        bundle = os.path.join(self.c.folder, "bundle")
        processes.run(["umoci", "unpack", "--image", images.debian_layout() + ":v1", bundle], seconds=300)
        done = processes.run(["/usr/bin/python3", COMPARE, self.file, os.path.join(bundle, "rootfs")],
                             seconds=600, check=False)
        print(done.stdout[-2000:])
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-2000:])

    def test_e2fsck_is_clean(self):
        done = processes.run(["e2fsck", "-fn", self.file], check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_digest_is_what_fsverity_prints(self):
        printed = processes.run(["fsverity", "digest", "--compact", self.file]).stdout.strip()
        self.assertEqual(self.row["rootfs_digest"], "fsverity-sha256:" + printed)
        image = self.c.get("/images/debian")
        self.assertEqual(image["rootfs_digest"], self.row["rootfs_digest"])
        self.assertEqual(image["size_in_bytes"], os.stat(self.file).st_blocks * 512)

    def test_the_same_bytes_elsewhere_and_later(self):
        time.sleep(2)  # two seconds apart on purpose: no clock may reach the bytes
        agent = self.c.new_agent("elsewhere")
        agent.join(self.c.controller.join_token("elsewhere"))
        agent.daemon.env = {"TZ": "Pacific/Chatham", "LC_ALL": "C"}
        before = os.umask(0o077)
        try:
            agent.start()
        finally:
            os.umask(before)
        self.c.wait_online(2)
        group = self.c.get("/availability-groups")[0]["id"]
        self.c.call("POST", f"/availability-groups/{group}/workers", {"ref": "elsewhere"}, expect=200)
        self.c.wait_cache("debian", rows=2, seconds=300)
        other = agent.image_files()
        self.assertEqual(list(other), list(self.c.agents[0].image_files()), "another recipe")
        self.assertEqual(sha256_of(list(other.values())[0]), sha256_of(self.file))


class FormatsTest(case.ClusterTest):
    """Index, uncompressed and zstd layers, and what lower layers say of upper ones."""

    def test_index_and_plain_and_zstd(self):
        base = images.base_layer()
        plain = oci.layer_from_tar(oci.TarBuilder().file("plain", "p").bytes(), compression="none")
        tar = oci.TarBuilder().file("zstd", "z").symlink("usr/lib64", "lib").directory("usr/lib").bytes()
        packed = processes.run_bytes(["zstd", "-q", "-c"], tar)
        zstd = oci.Layer(packed, oci.LAYER_ZSTD, oci.digest_of(tar))
        through = oci.layer_from_tar(oci.TarBuilder().file("usr/lib64/through", "t").whiteout("bin/dmesg").bytes())
        image = oci.Image([base, plain, zstd, through], images.CONFIG)
        foreign = oci.Image([images.base_layer(lambda x: x.file("arm", ""))], images.CONFIG, architecture="arm64")
        ref = self.c.registry.push_index([foreign, image], oci.index_of([foreign, image]), "mixed")
        row = self.c.register("mixed", ref)
        self.c.group("mixed", images=[row["id"]])
        self.c.wait_cache(row["id"])
        self.assertEqual(self.c.get("/images/mixed")["resolved_digest"], image.digest)
        bunker = self.c.bunker("mixed")["id"]
        self.assertEqual(self.c.sh(bunker, "cat /plain /zstd /usr/lib/through; readlink /usr/lib64; ls /bin/dmesg "
                                           "2>/dev/null | wc -l"), "pztlib\n0\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
