#!/usr/bin/python3
"""Images and their registries through REST, with real daemons and real registries: private ones with
right, wrong, missing and rotated credentials, a tag that moves, mirrors, every spelling, PATCH, and
two tenants with one private image. Each row prints one line."""

import os
import shutil
import stat
import tempfile
import unittest
import urllib.parse
import warnings

import httpx

from harness import canaries, case, images, processes
from harness.puller import Scripted
from harness.registry import Registry
from harness.token_server import TokenServer

import oci  # deploy/image, on the path since harness was imported

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a later Python has it no more; Debian 12's has
    import crypt

PASSWORD = "canary-p4ss-Wq3"
NEW_PASSWORD = "canary-new-Rt8"
ENTRIES = 350_000
KEY = '{"type":"service_account","private_key":"canary-json-Lm5"}'


def row(what, evidence):
    print(f"{what:<70} {evidence}", flush=True)


def htpasswd(path, users):
    with open(path, "w", encoding="ascii") as out:
        for name, password in users.items():
            out.write(name + ":" + crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
    return path


def push_as(registry, name, image, user, password):
    """By skopeo, which signs in; the harness's own pusher does not."""
    folder = tempfile.mkdtemp(prefix="bkp")
    try:
        oci.write_layout(os.path.join(folder, "layout"), image, "x")
        processes.run(["skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds",
                       f"{user}:{password}", f"oci:{folder}/layout:x", f"docker://{registry.host}/{name}"])
    finally:
        shutil.rmtree(folder)


class ImageCase(case.ClusterTest):
    """One agent; what it answers is kept for the search at the end."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="bki")
        cls.answers = []
        cls.stack = []
        cls.registries()
        super().setUpClass()

    @classmethod
    def registries(cls):
        """Starts what the agent's configuration names."""

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for one in cls.stack:
            one.stop()
        shutil.rmtree(cls.folder, ignore_errors=True)

    def call(self, method, path, body=None, expect=None, key=None):
        answer = self.c.call(method, path, body, expect=expect, key=key)
        self.answers.append(answer.text)
        return answer

    def data(self, method, path, body=None, expect=200, key=None):
        return self.call(method, path, body, expect, key).json()["data"]

    def error(self, method, path, body=None, key=None):
        answer = self.call(method, path, body, key=key)
        self.assertGreaterEqual(answer.status_code, 400, answer.text)
        return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]

    def credential(self, name, host, key=None, **login):
        return self.data("POST", "/registry-credentials", {"name": name, "host": host, **login}, 201, key)

    def register(self, name, ref, key=None, **more):
        body = {"name": name, "build_source": {"kind": "oci", "ref": ref}, "size_mib": 64, **more}
        return self.data("POST", "/images", body, 201, key)

    def failed(self, image, code, key=None):
        """The message of the one row, which must have failed with `code`."""
        def settled():
            view = self.data("GET", f"/images/{image}/cache", key=key)
            return view if any(x["status"] == "failed" for x in view) else None
        error = processes.wait_until(settled, f"{image} fails", 60, 0.1)[0]["error"]
        self.assertEqual(error["code"], code, error)
        return error["message"]

    def ready(self, image, key=None):
        def settled():
            view = self.data("GET", f"/images/{image}/cache", key=key)
            bad = [x for x in view if x["status"] == "failed"]
            if bad:
                raise AssertionError(f"a cache row failed: {bad}")
            return view if any(x["status"] == "ready" for x in view) else None
        return processes.wait_until(settled, f"{image} is ready", 60, 0.1)[0]


