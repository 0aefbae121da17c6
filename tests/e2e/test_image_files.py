#!/usr/bin/python3
"""Images that are files under tar_root, as other tools write them, plain and compressed: the same
image each time. Each row prints one line."""

import hashlib
import os
import shutil
import unittest

from harness import processes
from harness.puller import RegistryCase, content_digest, make_layout


class ImageFiles(RegistryCase):
    @classmethod
    def prepare(cls):
        cls.root = cls.folder + "/root"
        os.mkdir(cls.root)
        cls.layout = cls.root + "/layout"
        cls.made = make_layout(cls.layout, "--layer", "tar:etc/a=one,big=@300000", "--layer", "tar:manifest.json=x,etc/b=two")
        cls.diff_ids = [x["diff_id"] for x in cls.made["layers"]]

    def pull(self, name, **more):
        probe = self.probe([], images={"tar_root": self.root, **more.pop("images", {})}, **more)
        answer = probe.pull(tar=f"{self.root}/{name}")
        # Files of their own are handed on by a descriptor of the puller's.
        for layer in answer.get("layers", []):
            path = layer["path"].replace("/proc/self", f"/proc/{probe.process.pid}")
            if os.path.exists(path):
                self.assertEqual(content_digest(path, layer["compression"]), (layer["digest"], layer["diff_id"]))
        self.assertEqual([x for x in os.listdir(probe.folder) if "unpack" in x], [])
        return answer

    def compressed(self, name):
        """The file, and what gzip and zstd make of it."""
        for form, program in (("plain", None), ("gzip", ["gzip", "-k"]), ("zstd", ["zstd", "-q", "-k"])):
            if program:
                processes.run([*program, os.path.join(self.root, name)])
            yield name + {"plain": "", "gzip": ".gz", "zstd": ".zst"}[form]

    def test_archives(self):
        processes.run(["tar", "-cf", self.root + "/tarred.tar", "-C", self.layout, "."])
        processes.run(["skopeo", "copy", "-q", f"oci:{self.layout}:latest", f"docker-archive:{self.root}/saved.tar:app:1"])
        processes.run(["skopeo", "copy", "-q", f"oci:{self.layout}:latest", f"oci-archive:{self.root}/archive.tar:1"])
        digests = set()
        answer = self.good(self.pull("layout"))
        self.assertEqual([x["diff_id"] for x in answer["layers"]], self.diff_ids)
        self.row("P12", "an OCI layout, a folder", "2 layers by their diff ids")
        for what, name in (("the layout in a tar", "tarred.tar"), ("docker save's form (skopeo docker-archive)", "saved.tar"),
                           ("an OCI archive (skopeo oci-archive)", "archive.tar")):
            manifests = set()
            for file in self.compressed(name):
                answer = self.good(self.pull(file))
                self.assertEqual([x["diff_id"] for x in answer["layers"]], self.diff_ids, file)
                manifests.add(answer["manifest"])
            self.assertEqual(len(manifests), 1)
            digests |= manifests
            self.row("P12", f"{what}: plain, gzip, zstd", "the same 2 diff ids, one digest to pin")

    def test_root_file_system(self):
        tree = self.folder + "/tree"
        os.makedirs(tree + "/etc")
        for name in ("manifest.json", "etc/x"):
            with open(f"{tree}/{name}", "w", encoding="ascii") as out:
                out.write('{"name": "an app of its own"}')
        processes.run(["tar", "-cf", self.root + "/rootfs.tar", "-C", tree, "."])
        with open(self.root + "/rootfs.tar", "rb") as source:
            diff_id = "sha256:" + hashlib.sha256(source.read()).hexdigest()
        manifests = set()
        for file in self.compressed("rootfs.tar"):
            answer = self.good(self.pull(file))
            self.assertEqual([x["diff_id"] for x in answer["layers"]], [diff_id])
            manifests.add(answer["manifest"])
        self.assertEqual(len(manifests), 1)
        self.row("P12", "a root file system with a /manifest.json: plain, gzip, zstd", "one layer, one digest to pin")

    def test_bounds(self):
        tree = self.folder + "/bomb"
        os.makedirs(tree)
        with open(tree + "/manifest.json", "w", encoding="ascii") as out:
            out.write('[{"Config":"c","Layers":["l"]}]')
        processes.run(["truncate", "-s", "400M", tree + "/zeros"])
        processes.run(["tar", "-czf", self.root + "/bomb.tar.gz", "-C", tree, "manifest.json", "zeros"])
        answer = self.bad(self.pull("bomb.tar.gz"), "LAYER_UNSUPPORTED", "200 times")
        self.row("P12", "400 MiB of zeros behind a manifest.json, gzip", f"LAYER_UNSUPPORTED: {answer['message'][-50:]}")
        processes.run(["tar", "-cf", self.root + "/big.tar", "-C", self.layout, "."])
        processes.run(["gzip", self.root + "/big.tar"])
        self.bad(self.pull("big.tar.gz", tuning={"max_archive_bytes": 100_000}), "LAYER_UNSUPPORTED", "unpack it")
        self.row("P12", "an archive that unpacks to more than max_archive_bytes", "LAYER_UNSUPPORTED, remedy named")
        for name, text in (("cut.tar.gz", "LAYER_CORRUPT"), ("xz.tar.xz", "LAYER_UNSUPPORTED"), ("nested.tar.gz.gz", "LAYER_UNSUPPORTED")):
            if name.startswith("cut"):
                shutil.copy(self.root + "/big.tar.gz", self.root + "/cut.tar.gz")
                os.truncate(self.root + "/cut.tar.gz", os.path.getsize(self.root + "/big.tar.gz") - 1000)
            elif name.startswith("xz"):
                with open(self.root + "/" + name, "wb") as out:
                    out.write(b"\xfd7zXZ\x00" + b"x" * 1000)
            else:
                data = processes.run_bytes(["gzip", "-c", self.root + "/big.tar.gz"], b"")
                with open(self.root + "/" + name, "wb") as out:
                    out.write(data)
            self.bad(self.pull(name), text)
            self.row("P12", f"a damaged or strange archive: {name}", text)


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
