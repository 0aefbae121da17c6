#!/usr/bin/python3
"""An agent and its registries: a hundred images of one reference, a tag that moves, a registry that is
gone, and credentials that must not be found anywhere. Each row prints one line."""

import base64
import json
import os
import re
import shutil
import tempfile
import unittest
import warnings

from harness import canaries, case, images, processes
from harness.puller import Scripted
from harness.registry import Registry
from harness.token_server import make_authority

import oci  # deploy/image, on the path since harness was imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a later Python has it no more; Debian 12's has
    import crypt

IMAGES = 100
PASSWORD = "canary-p4ssw0rd-Kq7"
OTHER_PASSWORD = "canary-other-Zx9"


def row(number, what, evidence):
    print(f"{number:<8} {what:<66} {evidence}", flush=True)


class RegistryAgentTest(case.ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bka")
        ca, certificate, key = make_authority(os.path.join(cls.folder, "tls"), "registry")
        users = os.path.join(cls.folder, "htpasswd")
        with open(users, "w", encoding="ascii") as out:
            for name, password in (("ada", PASSWORD), ("bob", OTHER_PASSWORD)):
                out.write(name + ":" + crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
        cls.private = Registry(os.path.join(cls.folder, "private"), users, certificate, key).start()
        cls.basic = Registry(os.path.join(cls.folder, "basic"), users).start()
        cls.plain = Registry(os.path.join(cls.folder, "plain")).start()
        cls.layout = os.path.join(cls.folder, "layout")
        cls.faulty = Scripted(cls.layout)
        password = os.path.join(cls.folder, "password")
        with open(password, "w", encoding="ascii") as out:
            out.write(PASSWORD + "\n")
        config = os.path.join(cls.folder, "config.json")
        with open(config, "w", encoding="ascii") as out:
            json.dump({"auths": {f"{cls.basic.host}/team": {"auth": base64.b64encode(
                f"bob:{OTHER_PASSWORD}".encode()).decode()}}}, out)
        cls.AGENT = {"images": {"docker_config": config, "bake_uid": 64021}}
        cls.AGENT_ARRAYS = {"images.registry": [
            {"host": cls.private.host, "ca_file": ca, "username": "ada", "password_file": password, "allow_address": True},
            {"host": cls.basic.host, "allow_address": True}, {"host": cls.plain.host, "allow_address": True},
            {"host": cls.faulty.host, "allow_address": True}]}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for registry in (cls.private, cls.basic, cls.plain, cls.faulty):
            registry.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    @staticmethod
    def push(registry, name, user="", password="", marker="1"):
        """By skopeo, which signs in; the harness's own pusher does not."""
        folder = tempfile.mkdtemp(prefix="bkp")
        try:
            image = images.tiny(marker=marker)
            oci.write_layout(os.path.join(folder, "layout"), image, "x")
            signed = ["--dest-creds", f"{user}:{password}"] if user else []
            processes.run(["skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", *signed,
                           f"oci:{folder}/layout:x", f"docker://{registry.host}/{name}"])
            return image
        finally:
            shutil.rmtree(folder)

    def test_1_credentials_stay_hidden(self):
        """G9: everything that either daemon prints, keeps, answers or is started with."""
        self.push(self.private, "team/app:1", "ada", PASSWORD, "private")
        self.push(self.basic, "team/app:1", "bob", OTHER_PASSWORD, "basic")
        rows = [self.c.register("hidden", f"{self.private.host}/team/app:1"),
                self.c.register("hidden-too", f"{self.basic.host}/team/app:1"),
                self.c.register("hidden-gone", f"{self.private.host}/team/gone:1"),
                self.c.register("hidden-denied", f"{self.basic.host}/other/app:1")]
        self.c.group("hidden", images=[x["id"] for x in rows])
        for good in rows[:2]:
            self.c.wait_cache(good["id"])
        answers = []
        for bad in rows[2:]:
            view = self.c.wait_cache(bad["id"], status="failed")
            answers.append(view)
        text = json.dumps(answers) + json.dumps([self.c.get(f"/images/{x['id']}") for x in rows])
        text += json.dumps([self.c.cache(x["id"]) for x in rows])
        text += self.c.call("GET", "/audit?limit=100").text + self.c.call("GET", "/images").text
        found = canaries.search(self.c, canaries.forms_of("ada", PASSWORD) + canaries.forms_of("bob", OTHER_PASSWORD)
                                + ["canary"], text)
        reasons = [re.search(r'"reason_code": "(\w+)"|"(REGISTRY_AUTH_FAILED|IMAGE_NOT_FOUND)"', json.dumps(x)) for x in answers]
        self.assertTrue(all(reasons), answers)
        row("G9", "2 images pulled with credentials, 2 refused: canary passwords and their base64", found)

    def test_2_a_hundred_images_of_one_reference(self):
        """R36 at the whole agent: one download of each blob, one bake."""
        image = self.push(self.plain, "many:1", marker="many")
        before = self.c.agents[0].daemon.log().count("image.baked")
        rows = [self.c.register(f"many-{i}", f"{self.plain.host}/many:1") for i in range(IMAGES)]
        self.c.group("many", images=[x["id"] for x in rows])
        for each in rows:
            self.c.wait_cache(each["id"])
        bakes = self.c.agents[0].daemon.log().count("image.baked") - before
        gets = [self.plain.blob_requests("many", oci.digest_of(x)) for x in image.blobs()]
        manifests = self.plain.requests("/v2/many/manifests/1")
        self.assertEqual(gets, [1] * len(gets))
        self.assertEqual(bakes, 1)
        self.assertGreaterEqual(manifests, 1)
        row("R36", f"{IMAGES} images of one reference, ready on one worker",
            f"GETs of each blob {gets}, {bakes} bake, the tag asked for {manifests} times (once a pull: its right)")

    def test_3_a_tag_that_moves(self):
        """R44: the worker that comes later has what was registered."""
        first = self.push(self.plain, "moving:1", marker="first")
        image = self.c.register("moving", f"{self.plain.host}/moving:1")
        group = self.c.group("moving", images=[image["id"]])
        view = self.c.wait_cache(image["id"])
        second = self.push(self.plain, "moving:1", marker="second")
        self.assertNotEqual(first.digest, second.digest)
        self.c.add_agent("w2", {**self.AGENT, "images": {**self.AGENT["images"], "bake_uid": 64022}}, self.AGENT_ARRAYS)
        self.c.wait_online(2)
        self.c.call("POST", f"/availability-groups/{group}/workers", {"ref": "w2"}, expect=200)
        after = self.c.wait_cache(image["id"], rows=2)
        self.assertEqual({x["rootfs_digest"] for x in after}, {view[0]["rootfs_digest"]})
        self.assertEqual(self.c.get(f"/images/{image['id']}")["resolved_digest"], first.digest)
        row("R44", "the tag moved before the second worker pulled", "both have the first digest and one rootfs")

    def test_3b_a_registry_that_fails_on_the_way(self):
        """R37 R38 R42 at the whole agent: what is baked while its layers come in pieces is the same file."""
        image = self.push(self.plain, "pieces:1", marker="pieces")
        oci.write_layout(self.layout, image, "1")
        layer = image.layers[0].digest
        size = len(image.layers[0].blob)
        self.faulty.clear()
        self.faulty.fault("/manifests/", "status", code=503, times=1)
        self.faulty.fault(layer, "cut", at=size // 2, times=1, reset=True)
        self.faulty.fault(layer, "lie_range", times=1)
        self.faulty.fault(layer, "cut", at=size // 3, times=1)
        first = self.c.register("pieces-faulty", f"{self.faulty.host}/pieces:1")
        self.c.group("pieces-faulty", workers=[self.c.workers()["w1"]], images=[first["id"]])
        second = self.c.register("pieces-plain", f"{self.plain.host}/pieces:1")
        self.c.group("pieces-plain", workers=[self.c.workers()["w2"]], images=[second["id"]])
        digests = {self.c.wait_cache(x["id"])[0]["rootfs_digest"] for x in (first, second)}
        self.assertEqual(len(digests), 1)
        row("R37 R38", "a worker's layer cut, ranges lied about, 503; another's pulled whole",
            f"one rootfs digest; {self.faulty.count(layer)} requests for the layer")

    def test_4_a_registry_that_is_gone(self):
        """R45: what is ready starts, also after the agent's own restart."""
        self.push(self.plain, "kept:1", marker="kept")
        image = self.c.register("kept", f"{self.plain.host}/kept:1")
        self.c.group("kept", workers=[self.c.workers()["w1"]], images=[image["id"]])
        self.c.wait_cache(image["id"])
        self.plain.stop()
        agent = self.c.agents[0]
        agent.daemon.stop()
        agent.start()
        self.c.wait_online(len(self.c.agents))
        bunker = self.c.bunker("kept")
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "kept")
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        row("R45", "registry stopped, agent restarted, image ready before", "a bunker of it starts and runs")


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