class PrivateRegistryTest(ImageCase):
    @classmethod
    def registries(cls):
        # Read anew by the registry with each request, so that a password can be rotated there too.
        cls.users = htpasswd(os.path.join(cls.folder, "users"), {"ada": PASSWORD, "_json_key": KEY})
        cls.basic = Registry(os.path.join(cls.folder, "basic"), cls.users).start()
        cls.tokens = TokenServer(os.path.join(cls.folder, "tokens"), {"ada": PASSWORD})
        cls.token = Registry(os.path.join(cls.folder, "token"), extra=cls.tokens.registry_config()).start()
        cls.stack = [cls.basic, cls.token, cls.tokens]
        cls.AGENT_ARRAYS = {"images.registry": [
            {"host": cls.basic.host, "allow_address": True},
            {"host": cls.token.host, "allow_address": True,
             "token_hosts": [urllib.parse.urlparse(cls.tokens.realm).netloc]}]}

    @classmethod
    def prepare(cls):
        cls.group = cls.c.group("all")
        for name in ("app", "wrong", "rotated", "key", "late", "shared"):
            push_as(cls.basic, f"team/{name}:1", images.tiny(marker=name), "ada", PASSWORD)
        push_as(cls.token, "team/tok:1", images.tiny(marker="tok"), "ada", PASSWORD)

    def into_group(self, image):
        self.c.attach(self.group, image)

    def test_1_right_wrong_and_missing(self):
        made = self.credential("right", "http://" + self.basic.host + "/v2/", username="ada", password=PASSWORD)
        self.assertEqual((made["host"], made["username"], made["scope"]), (self.basic.host, "ada", "tenant"))
        self.credential("wrong", self.basic.host, username="ada", password="canary-wrong-Ty1")
        ref = f"{self.basic.host}/team/app:1"
        for name, secret in (("p-right", "right"), ("p-wrong", "wrong"), ("p-missing", None)):
            image = self.register(name, ref, **({"pull_secret": secret} if secret else {}))
            self.assertEqual(image["pull_secret"], secret)
            self.into_group(image["id"])
        self.assertEqual(self.ready("p-right")["source"], "registry")
        wrong = self.failed("p-wrong", "REGISTRY_AUTH_FAILED")
        self.assertIn("/registry-credentials/wrong", wrong)
        missing = self.failed("p-missing", "REGISTRY_AUTH_FAILED")
        self.assertIn("pull_secret", missing)
        row("right / wrong / missing credential", f"ready / {wrong[-60:]} / {missing[-70:]}")
        self.assertEqual(self.error("DELETE", "/registry-credentials/right")[:2], (409, "RESOURCE_IN_USE"))
        status, code, message = self.error("POST", "/images", {"name": "p-other", "size_mib": 64, "pull_secret": "right",
                                                               "build_source": {"kind": "oci", "ref": "ghcr.io/a/b:1"}})
        self.assertEqual((status, code), (422, "VALIDATION_ERROR"))
        self.assertIn("ghcr.io", message)

    def test_2_put_rotates_and_tries_again(self):
        self.credential("rotated", self.basic.host, username="ada", password="canary-old-Uv2")
        image = self.register("rotated", f"{self.basic.host}/team/rotated:1", pull_secret="rotated")
        self.into_group(image["id"])
        self.failed("rotated", "REGISTRY_AUTH_FAILED")
        self.data("PUT", "/registry-credentials/rotated",
                  {"host": self.basic.host, "username": "ada", "password": PASSWORD})
        after = self.ready("rotated")
        self.assertGreaterEqual(after["attempt"], 2)
        row("PUT of the right password", f"the failed row is ready at attempt {after['attempt']}, without a warm")

    def test_3_token_service_and_json_key(self):
        self.credential("tok", self.token.host, username="ada", password=PASSWORD)
        self.into_group(self.register("tok", f"{self.token.host}/team/tok:1", pull_secret="tok")["id"])
        self.ready("tok")
        asked = [x for x in self.tokens.log if x[3] == 200]
        self.assertTrue(any("scope=repository%3Ateam%2Ftok%3Apull" in x[1] or "team/tok" in x[1] for x in asked))
        self.credential("key", self.basic.host, json_key=KEY)
        self.assertEqual(self.data("GET", "/registry-credentials/key")["username"], "_json_key")
        self.into_group(self.register("key", f"{self.basic.host}/team/key:1", pull_secret="key")["id"])
        self.ready("key")
        row("token service, one-line JSON key", f"both ready; {len(asked)} token(s) given")

    def test_4_patch_names_another_credential(self):
        self.into_group(self.register("late", f"{self.basic.host}/team/late:1")["id"])
        self.failed("late", "REGISTRY_AUTH_FAILED")
        self.assertEqual(self.data("PATCH", "/images/late", {"pull_secret": "right"})["pull_secret"], "right")
        self.ready("late")
        row("PATCH pull_secret", "the failed row is ready")

    def test_5_the_agent_asks_again_after_its_restart(self):
        """Nothing of a login is kept: a pull that begins in the agent's next life asks for it."""
        agent = self.c.agents[0]
        agent.daemon.stop()
        self.into_group(self.register("shared", f"{self.basic.host}/team/shared:1", pull_secret="right")["id"])
        agent.start()
        self.ready("shared")

    def test_6_the_seal_key_is_rotated(self):
        controller = self.c.controller
        key_file = os.path.join(controller.folder, "credentials.key")
        self.assertEqual(stat.S_IMODE(os.stat(key_file).st_mode), 0o600)
        controller.daemon.stop()
        processes.run(controller.command("rotate-key"))
        with open(key_file, encoding="ascii") as source:
            keys = [x for x in source.read().split("\n") if x and not x.startswith("#")]
        self.assertEqual(len(keys), 2)
        controller.start()
        processes.wait_until(lambda: "credentials.sealed_anew" in controller.daemon.log(), "it seals anew")
        controller.daemon.stop()
        with open(key_file, "w", encoding="ascii") as out:
            out.write(keys[0] + "\n")
        controller.start()
        self.c.wait_online(1)
        self.into_group(self.register("after-rotation", f"{self.basic.host}/team/app:1", pull_secret="right")["id"])
        self.ready("after-rotation")
        row("rotate-key, restart, the old key removed", "credentials still open")

    def test_8_two_tenants_and_one_private_image(self):
        """The blobs and the baked file are on the worker: without a right of its own nobody gets them."""
        key = self.tenant_key("second")
        agent = self.c.agents[0]
        files = set(agent.image_files())
        ref = f"{self.basic.host}/team/app:1"
        image = self.register("stolen", ref, key=key)
        group = self.data("POST", "/availability-groups", {"name": "theirs"}, 201, key)["id"]
        worker = self.data("GET", "/workers", key=key)[0]["id"]
        self.call("POST", f"/availability-groups/{group}/workers", {"ref": worker}, 200, key)
        self.call("POST", f"/availability-groups/{group}/images", {"ref": image["id"]}, 200, key)
        self.failed("stolen", "REGISTRY_AUTH_FAILED", key)
        own = self.data("GET", "/images/p-right")
        for ref_of_first in ("p-right", own["id"], own["uuid"], own["url"], f"team/app@{own['resolved_digest']}"):
            path = "/images/" + urllib.parse.quote(ref_of_first, safe="")
            self.assertEqual(self.error("GET", path, key=key)[:2], (404, "NOT_FOUND"), ref_of_first)
        # By digest it is no other: the manifest is asked for at its registry.
        pinned = self.register("by-digest", f"{self.basic.host}/team/app@{own['resolved_digest']}", key=key)
        self.call("POST", f"/availability-groups/{group}/images", {"ref": pinned["id"]}, 200, key)
        self.failed("by-digest", "REGISTRY_AUTH_FAILED", key)
        self.assertEqual(self.error("POST", "/bunkers", {"image": "stolen"}, key)[1], "NO_SUITABLE_WORKER")
        listed = self.data("GET", "/images?digest=" + own["resolved_digest"], key=key)
        self.assertEqual([x["name"] for x in listed], ["by-digest"], "its own alone")
        self.assertEqual(self.error("POST", "/images", {
            "name": "borrowed", "size_mib": 64, "pull_secret": "right",
            "build_source": {"kind": "oci", "ref": ref}}, key)[1], "VALIDATION_ERROR")
        # With a login of its own it has the same file at once, after its own manifest request.
        before = self.basic.requests(f"/v2/team/app/manifests/{own['resolved_digest']}") + \
            self.basic.requests("/v2/team/app/manifests/1")
        self.credential("theirs", self.basic.host, key, username="ada", password=PASSWORD)
        self.assertEqual(self.data("PATCH", "/images/stolen", {"pull_secret": "theirs"}, key=key)["name"], "stolen")
        view = self.ready("stolen", key)
        after = self.basic.requests(f"/v2/team/app/manifests/{own['resolved_digest']}") + \
            self.basic.requests("/v2/team/app/manifests/1")
        self.assertEqual(view["source"], "cache")
        self.assertGreater(after, before)
        self.assertEqual(set(agent.image_files()), files, "no second file")
        row("a second tenant, the file being there",
            f"REGISTRY_AUTH_FAILED by tag and digest; with its own login cache, {after - before} manifest request(s)")

    def tenant_key(self, name):
        controller = self.c.controller
        headers = {"Authorization": f"Bearer {controller.key}"}

        def post(path, body, header=headers):
            answer = httpx.post(controller.host + "/v1" + path, json=body, headers=header, timeout=30)
            self.assertEqual(answer.status_code, 201, answer.text)
            return answer.json()["data"]
        me = httpx.get(controller.host + "/v1/whoami", headers=headers, timeout=30).json()["data"]
        partner = me["partner"]["id"] if isinstance(me["partner"], dict) else me["partner"]
        tenant = post("/tenants", {"name": name, "partner_id": partner})
        user = post("/users", {"name": "admin", "role": "tenant_admin", "tenant_id": tenant["id"]})
        return post("/api-keys", {"name": "k", "user_id": user["id"]})["key"]

    def test_9_no_secret_anywhere(self):
        self.call("GET", "/registry-credentials", expect=200)
        self.call("GET", "/images", expect=200)
        self.call("GET", "/audit?limit=200")
        secrets = (canaries.forms_of("ada", PASSWORD) + canaries.forms_of("ada", "canary-wrong-Ty1")
                   + canaries.forms_of("ada", "canary-old-Uv2") + canaries.forms_of("_json_key", KEY) + ["canary-"])
        row("canary passwords and keys in every spelling", canaries.search(self.c, secrets, "".join(self.answers)))


