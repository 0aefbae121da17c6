#!/usr/bin/python3
"""Wrong input: each kind answers with its own code and a message that names the remedy."""

import gzip
import os
import re
import unittest

import httpx

from harness import case, images, processes
from harness.cluster import MODULE

import oci

GOOD = {"name": "x", "build_source": {"kind": "oci", "ref": "127.0.0.1:1/x:1"}, "size_mib": 64}


class RequestTest(case.ClusterTest):
    AGENTS = 0

    def raw(self, body, path="/images", content_type="application/json", key=None):
        answer = httpx.post(self.c.controller.host + MODULE + path, content=body, timeout=10, headers={
            "Authorization": f"Bearer {key or self.c.controller.key}", "Content-Type": content_type})
        document = answer.json()
        self.assertEqual(document["status"], "error", document)
        self.assertRegex(document["meta"]["request_id"], "^req_")
        return answer.status_code, document["error"]["code"], document["error"]

    def refuse(self, body, status, code, *words, path="/images"):
        got_status, got_code, message = self.c.error("POST", path, body)
        self.assertEqual((got_status, got_code), (status, code), message)
        for word in words:
            self.assertIn(word, message)
        return message

    def test_keys(self):
        url = self.c.controller.host + MODULE + "/images"
        none = httpx.get(url)
        self.assertEqual((none.status_code, none.json()["error"]["code"]), (401, "AUTH_TOKEN_MISSING"))
        self.assertIn("Authorization", none.json()["error"]["message"])
        for bad in ("Bearer sgk_" + "A" * 43, "Bearer x", "Basic x"):
            answer = httpx.get(url, headers={"Authorization": bad})
            self.assertEqual(answer.status_code, 401, bad)
            self.assertIn(answer.json()["error"]["code"], ("AUTH_TOKEN_INVALID", "AUTH_TOKEN_MISSING"))

    def test_unknown_things(self):
        self.assertEqual(self.c.error("GET", "/images/no-such")[:2], (404, "NOT_FOUND"))
        self.assertEqual(self.c.error("POST", "/bunkers", {"image": "no-such"})[:2], (404, "NOT_FOUND"))
        self.assertEqual(self.c.error("GET", "/nowhere")[:2], (404, "NOT_FOUND"))
        self.assertEqual(self.c.error("PUT", "/images")[:2], (405, "METHOD_NOT_ALLOWED"))

    def test_a_taken_name(self):
        self.c.post("/images", {**GOOD, "name": "taken"})
        message = self.refuse({**GOOD, "name": "taken"}, 409, "SLUG_CONFLICT", "taken")
        self.assertIn("name", message)
        self.c.call("DELETE", "/images/taken", expect=200)
        self.refuse({**GOOD, "name": "taken"}, 409, "SLUG_CONFLICT")

    def test_fields(self):
        self.refuse({**GOOD, "colour": "red"}, 422, "VALIDATION_ERROR", "colour")
        self.refuse({**GOOD, "size_mib": "64"}, 422, "VALIDATION_ERROR", "size_mib")
        self.refuse({**GOOD, "size_mib": 15}, 422, "VALIDATION_ERROR", "size_mib", "16")
        self.refuse({**GOOD, "sizeMib": 64}, 422, "VALIDATION_ERROR", "sizeMib")
        self.refuse({"name": "x", "size_mib": 64}, 422, "VALIDATION_ERROR", "build_source")
        self.refuse({**GOOD, "name": "Not A Name"}, 422, "VALIDATION_ERROR", "name")
        self.refuse({**GOOD, "name": "img_x"}, 422, "VALIDATION_ERROR", "name")
        self.refuse({**GOOD, "scope": "galaxy"}, 422, "VALIDATION_ERROR", "scope")
        self.refuse({**GOOD, "build_source": {"kind": "oci"}}, 422, "VALIDATION_ERROR", "ref")

    def test_json(self):
        for body in (b"{", b"", b'{"name":"a","name":"b"}', b"[1]", b"{'name':'a'}", b'{"name":"a",}',
                     b"[" * 100, b"\xff\xfe", b'{"name":"\xff"}'):
            status, code, error = self.raw(body)
            self.assertEqual((status, code), (422, "VALIDATION_ERROR"), (body[:30], error))
        self.assertIn("name", str(self.raw(b'{"name":"a","name":"b"}')[2]))
        self.assertEqual(self.raw(b"<x/>", content_type="application/xml")[:2], (415, "UNSUPPORTED_MEDIA_TYPE"))
        self.assertEqual(self.raw(b" " * (9 << 20))[:2], (413, "PAYLOAD_TOO_LARGE"))

    def test_fields_of_a_bunker_and_what_is_not_available(self):
        self.refuse({**GOOD, "pull_secret": "s"}, 422, "VALIDATION_ERROR", "pull_secret", "registry-credentials")
        self.c.post("/images", {**GOOD, "name": "mains"})
        for main, field in (({"restart": "sometimes"}, "main.restart"), ({"command": 5}, "main.command"),
                            ({"restrat": "always"}, "restrat")):
            self.refuse({"image": "mains", "main": main}, 422, "VALIDATION_ERROR", field, path="/bunkers")

    def test_profiles_that_are_closed(self):
        self.c.post("/images", {**GOOD, "name": "closed"})
        status, code, message = self.c.error("POST", "/bunkers", {"image": "closed", "network_profile": "transit"})
        self.assertEqual((status, code), (422, "TRANSIT_MISSING_INTERFACES"), message)
        card = [{"if_name": "eth0", "bridge_name": "br-none"}]
        status, code, message = self.c.error("POST", "/bunkers", {"image": "closed", "network_profile": "transit",
                                                                  "interfaces": card})
        self.assertEqual((status, code), (404, "NOT_FOUND"), message)
        self.refuse({"image": "closed", "network_allowlist": ["example.com"]}, 422, "VALIDATION_ERROR",
                    "network_allowlist", path="/bunkers")

    def test_paging_and_idempotency(self):
        for number in range(5):
            self.c.post("/availability-groups", {"name": f"page-{number}"})
        first = self.c.call("GET", "/availability-groups?limit=2").json()
        self.assertEqual((len(first["data"]), first["has_more"]), (2, True))
        second = self.c.call("GET", f"/availability-groups?limit=2&cursor={first['next_cursor']}").json()
        self.assertFalse({x["id"] for x in first["data"]} & {x["id"] for x in second["data"]})
        self.assertEqual(self.c.error("GET", "/availability-groups?cursor=nonsense")[1], "VALIDATION_ERROR")
        self.assertEqual(self.c.error("GET", "/availability-groups?limit=1000")[1], "VALIDATION_ERROR")
        key = {"Idempotency-Key": "once"}
        one = self.c.post("/availability-groups", {"name": "idem"}, headers=key)
        self.assertEqual(self.c.post("/availability-groups", {"name": "idem"}, headers=key)["id"], one["id"])
        clash = self.c.error("POST", "/availability-groups", {"name": "other"}, headers=key)
        self.assertEqual(clash[:2], (409, "IDEMPOTENCY_CONFLICT"))


