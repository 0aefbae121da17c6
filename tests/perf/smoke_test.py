#!/usr/bin/python3
"""`bunker-agent bake` and `inspect` by hand, and the performance lane's own parts, on small images.

usage: smoke_test.py AGENT BAKE_BOUND        (as root: the bake's child changes its user)
"""

import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import unittest

import chunk_sharing
import make_images
import ways

import oci

sys.path.insert(0, os.path.join(make_images.ROOT, "tests/e2e"))
from harness.registry import Registry  # noqa: E402

AGENT, BOUND = "", ""


def bulky_tar(mebibytes):
    """Compresses some 80 times, so that its bake takes longer than its making."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(mebibytes // 16):
            data = b"".join(os.urandom(40) + bytes([number]) * 4056 for _ in range(4096))
            info = tarfile.TarInfo(f"bulk{number}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class ByHand(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="hand.")
        base = oci.TarBuilder().directory("etc").file("etc/a", b"a" * 100_000).file("etc/b", b"b" * 5000)
        top = oci.TarBuilder().whiteout("etc/b").file("etc/c", "c").symlink("etc/d", "a")
        layers = [oci.layer_from_tar(base.bytes()), oci.layer_from_tar(top.bytes())]
        cls.layout = os.path.join(cls.folder, "layout")
        make_images.write_layout(cls.layout, [("one", oci.Image(layers[:1])), ("two", oci.Image(layers))])
        make_images.make_zstd(cls.layout, cls.layout + "-zstd")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.out = os.path.join(self.folder, "out.ext4")
        self.before = set(os.listdir(self.folder))

    def tearDown(self):
        for name in ("out.ext4", "out.ext4.verity"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, name))

    def run_agent(self, *arguments, code=0):
        done = subprocess.run([AGENT, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def bake(self, source, *more, code=0):
        return self.run_agent("bake", "--source", source, "--out", self.out, "--size-mib", "64", "--json", *more,
                              code=code)

    def refused(self, source, code, reason, *more):
        done = self.bake(source, *more, code=code)
        self.assertEqual(json.loads(done.stdout)["error"]["code"], reason)
        self.assertIn(reason, done.stderr)
        self.assertEqual(set(os.listdir(self.folder)), self.before, "something was left")
        return done.stderr

    def test_layout_by_name_gzip_and_zstd_and_inspect(self):
        summary = json.loads(self.bake(f"oci-layout:{self.layout}:two", "--tree", self.out + ".verity").stdout)
        self.assertEqual(summary["entries"], 4)
        self.assertEqual(len(summary["diff_ids"]), 2)
        self.assertEqual([x["compression"] for x in summary["layers"]], ["gzip", "gzip"])
        for name in ("inflate", "diff_hash", "write", "metadata"):
            self.assertIn(name, summary["bake"]["stage_cpu_seconds"])
        self.assertGreater(summary["peak_rss_bytes"], 0)
        self.assertEqual(os.stat(self.out).st_mode & 0o777, 0o444)
        self.assertEqual(os.stat(self.out).st_blocks * 512, summary["bytes_out"]["allocated"])
        printed = subprocess.run(["fsverity", "digest", "--compact", self.out], capture_output=True, text=True, check=True)
        self.assertEqual(summary["rootfs_digest"], "fsverity-sha256:" + printed.stdout.strip())
        found = json.loads(self.run_agent("inspect", "--json", self.out).stdout)
        self.assertEqual(found["rootfs_digest"], summary["rootfs_digest"])
        self.assertTrue(found["tree"]["matches"])
        self.assertEqual(found["entries"], summary["entries"])
        self.assertIn("matches", self.run_agent("inspect", self.out).stdout)
        os.rename(self.out, self.out + ".gzip")
        zstd = json.loads(self.bake(f"oci-layout:{self.layout}-zstd:two").stdout)
        self.assertEqual([x["compression"] for x in zstd["layers"]], ["zstd", "zstd"])
        self.assertEqual(zstd["rootfs_digest"], summary["rootfs_digest"])
        os.unlink(self.out + ".gzip")

    def test_inspect_of_damaged_and_foreign_files(self):
        self.bake(f"oci-layout:{self.layout}:one", "--tree", self.out + ".verity")
        os.chmod(self.out, 0o600)
        with open(self.out, "r+b") as file:
            file.seek(-5000, os.SEEK_END)
            file.write(b"!")
        done = self.run_agent("inspect", self.out, code=3)
        self.assertIn("DOES NOT MATCH", done.stdout)
        with open(self.out, "r+b") as file:
            file.truncate(os.path.getsize(self.out) // 2)
        self.assertIn("damaged", self.run_agent("inspect", self.out, code=3).stderr)
        self.assertIn("not an image", self.run_agent("inspect", __file__, code=3).stderr)
        self.run_agent("inspect", self.folder, code=4)
        self.run_agent("inspect", code=2)

    def test_a_registry_is_asked_once_for_what_is_kept(self):
        layers = ways.blobs_of(self.layout, "two")
        registry = Registry(self.folder).start()
        try:
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{self.layout}:two",
                            "docker://" + registry.ref("two")], check=True)
            config, kept = os.path.join(self.folder, "agent.toml"), os.path.join(self.folder, "kept")
            with open(config, "w", encoding="utf-8") as out:
                out.write(f'[[images.registry]]\nhost = "{registry.host}"\nallow_address = true\n')
            more = ("--config", config, "--blobs", kept)
            first = json.loads(self.bake(registry.ref("two"), *more).stdout)
            os.unlink(self.out)
            second = json.loads(self.bake(registry.ref("two"), *more).stdout)
            asked = [registry.blob_requests("two", "sha256:" + os.path.basename(path)) for _, path in layers]
        finally:
            registry.stop()
        self.assertEqual(asked, [1, 1])
        self.assertEqual(first["rootfs_digest"], second["rootfs_digest"])
        os.rename(self.out, self.out + ".pulled")
        local = json.loads(self.bake(f"oci-layout:{self.layout}:two").stdout)
        self.assertEqual(local["rootfs_digest"], first["rootfs_digest"])

    def test_a_tarball_bakes_too(self):
        tar = os.path.join(self.folder, "root.tar.gz")
        with gzip.open(tar, "wb") as out:
            out.write(oci.TarBuilder().file("hello", "hello").bytes())
        self.assertEqual(json.loads(self.bake("tar:" + tar).stdout)["entries"], 1)
        os.unlink(tar)

    def test_refusals_name_their_code_and_leave_nothing(self):
        self.refused(f"oci-layout:{self.layout}:three", 4, "IMAGE_NOT_FOUND")
        self.refused(f"oci-layout:{self.folder}/absent", 4, "SOURCE_NOT_READABLE")
        self.refused("127.0.0.1:1/nothing:v1", 4, "REGISTRY_UNREACHABLE")
        self.refused(f"oci-layout:{self.layout}:two", 3, "ARCH_UNAVAILABLE", "--arch", "arm64")
        self.refused(f"oci-layout:{self.layout}:two", 2, "VALIDATION_ERROR", "--arch", "mips")
        self.run_agent("bake", "--out", self.out, code=2)
        with open(self.out, "w", encoding="utf-8") as there:
            there.write("mine")
        self.bake(f"oci-layout:{self.layout}:two", code=2)
        with open(self.out, encoding="utf-8") as there:
            self.assertEqual(there.read(), "mine")

    def test_too_small_a_cap_says_how_much_it_takes(self):
        tar = os.path.join(self.folder, "large.tar")
        with open(tar, "wb") as out:
            out.write(oci.TarBuilder().file("large", os.urandom(80 << 20)).bytes())
        self.before = set(os.listdir(self.folder))
        said = self.refused("tar:" + tar, 3, "SIZE_CAP_EXCEEDED")
        self.assertRegex(said, r"needs 8\d MiB")
        os.unlink(tar)

    def interrupted(self, source, awaited, number):
        process = subprocess.Popen([AGENT, "bake", "--source", source, "--out", self.out, "--size-mib", "4096",
                                    "--json", *self.config()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, start_new_session=True)
        while process.stderr.readline().strip() != awaited:
            self.assertIsNone(process.poll(), "it ended too early")
        os.killpg(process.pid, number)  # as a terminal does: the bake's child gets it, too
        out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, out + err)
        self.assertEqual(json.loads(out)["error"]["code"], "CANCELLED")
        self.assertEqual(set(os.listdir(self.folder)), self.before)

    def config(self):
        return []

    def test_ctrl_c_in_the_bake_leaves_nothing(self):
        tar = os.path.join(self.folder, "bulky.tar")
        with open(tar, "wb") as out:
            out.write(bulky_tar(128))
        layout = os.path.join(self.folder, "bulky")
        with open(tar, "rb") as source:
            make_images.write_layout(layout, [("latest", oci.Image([oci.layer_from_tar(source.read(), level=1)]))])
        os.unlink(tar)
        self.before = set(os.listdir(self.folder))
        for number in (signal.SIGINT, signal.SIGTERM):
            self.interrupted("oci-layout:" + layout, "baking", number)
        shutil.rmtree(layout)

    def test_ctrl_c_leaves_a_registry_that_never_answers(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host = f"127.0.0.1:{silent.getsockname()[1]}"
            config = os.path.join(self.folder, "agent.toml")
            with open(config, "w", encoding="utf-8") as out:
                out.write(f'[[images.registry]]\nhost = "{host}"\ninsecure_http = true\nallow_address = true\n')
            self.before = set(os.listdir(self.folder))
            self.config = lambda: ["--config", config]
            self.interrupted(host + "/image:v1", "resolving", signal.SIGINT)
            os.unlink(config)


class Lane(unittest.TestCase):
    """The lane's tools, not its figures."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="lane.")
        cls.layout = os.path.join(cls.folder, "layout")
        builder = oci.TarBuilder()
        for number in range(40):
            builder.file(f"f{number:02}", os.urandom(300_000))
        layers = [oci.layer_from_tar(builder.bytes(), level=1),
                  oci.layer_from_tar(oci.TarBuilder().whiteout("f20").file("more", os.urandom(100_000)).bytes())]
        make_images.write_layout(cls.layout, [("base", oci.Image(layers[:1])), ("more", oci.Image(layers))])

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def test_bound_and_sharing(self):
        files = {}
        for name in ("base", "more"):
            out = os.path.join(self.folder, name + ".ext4")
            run = ways.bake(AGENT, self.layout, name, out, 256, tree=out + ".tree")
            self.assertGreater(run["wall"], 0)
            self.assertGreater(run["cpu"], 0)
            files[name] = chunk_sharing.BakedFile(out, out + ".tree")
        found = chunk_sharing.compare(files["base"], files["more"])
        self.assertGreater(found["survive"], 0.95)
        # One of some three segments holds the hidden file.
        self.assertGreater(found["shared"], 0.4)
        self.assertLess(found["shared"], found["survive"])
        self.assertEqual(chunk_sharing.compare(files["base"], files["base"])["ratio"], 1.0)
        layers = ways.blobs_of(self.layout, "more")
        bound = ways.bound(BOUND, layers, run["summary"]["bytes_out"]["allocated"], os.path.join(self.folder, "raw"))
        self.assertAlmostEqual(bound["cpu_seconds"], sum(bound["parts"].values()), places=6)
        for layer, (_, path) in zip(bound["layers"], layers):
            with gzip.open(path) as source:
                self.assertEqual(layer["uncompressed_bytes"], len(source.read()))
        self.assertGreater(bound["sha_stream_bytes_per_s"], 1e8)


if __name__ == "__main__":
    AGENT, BOUND = (os.path.abspath(x) for x in sys.argv[1:3])
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