class MirrorTest(ImageCase):
    """The seed's own reference, spelled exactly so, from a registry on loopback."""

    @classmethod
    def registries(cls):
        users = htpasswd(os.path.join(cls.folder, "users"), {"ada": PASSWORD})
        cls.hub = Registry(os.path.join(cls.folder, "hub")).start()
        cls.private = Registry(os.path.join(cls.folder, "private"), users).start()
        cls.copy = Registry(os.path.join(cls.folder, "copy")).start()
        cls.stack = [cls.hub, cls.private, cls.copy]
        cls.AGENT = {"images": {"mirrors": {"docker.io": "http://" + cls.hub.host,
                                            cls.private.host: "http://" + cls.copy.host}}}
        cls.AGENT_ARRAYS = {"images.registry": [{"host": cls.private.host, "allow_address": True}]}

    def test_the_seeds_own_reference(self):
        image = images.tiny(marker="r", config={**images.CONFIG, "Cmd": ["R"], "User": "alice", "WorkingDir": "/tmp",
                                                "ExposedPorts": {"8787/tcp": {}}})
        self.hub.push(image, "library/r-base", "4.4")
        body = {"name": "r-stats", "display_name": "R 4.4 with tidyverse",
                "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"}, "size_mib": 4096,
                "resource_category": ["CPU", "GPU"]}
        made = self.data("POST", "/images", body, 201)
        self.c.group("g", images=[made["id"]])
        self.ready("r-stats")
        one = self.data("GET", "/images/r-stats")
        self.assertEqual(one["url"], f"docker.io/library/r-base@{image.digest}")
        self.assertEqual(one["build_source"]["ref"], "docker.io/r-base:4.4")
        self.assertEqual((one["args"], one["user"], one["working_dir"], one["exposed_ports"]),
                         (["R"], "alice", "/tmp", ["8787/tcp"]))
        self.assertEqual(one["env"]["FROM_IMAGE"], "yes")
        self.assertEqual((one["arch"], one["resource_category"]), ("X86_64", ["CPU", "GPU"]))
        self.assertGreater(one["size_in_bytes"], 0)
        self.assertEqual(self.hub.requests("/v2/library/r-base/manifests/4.4"), 1)
        short = image.digest[:7 + 12]
        spellings = ["r-stats", one["id"], one["uuid"], one["uuid"].upper(), "r-stats@" + image.digest,
                     "r-stats@" + short, one["url"], "docker.io/r-base@" + short, "r-base@" + image.digest,
                     "docker.io/r-base:4.4", "docker.io/library/r-base:4.4", "library/r-base:4.4", "r-base:4.4"]
        for ref in spellings:
            path = "/images/" + urllib.parse.quote(ref, safe="")
            self.assertEqual(self.data("GET", path)["id"], made["id"], ref)
            explained = self.call("POST", "/bunkers", {"image": ref + "x"}).json()["error"]["code"]
            self.assertEqual(explained, "NOT_FOUND", ref)
        bunker = self.c.bunker("r-base:4.4")
        self.assertEqual((bunker["image_id"], bunker["image_digest"]), (made["id"], image.digest))
        self.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        row("docker.io/r-base:4.4 by mirrors = {docker.io = http://127.0.0.1:…}",
            f"ready, {one['url'][:50]}…, found by {len(spellings)} spellings, a bunker runs")

    def test_a_login_is_for_its_host_and_no_mirror(self):
        """The mirror is never sent what was stored for the registry that it stands for."""
        image = images.tiny(marker="mirrored")
        push_as(self.private, "team/app:1", image, "ada", PASSWORD)
        self.copy.push(image, "team/app", "1")
        self.credential("own", self.private.host, username="ada", password=PASSWORD)
        ref = f"{self.private.host}/team/app:1"
        registered = self.register("with-login", ref, pull_secret="own")
        before = self.private.requests("/v2/team/app/manifests/1")  # skopeo's
        self.c.group("login", images=[registered["id"]])
        self.ready("with-login")
        self.assertGreater(self.private.requests("/v2/team/app/manifests/1"), before)
        self.assertEqual(self.copy.requests("/v2/team/app/manifests/1"), 0)
        registered = self.register("without", ref)
        self.c.group("no-login", images=[registered["id"]])
        self.ready("without")
        self.assertEqual(self.copy.requests("/v2/team/app/manifests/1"), 1)
        row("an image with a pull_secret, whose registry has a mirror", "the registry itself is asked; without one, the mirror")


