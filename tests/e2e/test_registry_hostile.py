#!/usr/bin/python3
"""The puller against documents that were made to deceive or to exhaust it, and against answers that
never end. Each row prints one line; canaries count what must not be asked for."""

import json
import random
import time
import unittest

from harness.puller import RegistryCase, listed, make_layout

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
MANIFEST, INDEX = OCI + "manifest.v1+json", OCI + "index.v1+json"
DOCKER_MANIFEST = DOCKER + "distribution.manifest.v2+json"
DOCKER_LIST = DOCKER + "distribution.manifest.list.v2+json"
GZIP_LAYER = OCI + "layer.v1.tar+gzip"
MIB = 1 << 20


class Hostile(RegistryCase):
    @classmethod
    def prepare(cls):
        cls.layout = cls.folder + "/image"
        cls.made = make_layout(cls.layout, "--layer", "gzip:a=one")

    def setUp(self):
        self.registry = self.scripted(self.layout)
        self.layer = {"mediaType": GZIP_LAYER, **{k: self.made["layers"][0][k] for k in ("digest", "size")}}
        self.diff_id = self.made["layers"][0]["diff_id"]

    def config(self, diff_ids=None, **more):
        return self.registry.put("blobs", {"architecture": "amd64", "os": "linux", "rootfs": {
            "type": "layers", "diff_ids": diff_ids or [self.diff_id]}, **more}, OCI + "config.v1+json")

    def manifest(self, **more):
        return {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.config(), "layers": [self.layer], **more}

    def pull(self, body, content_type=MANIFEST, **more):
        """Pulls a document of ours; (answer, requests for layers, seconds)."""
        self.registry.put("manifests", body, content_type, name="1")
        self.registry.clear()
        probe = self.probe([listed(self.registry.host)], **more)
        started = time.monotonic()
        answer = probe.pull(self.registry.ref())
        took = time.monotonic() - started
        layers = self.registry.count(self.layer["digest"])
        if not answer["ok"]:
            self.assertEqual(probe.kept(), [])
        probe.close()
        return answer, layers, took

    def refuse(self, number, case, body, reason, content_type=MANIFEST, words=""):
        answer, layers, took = self.pull(body, content_type)
        self.bad(answer, reason, words)
        self.assertEqual(layers, 0)
        self.assertLess(took, 5)
        self.row(number, case, f"{reason}, 0 layers asked for")

    def test_g1_confusion(self):
        entry = self.registry.put("manifests", self.manifest(), MANIFEST)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}
        both = self.manifest(manifests=index["manifests"])
        for content_type in (MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST, "application/json", ""):
            for claimed in (content_type or MANIFEST, None):
                body = {k: v for k, v in {**both, "mediaType": claimed}.items() if v is not None}
                answer, layers, _ = self.pull(body, content_type)
                self.assertFalse(answer["ok"])
                self.assertIn(answer["reason"], ("LAYER_CORRUPT", "LAYER_UNSUPPORTED"))
                self.assertEqual(layers, 0)
        self.row("G1", "layers and manifests in one document, 6 types, with and without mediaType", "12 of 12 refused")
        plain = {k: v for k, v in self.manifest().items() if k != "mediaType"}
        table = [
            ("mediaType is an index's, Content-Type a manifest's", self.manifest(mediaType=INDEX), MANIFEST),
            ("mediaType is Docker's, Content-Type OCI's", self.manifest(mediaType=DOCKER_MANIFEST), MANIFEST),
            ("a manifest sent as an index", plain, INDEX),
            ("an index sent as a manifest", {k: v for k, v in index.items() if k != "mediaType"}, MANIFEST),
            ("config and manifests", {**index, "config": entry}, INDEX),
            ("fsLayers beside layers", self.manifest(fsLayers=[]), MANIFEST),
            ("mediaType twice", json.dumps(self.manifest())[:-1].encode() + b',"mediaType":"' + MANIFEST.encode() + b'"}', MANIFEST),
            ("layers twice", json.dumps(self.manifest())[:-1].encode() + b',"layers":[]}', MANIFEST),
            ("mediaType is a list", self.manifest(mediaType=[MANIFEST]), MANIFEST),
            ("schemaVersion 3", self.manifest(schemaVersion=3), MANIFEST),
            ("not JSON", b"<html>", MANIFEST),
            ("JSON, then more", json.dumps(self.manifest()).encode() + b"{}", MANIFEST),
        ]
        for case, body, content_type in table:
            self.refuse("G1", case, body, "LAYER_CORRUPT", content_type)
        lying = {**index, "manifests": [{**index["manifests"][0], "mediaType": INDEX}]}
        self.refuse("G1", "an index lists a manifest as an index", lying, "LAYER_CORRUPT", INDEX)
        for case, body, content_type in (
                ("an artefact's manifest", self.manifest(config={**self.config(), "mediaType": "application/vnd.x.y"}), MANIFEST),
                ("an empty config", self.manifest(config={**self.config(), "mediaType": "application/vnd.oci.empty.v1+json"}), MANIFEST),
                ("text/html", self.manifest(), "text/html"),
                ("schema 1 by its Content-Type", {"schemaVersion": 1}, DOCKER + "distribution.manifest.v1+prettyjws"),
                ("schema 1 by what is in it", {"schemaVersion": 1, "fsLayers": []}, "application/json")):
            self.refuse("G1", case, body, "LAYER_UNSUPPORTED", content_type)

    def test_g1_what_is_right(self):
        """The same forms without a contradiction are taken: refusing all would pass the rows above."""
        plain = {k: v for k, v in self.manifest().items() if k != "mediaType"}
        extras = self.manifest(annotations={"a": "b"}, subject=self.layer, artifactType="application/x")
        extras["layers"] = [{**self.layer, "annotations": {"x": "y"}, "data": "bm90IGl0"}]
        for case, body, content_type in (
                ("mediaType = Content-Type", self.manifest(), MANIFEST),
                ("no mediaType, as umoci writes it", plain, MANIFEST), ("no Content-Type", self.manifest(), ""),
                ("charset in Content-Type", self.manifest(), MANIFEST + "; charset=utf-8"),
                ("application/json", self.manifest(), "application/json"),
                ("annotations, subject, artifactType, embedded data", extras, MANIFEST)):
            answer, layers, _ = self.pull(body, content_type)
            self.good(answer)
            self.assertEqual(layers, 1)
            self.row("G1", "taken: " + case, "pulled")

    def test_g2_digests(self):
        good = self.layer["digest"]
        wrong = ["", "sha256:", good[:-1], good + "0", good.upper(), "sha256:" + good[7:].upper(), good[7:],
                 "sha512:" + "a" * 128, "md5:" + "a" * 32, "sha256:../../../../etc/passwd", "sha256:" + "/" * 64,
                 good + "\n", good + "\0", " " + good, "sha256:" + "%2e" * 21 + "x", "sha256:" + "g" * 64,
                 "sha256:" + good[7:] + "?x=y", "https://127.0.0.1/" + good, None, 7, ["x"], {}]
        rng = random.Random(1)
        wrong += ["".join(chr(rng.choice([rng.randrange(1, 128), rng.randrange(0x80, 0x300)])) for _ in range(
            rng.randrange(1, 90))) for _ in range(40)]
        places = (lambda x: self.manifest(layers=[{**self.layer, "digest": x}]),
                  lambda x: self.manifest(config={**self.config(), "digest": x}),
                  lambda x: {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
                      "mediaType": MANIFEST, "digest": x, "size": 9, "platform": {"os": "linux", "architecture": "amd64"}}]})
        probe = self.probe([listed(self.registry.host)])
        for text in wrong:
            for i, place in enumerate(places):
                self.registry.put("manifests", place(text), INDEX if i == 2 else MANIFEST, name="1")
                self.registry.clear()
                self.bad(probe.pull(self.registry.ref()), "LAYER_CORRUPT")
                self.assertEqual(self.registry.count(), 1, "nothing but the document was asked for")
        self.row("G2", f"{len(wrong)} digests that are none, for a layer, config and manifest",
                 f"{3 * len(wrong)} of {3 * len(wrong)} refused before any use")
        refused = [x for x in wrong if isinstance(x, str) and x and "\0" not in x]
        for text in refused:
            self.bad(probe.pull(f"{self.registry.host}/app@{text}"), "IMAGE_NOT_FOUND")
        self.row("G2", f"{len(refused)} of them in a reference", "refused, nothing asked for")
        for size in (-1, 1.5, "9", None, 1 << 51, 1 << 63, 1e300, True):
            answer, layers, _ = self.pull(self.manifest(layers=[{**self.layer, "size": size}]))
            self.bad(answer, "LAYER_CORRUPT")
            self.assertEqual(layers, 0)
        self.row("G2", "8 sizes that are none", "refused")
        twice = self.manifest(config=self.config([self.diff_id] * 2),
                              layers=[self.layer, {**self.layer, "size": self.layer["size"] + 1}])
        self.refuse("G2", "one digest, two sizes", twice, "LAYER_CORRUPT")
        for case, size, reason in (("one byte less than it has", -1, "DIGEST_MISMATCH"), ("one more", 1, "LAYER_CORRUPT")):
            answer, _, _ = self.pull(self.manifest(layers=[{**self.layer, "size": self.layer["size"] + size}]))
            self.bad(answer, reason)
            self.row("G2", "layer declared with " + case, f"{reason}, not kept")
        answer, _, _ = self.pull(self.manifest(layers=[{**self.layer, "size": 1 << 49}]))
        self.bad(answer, "DISK_FULL")
        self.row("G2", "layer declared with 512 TiB", "DISK_FULL before a byte is asked for")

    def test_g3_foreign_layers(self):
        canary = self.scripted(self.layout)
        probe = self.probe([listed(self.registry.host), listed(canary.host)])
        for media_type, taken in ((GZIP_LAYER, True), (DOCKER + "image.rootfs.foreign.diff.tar.gzip", False),
                                  (OCI + "layer.nondistributable.v1.tar+gzip", False)):
            layer = {**self.layer, "mediaType": media_type, "urls": [
                f"{canary.url}/v2/x/blobs/{self.layer['digest']}", f"http://169.254.169.254/{canary.port}"]}
            self.registry.put("manifests", self.manifest(layers=[layer]), MANIFEST, name="1")
            answer = probe.pull(self.registry.ref())
            if taken:
                self.good(answer)
            else:
                self.bad(answer, "LAYER_UNSUPPORTED", "never fetched")
            self.assertEqual(canary.count(), 0)
            self.row("G3", f"urls on {media_type[16:]}"[:66],
                     ("pulled from the registry itself" if taken else "LAYER_UNSUPPORTED") + ", canary 0 requests")

    def test_g7_size(self):
        self.registry.fault("/manifests/", "endless", bytes=1 << 30)
        probe = self.probe([listed(self.registry.host)])
        base = probe.pull("127.0.0.1:1/x")["peak_rss_kib"]
        answer = self.bad(probe.pull(self.registry.ref()), "LAYER_UNSUPPORTED")
        grown = answer["peak_rss_kib"] - base
        sent = self.registry.sent("/manifests/")
        self.assertLess(sent, 24 * MIB)
        self.assertLess(grown, 64 << 10)
        self.row("G7", "an endless manifest, chunked, 1 GiB offered",
                 f"LAYER_UNSUPPORTED after {sent / MIB:.1f} MiB, RSS +{grown >> 10} MiB")
        self.registry.clear()
        self.refuse("G7", "a manifest of 4 MiB and 1 byte", b" " * (4 * MIB + 1), "LAYER_UNSUPPORTED")
        for case, filler in (("2 million values", b"0," * (2 * MIB - 100)), ("brackets", b"[" * (4 * MIB - 100)),
                             ("objects", b"{}," * (MIB)), ("an open string", b'"' + b"x" * (4 * MIB - 100))):
            self.registry.put("manifests", b'{"schemaVersion":2,"layers":[' + filler, MANIFEST, name="1")
            answer = self.bad(probe.pull(self.registry.ref()), "LAYER_CORRUPT")
            self.assertLess(answer["peak_rss_kib"] - base, 96 << 10)
            self.row("G7", f"a manifest of 4 MiB: {case}", f"LAYER_CORRUPT, peak RSS +{(answer['peak_rss_kib'] - base) >> 10} MiB")
        many = self.config([self.diff_id] * 10_000)
        self.refuse("G7", "10,000 layers", self.manifest(config=many, layers=[self.layer] * 10_000), "LAYER_CORRUPT")
        many = self.config([self.diff_id] * 2_000)
        self.refuse("G7", "2,000 layers", self.manifest(config=many, layers=[self.layer] * 2_000), "LAYER_UNSUPPORTED")
        self.refuse("G7", "257 layers", self.manifest(layers=[self.layer] * 257), "LAYER_UNSUPPORTED")
        full = self.config([self.diff_id] * 256)
        answer, layers, _ = self.pull(self.manifest(config=full, layers=[self.layer] * 256))
        self.good(answer)
        self.assertEqual(layers, 1)
        self.row("G7", "256 layers of one digest", "pulled with 1 request")
        self.refuse("G7", "10,000 platforms", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {**self.layer, "mediaType": MANIFEST}] * 10_000}, "LAYER_CORRUPT", INDEX)
        self.refuse("G7", "1,025 platforms", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {**self.layer, "mediaType": MANIFEST}] * 1025}, "LAYER_UNSUPPORTED", INDEX)

    def test_g7_nesting(self):
        platform = {"platform": {"os": "linux", "architecture": "amd64"}}
        entry = self.registry.put("manifests", self.manifest(), MANIFEST)
        for depth in range(1, 5):
            body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**entry, **platform}]}
            answer, layers, _ = self.pull(body, INDEX)
            if depth <= 2:
                self.good(answer)
            else:
                self.bad(answer, "LAYER_UNSUPPORTED", "nested")
                self.assertEqual(layers, 0)
            self.row("G7", f"indexes nested {depth} deep", "pulled" if depth <= 2 else "LAYER_UNSUPPORTED")
            entry = self.registry.put("manifests", body, INDEX)

    def test_g7_answers(self):
        table = [("/manifests/", "gzip", {}, "LAYER_CORRUPT", "a manifest with Content-Encoding: gzip"),
                 ("/manifests/", "header_lines", {"count": 1000}, "LAYER_UNSUPPORTED", "1,000 header lines (100 KB)"),
                 ("/manifests/", "header_line", {"bytes": 60_000}, "", "one header line of 60 KB"),
                 ("/manifests/", "header_line", {"bytes": 300_000}, "LAYER_UNSUPPORTED", "one header line of 300 KB"),
                 ("/manifests/", "header_line", {"bytes": 30 * MIB}, "LAYER_UNSUPPORTED", "one header line of 30 MiB"),
                 (self.made["config"], "gzip", {}, "LAYER_CORRUPT", "a config with Content-Encoding: gzip"),
                 (self.made["config"], "chunked", {"extra": 9}, "DIGEST_MISMATCH", "a config longer than declared, chunked"),
                 (self.made["config"], "pad", {}, "DIGEST_MISMATCH", "a config longer than declared"),
                 (self.made["config"], "endless", {"bytes": 1 << 30}, "DIGEST_MISMATCH", "an endless config"),
                 ("/manifests/", "status", {"code": 500, "body": "x" * MIB}, "REGISTRY_UNREACHABLE", "an error page of 1 MiB"),
                 ("/manifests/", "status", {"code": 200, "body": ""}, "LAYER_CORRUPT", "an empty manifest"),
                 ("/manifests/", "status", {"code": 204, "body": ""}, "REGISTRY_UNREACHABLE", "204 for a manifest"),
                 ("/manifests/", "nodigest", {}, "", "no Docker-Content-Digest")]
        for match, kind, more, reason, case in table:
            self.registry.clear()
            self.registry.fault(match, kind, **more)
            probe = self.probe([listed(self.registry.host)])
            answer = probe.pull(self.registry.ref())
            self.assertEqual(answer.get("reason", ""), reason, f"{case}: {answer}")
            self.assertLess(answer["peak_rss_kib"], 160 << 10)
            self.assertLess(len(answer.get("message", "")), 1000)
            self.row("G7", case, f"{reason or 'pulled'}, peak RSS {answer['peak_rss_kib'] >> 10} MiB")

    def test_g8_poison(self):
        """What one registry sends under a digest is not what another's pull gets."""
        liar, honest = self.scripted(self.layout), self.registry
        liar.fault(self.layer["digest"], "flip")
        probe = self.probe([listed(liar.host), listed(honest.host)])
        self.bad(probe.pull(liar.ref()), "DIGEST_MISMATCH")
        self.assertEqual((probe.kept(), probe.partial()), ([], []))
        self.good(probe.pull(honest.ref()))
        self.row("G8", "a registry sends other content under a layer's digest", "nothing kept; the next registry's is right")
        probe = self.probe([listed(liar.host), listed(honest.host)])
        liar.clear()
        liar.fault(self.layer["digest"], "flip")
        answers = probe.pull_all([liar.ref()] * 5 + [honest.ref()] * 5)
        self.assertEqual([x["ok"] for x in answers[5:]], [True] * 5)
        wrong = [x for x in answers[:5] if not x["ok"]]
        self.assertTrue(all(x["reason"] == "DIGEST_MISMATCH" for x in wrong), wrong)
        self.row("G8", "both at once, 5 pulls each", f"all right content, or DIGEST_MISMATCH ({len(wrong)}, the liar's)")

    def test_platforms(self):
        entries = {}
        for variant in ("", "v1", "v2", "v3"):
            body = self.manifest(annotations={"v": variant})
            entries[variant] = {**self.registry.put("manifests", body, MANIFEST), "platform": {
                "os": "linux", "architecture": "amd64", **({"variant": variant} if variant else {})}}
        odd = {**entries[""], "platform": {"os": "linux", "architecture": "x86_64"}}
        windows = {**entries["v2"], "platform": {"os": "windows", "architecture": "amd64"}}
        proof = {**entries["v3"], "platform": {"os": "unknown", "architecture": "unknown"},
                 "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        bare = {k: v for k, v in entries["v1"].items() if k != "platform"}
        table = [("v3, none", ["v3", ""], ""), ("v3, v2, v1", ["v3", "v2", "v1"], "v1"), ("v1, none", ["v1", ""], ""),
                 ("v2, v3", ["v2", "v3"], None), ("windows, none", [windows, ""], ""), ("an attestation alone", [proof], None),
                 ("attestation, no platform at all", [proof, bare], "v1"), ("x86_64", [odd], ""), ("windows alone", [windows], None)]
        for case, chosen, want in table:
            body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [
                entries[x] if isinstance(x, str) else x for x in chosen]}
            answer, _, _ = self.pull(body, INDEX)
            if want is None:
                self.bad(answer, "ARCH_UNAVAILABLE")
            else:
                self.assertEqual(self.good(answer)["manifest"], entries[want]["digest"])
                self.assertEqual(answer["arch"], "amd64")
            self.row("P10", f"an index offers for amd64: {case}", "ARCH_UNAVAILABLE" if want is None else f"takes {want or 'the one without a variant'}")

    def test_fuzz(self):
        """Mutated documents: each is refused with a code or pulled; the puller lives."""
        rng = random.Random(7)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**self.registry.put(
            "manifests", self.manifest(), MANIFEST), "platform": {"os": "linux", "architecture": "amd64"}}]}
        probe = self.probe([listed(self.registry.host)])
        seen = {}
        for i in range(300):
            content_type, document = (MANIFEST, self.manifest()) if i % 2 else (INDEX, index)
            body = bytearray(json.dumps(document).encode())
            for _ in range(rng.randrange(1, 6)):
                at = rng.randrange(len(body))
                body[at:at + rng.randrange(0, 9)] = rng.randbytes(rng.randrange(0, 9))
            self.registry.put("manifests", bytes(body), content_type, name="1")
            answer = probe.pull(self.registry.ref())
            self.assertTrue(answer["ok"] or answer["reason"], answer)
            seen[answer.get("reason", "pulled")] = seen.get(answer.get("reason", "pulled"), 0) + 1
        self.row("G1 G2", "300 mutated manifests and indexes", ", ".join(f"{v} {k}" for k, v in sorted(seen.items())))


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