class SourceTest(case.ClusterTest):
    """Errors that a registration can't know and its cache row shows."""

    def failed_row(self, name, build_source, size_mib=256, expect_code=None):
        row = self.c.post("/images", {"name": name, "build_source": build_source, "size_mib": size_mib})
        self.c.group("g-" + name, images=[row["id"]])
        view = self.c.wait_cache(row["id"], status="failed", seconds=120)
        error = view[0]["error"]
        self.assertEqual(error["code"], expect_code, error)
        self.c.call("DELETE", f"/images/{row['id']}", expect=200)
        return error["message"]

    def oci(self, ref):
        return {"kind": "oci", "ref": ref}

    def test_registry_down(self):
        port = processes.free_port()
        message = self.failed_row("down", self.oci(f"127.0.0.1:{port}/x:1"), expect_code="REGISTRY_UNREACHABLE")
        self.assertIn(str(port), message)

    def test_tag_missing(self):
        self.c.registry.push(images.tiny(), "here")
        message = self.failed_row("tagless", self.oci(self.c.registry.ref("here", "nope")),
                                  expect_code="IMAGE_NOT_FOUND")
        self.assertIn("nope", message)

    def test_too_small_a_cap_says_what_it_needs(self):
        big = oci.TarBuilder().file("big", os.urandom(40 << 20)).bytes()
        ref = self.c.registry.push(images.tiny(extra_layers=[big], marker="cap"), "cap")
        message = self.failed_row("cap", self.oci(ref), size_mib=16, expect_code="SIZE_CAP_EXCEEDED")
        self.assertRegex(message, r"\d+ MiB")
        needed = max(int(x) for x in re.findall(r"(\d+) MiB", message))
        self.assertGreaterEqual(needed, 42)
        row = self.c.register("cap-enough", ref, size_mib=needed)
        self.c.group("cap-enough", images=[row["id"]])
        self.c.wait_cache(row["id"])

    def damaged(self, name, damage):
        # A layer of its own, that no other image shares.
        own = oci.TarBuilder().file(name, os.urandom(300_000)).bytes()
        image = images.tiny(extra_layers=[own], marker=name)
        ref = self.c.registry.push(image, name)
        path = self.c.registry.blob_path(image.layers[1].digest)
        with open(path, "rb") as source:
            data = bytearray(source.read())
        with open(path, "wb") as out:
            out.write(damage(data))
        return ref

    def test_a_layer_with_a_wrong_digest(self):
        def flip(data):
            data[len(data) // 2] ^= 1
            return data
        message = self.failed_row("flipped", self.oci(self.damaged("flipped", flip)), expect_code="DIGEST_MISMATCH")
        self.assertIn("sha256:", message)

    def test_a_truncated_layer(self):
        ref = self.damaged("short", lambda data: data[:-1000])
        self.failed_row("short", self.oci(ref), expect_code="LAYER_CORRUPT")

    def test_a_wrong_diff_id(self):
        layers = [images.base_layer(lambda x: x.file("etc/diff", "1"))]
        image = oci.Image(layers, images.CONFIG, diff_ids=["sha256:" + "0" * 64])
        ref = self.c.registry.push(image, "diffid")
        self.failed_row("diffid", self.oci(ref), expect_code="LAYER_CORRUPT")

    def test_a_wrong_architecture(self):
        image = oci.Image([images.base_layer()], images.CONFIG, architecture="arm64")
        ref = self.c.registry.push_index([image], oci.index_of([image]), "arm")
        self.failed_row("arm", self.oci(ref), expect_code="ARCH_UNAVAILABLE")

    def test_the_agent_lives_and_works_on(self):
        self.c.ready_image("after-all", images.tiny(marker="after-all"))
        self.assertTrue(self.c.agents[0].daemon.alive())


class TarSourceTest(case.ClusterTest):
    AGENTS = 0

    def test_tar_sources(self):
        allowed = os.path.join(self.c.folder, "tars")
        tenant = self.tenant()
        own = os.path.join(allowed, tenant)
        os.makedirs(own)
        with open(os.path.join(own, "rootfs.tar"), "wb") as out:
            out.write(self.tarball())
        with open(os.path.join(self.c.folder, "outside.tar"), "wb") as out:
            out.write(self.tarball())
        os.symlink(os.path.join(self.c.folder, "outside.tar"), os.path.join(own, "link.tar"))
        self.c.add_agent("tarry", {"images": {"tar_root": allowed}})
        self.c.wait_online(1)
        self.ok("good", os.path.join(own, "rootfs.tar"))
        for name, path in (("outside", os.path.join(self.c.folder, "outside.tar")), ("etc", "/etc/passwd"),
                           ("dots", os.path.join(own, "../../outside.tar")), ("link", os.path.join(own, "link.tar")),
                           ("missing", os.path.join(own, "none.tar"))):
            self.refused(name, path)

    def tenant(self):
        return self.c.register("probe", "127.0.0.1:1/x:1")["tenant_id"]

    def tarball(self):
        return gzip.decompress(images.base_layer(lambda x: x.file("etc/marker", "tar")).blob)

    def ok(self, name, path):
        row = self.c.post("/images", {"name": name, "build_source": {"kind": "tar", "path": path}, "size_mib": 64})
        self.c.group("t-" + name, images=[row["id"]])
        self.c.wait_cache(row["id"])

    def refused(self, name, path):
        answer = self.c.call("POST", "/images", {"name": "t" + name, "size_mib": 64,
                                                 "build_source": {"kind": "tar", "path": path}})
        if answer.status_code == 422:
            return  # refused at the door is as good
        row = answer.json()["data"]
        self.c.group("t-" + name, images=[row["id"]])
        view = self.c.wait_cache(row["id"], status="failed")
        self.assertEqual(view[0]["error"]["code"], "SOURCE_NOT_READABLE", view)


if __name__ == "__main__":
    unittest.main(verbosity=2)