class TagTest(ImageCase):
    CONTROLLER = {"images": {"tag_check_interval_s": 2}}

    def test_a_tag_that_moves(self):
        registry = self.c.registry
        first = images.tiny(marker="first")
        registry.push(first, "moving", "1")
        image = self.register("moving", registry.ref("moving", "1"))
        self.c.group("g", images=[image["id"]])
        self.ready("moving")
        digest = self.data("GET", "/images/moving")["rootfs_digest"]
        needle = '"HEAD /v2/moving/manifests/1 '
        processes.wait_until(lambda: registry.daemon.log().count(needle) >= 1, "the tag is looked up", 30)
        self.assertIsNone(self.data("GET", "/images/moving")["tag_moved"])
        gets = registry.requests("/v2/moving/manifests/1")
        second = images.tiny(marker="second")
        registry.push(second, "moving", "1")
        moved = processes.wait_until(lambda: self.data("GET", "/images/moving")["tag_moved"], "it is seen", 30)
        self.assertEqual(moved["digest"], second.digest)
        one = self.data("GET", "/images/moving")
        self.assertEqual((one["resolved_digest"], one["rootfs_digest"]), (first.digest, digest))
        self.assertEqual(registry.requests("/v2/moving/manifests/1"), gets, "by HEAD alone")
        registry.push(first, "moving", "1")
        processes.wait_until(lambda: self.data("GET", "/images/moving")["tag_moved"] is None, "it moved back", 30)
        row("a tag that moves, and back", f"tag_moved {moved['digest'][:19]}… at {moved['seen_at']}, pin and file stay, "
            f"{registry.daemon.log().count(needle)} HEADs, no GET")


class BakeErrorTest(ImageCase):
    """The errors of a cache row, as REST shows them. Others of them: test_wrong_input.py (digests,
    caps, tar paths, arch), test_disk_full.py, test_hostile_layers.py."""

    AGENT = {"images": {"bake_memory_mib": 256}}

    @classmethod
    def registries(cls):
        cls.layout = os.path.join(cls.folder, "layout")
        oci.write_layout(cls.layout, images.tiny(marker="faulty"), "1")
        cls.faulty = Scripted(cls.layout)
        cls.plain = Registry(os.path.join(cls.folder, "plain")).start()
        cls.stack = [cls.faulty, cls.plain]
        cls.AGENT_ARRAYS = {"images.registry": [{"host": x.host, "allow_address": True}
                                                for x in (cls.faulty, cls.plain)]}

    @classmethod
    def prepare(cls):
        cls.group = cls.c.group("all")

    def fails(self, name, ref, code, **more):
        image = self.register(name, ref, **more)
        self.c.attach(self.group, image["id"])
        message = self.failed(name, code)
        self.call("DELETE", f"/images/{name}", expect=200)
        row(code, message[:120])
        return message

    def test_rate_limited(self):
        self.faulty.clear()
        self.faulty.fault("/manifests/", "status", code=429, headers={"Retry-After": "0"})
        self.fails("limited", f"{self.faulty.host}/team/app:1", "REGISTRY_RATE_LIMITED")
        self.faulty.clear()

    def test_unreachable(self):
        self.fails("gone", f"127.0.0.1:{processes.free_port()}/x:1", "REGISTRY_UNREACHABLE")

    def test_not_found(self):
        self.fails("none", self.plain.ref("no/such", "1"), "IMAGE_NOT_FOUND")

    def test_no_build_for_this_arch(self):
        image = oci.Image([images.base_layer()], images.CONFIG, architecture="arm64")
        ref = self.plain.push_index([image], oci.index_of([image]), "arm")
        self.fails("arm", ref, "ARCH_UNAVAILABLE")

    def test_wrong_content(self):
        image = images.tiny(marker="flipped")
        oci.write_layout(self.layout, image, "flipped")
        self.faulty.clear()
        self.faulty.fault(image.layers[0].digest, "flip")
        self.fails("flipped", f"{self.faulty.host}/team/app:flipped", "DIGEST_MISMATCH")
        self.faulty.clear()

    def test_an_unknown_layer(self):
        layer = images.base_layer()
        layer.media_type = "application/vnd.example.odd"
        ref = self.plain.push(oci.Image([layer], images.CONFIG), "odd")
        self.fails("odd", ref, "LAYER_UNSUPPORTED")

    def test_too_large(self):
        big = oci.TarBuilder().file("big", os.urandom(20 << 20)).bytes()
        ref = self.plain.push(images.tiny(extra_layers=[big], marker="big"), "big")
        message = self.fails("big", ref, "SIZE_CAP_EXCEEDED", size_mib=16)
        self.assertRegex(message, r"\d+ MiB")

    def test_more_entries_than_its_memory_holds(self):
        """The bake has 256 MiB here (the least that can be set); its tables take more."""
        header = bytearray(oci.TarBuilder().file("x" * 100).bytes()[:512])
        rest = sum(header[100:148]) + sum(header[156:]) + 8 * 32
        tar = bytearray()
        for number in range(ENTRIES):
            name = b"%08d" % number + b"n" * 92
            header[:100] = name
            header[148:156] = b"%06o\0 " % (rest + sum(name[:8]) + 92 * 110)
            tar += header
        ref = self.plain.push(images.tiny(extra_layers=[bytes(tar) + bytes(1024)], marker="many"), "many")
        self.fails("many", ref, "OUT_OF_MEMORY", size_mib=4096)

    def test_no_tar_folder(self):
        image = self.data("POST", "/images", {"name": "tar", "size_mib": 64,
                                              "build_source": {"kind": "tar", "path": "/etc/passwd"}}, 201)
        self.c.attach(self.group, image["id"])
        self.failed("tar", "SOURCE_NOT_READABLE")

    def test_progress_tells_rate_and_eta(self):
        big = oci.TarBuilder().file("big", os.urandom(6 << 20)).bytes()
        image = images.tiny(extra_layers=[big], marker="slow")
        oci.write_layout(self.layout, image, "slow")
        self.faulty.clear()
        self.faulty.fault("/blobs/", "drip", every=0.05, bytes=64 << 10)
        registered = self.register("slow", f"{self.faulty.host}/team/app:slow")
        self.c.attach(self.group, registered["id"])

        def under_way():
            view = self.data("GET", "/images/slow/cache")
            return view[0] if view and view[0]["status"] == "building" and view[0]["eta_s"] else None
        seen = processes.wait_until(under_way, "a rate and what is left", 60, 0.1)
        self.assertEqual((seen["stage"], seen["source"], seen["attempt"]), ("pulling", "registry", 1))
        self.assertGreater(seen["bytes_total"], seen["bytes_done"])
        self.assertGreater(seen["rate_bytes_per_s"], 0)
        self.assertIsNone(seen["error"])
        self.faulty.clear()
        done = self.ready("slow")
        self.assertIsNone(done["eta_s"])
        row("a row under way", f"{seen['stage']}, {seen['bytes_done']} of {seen['bytes_total']} B, "
            f"{seen['rate_bytes_per_s']} B/s, {seen['eta_s']:.1f} s left")


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
