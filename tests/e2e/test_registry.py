#!/usr/bin/python3
"""The puller against Debian's docker-registry: both families of manifests as another tool pushes
them, every way to sign in, TLS, proxies, and cuts on the wire. Each row prints one line."""

import base64
import json
import os
import socket
import time
import unittest
import warnings

from harness import processes
from harness.puller import Probe, Refused, RegistryCase, listed, make_layout
from harness.registry import Registry
from harness.token_server import TokenServer, make_authority
from harness.wire import ForwardProxy, Relay

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a later Python has it no more; Debian 12's has
    import crypt

BIG = 6_000_000
POINTS = int(os.environ.get("BUNKER_REGISTRY_POINTS", "1"))  # of a transfer where it is cut


def htpasswd(folder, users):
    path = os.path.join(folder, f"htpasswd-{len(os.listdir(folder))}")
    with open(path, "w", encoding="utf-8") as out:
        for name, password in users.items():
            out.write(name + ":" + crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)) + "\n")
    return path


class RealRegistry(RegistryCase):
    @classmethod
    def prepare(cls):
        cls.layout = os.path.join(cls.folder, "image")
        cls.made = make_layout(cls.layout, "--layer", f"gzip:etc/base=one,big=@{BIG}", "--layer",
                               "tar:etc/two=two", "--layer", "zstd:etc/three=three")
        cls.ca, cls.certificate, cls.key = make_authority(
            os.path.join(cls.folder, "tls"), "registry", names=("registry.test",))
        cls.plain = cls.start_registry("plain")
        cls.push(cls.plain, "app:1", "--preserve-digests")

    @classmethod
    def start_registry(cls, name, **more):
        registry = Registry(os.path.join(cls.folder, name), **more)
        registry.start()
        cls.stack.append(registry.stop)
        return registry

    @classmethod
    def push(cls, registry, name, *options, source=None, creds=None):
        if creds:
            options += ("--dest-creds", creds)
        processes.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", *options,
                       source or f"oci:{cls.layout}:latest", f"docker://{registry.host}/{name}"])

    def test_01_families(self):
        """What skopeo pushes in every form is one image: the same diff ids."""
        plain = os.path.join(self.folder, "plain-layers")
        make_layout(plain, "--layer", "tar:a=@200000", "--layer", "tar:b=two")
        source = f"oci:{plain}:latest"
        zstd = f"oci:{self.folder}/zstd-layers:latest"
        processes.run(["skopeo", "copy", "-q", "--dest-compress-format", "zstd", source, zstd])
        forms = {"oci-gzip": (source, "--format", "oci"), "v2s2-gzip": (source, "--format", "v2s2"),
                 "oci-zstd": (zstd, "--preserve-digests")}
        seen = {}
        probe = self.probe([listed(self.plain.host)])
        for name, (origin, *options) in forms.items():
            self.push(self.plain, f"families:{name}", *options, source=origin)
            answer = self.good(probe.pull(f"{self.plain.host}/families:{name}"))
            seen[name] = [(x["diff_id"], x["compression"]) for x in answer["layers"]]
            self.assertEqual({x[1] for x in seen[name]}, {name.split("-")[1]})
        self.assertEqual({tuple(x[0] for x in each) for each in seen.values()},
                         {tuple(x[0] for x in seen["oci-gzip"])})
        self.row("P1", "skopeo --format oci | v2s2, gzip | zstd",
                 "one image: " + ", ".join(f"{k} {v[0][1]}" for k, v in seen.items()))

    def test_02_indexes(self):
        for family, options in (("oci", ()), ("docker", ("--docker",))):
            layout = os.path.join(self.folder, "index-" + family)
            made = make_layout(layout, "--index", *options, "--layer", "gzip:a=" + family)
            self.plain.push_layout(layout, "index", family)
            answer = self.good(self.probe([listed(self.plain.host)]).pull(
                f"{self.plain.host}/index:{family}"))
            self.assertEqual((answer["index"], answer["manifest"]), (made["index"], made["manifest"]))
            self.bad(self.probe([listed(self.plain.host)]).pull(
                f"{self.plain.host}/index:{family}", arch="AARCH64"), "ARCH_UNAVAILABLE", "linux/s390x")
            self.row("P2", f"index of the {family} family", "the platform's manifest by its digest; others refused")

    def test_03_schema_1(self):
        registry = self.start_registry("schema1", extra="compatibility:\n  schema1:\n    enabled: true\n")
        layout = os.path.join(self.folder, "for-schema-1")
        make_layout(layout, "--layer", "gzip:a=b")
        self.push(registry, "old:1", "--format", "v2s1", source=f"oci:{layout}:latest")
        answer = self.bad(self.probe([listed(registry.host)]).pull(f"{registry.host}/old:1"),
                          "LAYER_UNSUPPORTED", "schema 1")
        self.assertIn("push the image again", answer["message"])
        self.row("P3", "skopeo --format v2s1", "LAYER_UNSUPPORTED: " + answer["message"][-70:])

    def test_04_sign_in(self):
        registry = self.start_registry("basic", htpasswd=htpasswd(self.folder, {
            "ada": "s3cret:pass", "_json_key": '{"type":"service_account","private_key":"a:b\\n=="}'}))
        self.push(registry, "app:1", creds="ada:s3cret:pass")
        table = [("anonymous, anyone may", self.plain, {}, ""),
                 ("basic, no credentials", registry, {}, "REGISTRY_AUTH_FAILED"),
                 ("basic, wrong password", registry, {"ada": "wrong"}, "REGISTRY_AUTH_FAILED"),
                 ("basic, right password", registry, {"ada": "s3cret:pass"}, ""),
                 ("basic, _json_key and one line of JSON in password_file", registry,
                  {"_json_key": '{"type":"service_account","private_key":"a:b\\n=="}'}, "")]
        for case, server, users, reason in table:
            entry = listed(server.host)
            for user, password in users.items():
                path = os.path.join(self.folder, "password")
                with open(path, "w", encoding="utf-8") as out:
                    out.write(password + "\n")
                entry.update(username=user, password_file=path)
            answer = self.probe([entry]).pull(f"{server.host}/app:1")
            self.assertEqual(answer.get("reason", ""), reason, answer)
            self.row("P4", case, reason or "pulled")

    def test_05_docker_config(self):
        registry = self.start_registry("docker-config", htpasswd=htpasswd(
            self.folder, {"ada": "one", "bob": "two"}))
        self.push(registry, "team/app:1", creds="ada:one")
        auth = lambda text: {"auth": base64.b64encode(text.encode()).decode()}
        host = registry.host
        table = [
            ("auth of the host", {host: auth("ada:one")}, ""),
            ("auth under https://host/v1/", {f"https://{host}/v1/": auth("ada:one")}, ""),
            ("auth padded with a NUL", {host: auth("ada:one\0")}, ""),
            ("username and password", {host: {"username": "ada", "password": "one"}}, ""),
            ("a prefix's entry wins over the host's",
             {host: auth("ada:wrong"), f"{host}/team": auth("bob:two")}, ""),
            ("the longest prefix wins",
             {f"{host}/team": auth("ada:wrong"), f"{host}/team/app": auth("bob:two")}, ""),
            ("another prefix's entry is not used", {f"{host}/tea": auth("ada:one")}, "REGISTRY_AUTH_FAILED"),
            ("another host's entry is not used", {"other.test": auth("ada:one")}, "REGISTRY_AUTH_FAILED"),
            ("wrong password", {host: auth("ada:wrong")}, "REGISTRY_AUTH_FAILED"),
        ]
        for case, auths, reason in table:
            probe = self.probe([listed(host)], credentials={"auths": auths})
            answer = probe.pull(f"{host}/team/app:1")
            self.assertEqual(answer.get("reason", ""), reason, f"{case}: {answer}")
            self.row("P5", "config.json: " + case, reason or "pulled")

    def test_06_credential_helpers(self):
        """A helper that would leave a mark is never run, and the refusal says what to do."""
        mark = os.path.join(self.folder, "helper-ran")
        helper = os.path.join(self.folder, "docker-credential-canary")
        with open(helper, "w", encoding="ascii") as out:
            out.write(f"#!/bin/sh\ntouch {mark}\n")
        os.chmod(helper, 0o755)
        for config in ({"credsStore": "canary"}, {"credHelpers": {self.plain.host: "canary"}},
                       {"auths": {self.plain.host: {}}, "credsStore": "canary"}):
            with self.assertRaises(Refused) as refusal:
                self.probe([listed(self.plain.host)], credentials=config,
                           env={"PATH": self.folder + ":" + os.environ["PATH"]})
            self.assertIn("never runs", str(refusal.exception))
        self.assertFalse(os.path.exists(mark))
        self.row("P6", "config.json: credsStore, credHelpers", "refused at start, helper run 0 times")
        for text in ("[]", "{", '{"auths":[]}', '{"auths":{"h.test":{"auth":"c2VjcmV0"}}}',
                     '{"auths":{"h.test":{"auth":"?"}}}', '{"auths":{"a b":{"auth":"YTpi"}}}',
                     '{"auths":{},"auths":{}}'):
            with self.assertRaises(Refused) as refusal:
                self.probe([], credentials=text)
            self.assertNotIn("secret", str(refusal.exception))
        self.row("P6", "config.json: damaged in 7 ways", "refused at start, nothing of it repeated")

    def test_07_tls(self):
        registry = self.start_registry("tls", certificate=self.certificate, key=self.key,
                                       htpasswd=htpasswd(self.folder, {"ada": "pw"}))
        self.push(registry, "app:1", creds="ada:pw")
        other_ca, _, _ = make_authority(os.path.join(self.folder, "other"), "other")
        path = os.path.join(self.folder, "pw")
        with open(path, "w", encoding="ascii") as out:
            out.write("pw")
        signed = {"username": "ada", "password_file": path}
        table = [("own CA", {"ca_file": self.ca}, ""), ("another CA", {"ca_file": other_ca}, "REGISTRY_UNREACHABLE"),
                 ("plain http to a TLS port", {"insecure_http": True}, "REGISTRY_UNREACHABLE")]
        for case, more, reason in table:
            answer = self.probe([listed(registry.host, **signed, **more)]).pull(f"{registry.host}/app:1")
            self.assertEqual(answer.get("reason", ""), reason, answer)
            self.row("P7", "TLS: " + case, reason or "pulled")
        for case, names in (("certificate of another name", {"addresses": ("127.0.0.2",)}),):
            ca, certificate, key = make_authority(os.path.join(self.folder, "misnamed"), "misnamed", **names)
            misnamed = self.start_registry("misnamed", certificate=certificate, key=key)
            answer = self.probe([listed(misnamed.host, ca_file=ca)]).pull(f"{misnamed.host}/app:1")
            self.bad(answer, "REGISTRY_UNREACHABLE", "127.0.0.1")
            self.assertFalse(answer["retryable"])
            self.row("P7", "TLS: " + case, "REGISTRY_UNREACHABLE, not worth another try")
        plain = self.probe([listed(self.plain.host, ca_file=self.ca)]).pull(f"{self.plain.host}/app:1")
        self.bad(plain, "REGISTRY_UNREACHABLE")
        self.row("P7", "https where only http is spoken, loopback with ca_file", "REGISTRY_UNREACHABLE")
        for wrong in ("/nonexistent.pem", "/etc/hostname"):
            with self.assertRaises(Refused) as refusal:
                self.probe([listed(registry.host, ca_file=wrong)])
            self.assertIn(wrong, str(refusal.exception))
        self.row("P7", "ca_file missing or no certificate", "refused at start, file named")

    def test_08_tokens(self):
        """R42: bearer tokens of 2 s; the connection is cut in the middle until they have expired."""
        tokens = TokenServer(os.path.join(self.folder, "tokens"), {"ada": "pw"}, life_s=2)
        self.stack.append(tokens.stop)
        registry = self.start_registry("token", extra=tokens.registry_config())
        self.push(registry, "app:1", creds="ada:pw")
        tokens.log.clear()
        relay = Relay(("127.0.0.1", registry.port), rate=2_000_000, cuts=[5_000_000])
        self.addCleanup(relay.close)
        hosts = [listed(relay.host), listed(tokens.realm.split("/")[2])]
        answer = self.bad(self.probe(hosts).pull(f"{relay.host}/app:1"), "REGISTRY_AUTH_FAILED")
        self.assertIn("store a registry credential", answer["message"])
        tokens.log.clear()
        probe = self.probe(hosts, credentials={"auths": {relay.host: {
            "username": "ada", "password": "pw"}}})
        self.good(probe.pull(f"{relay.host}/app:1"))
        given = [x for x in tokens.log if x[3] == 200]
        self.assertGreaterEqual(len(given), 2)
        self.assertLessEqual(len(given), 4)
        self.assertTrue(all("scope=repository%3Aapp%3Apull" in x[1] and "push" not in x[1] for x in given), given)
        self.row("R42", "bearer token of 2 s expires in mid-pull (cut at 5 MB, slow wire)",
                 f"pulled with {len(given)} tokens, each for pull alone")

    def test_09_cuts_on_the_wire(self):
        """R37: through a relay that counts every byte, and cuts k bytes into the connection."""
        size = sum(x["size"] for x in self.made["layers"])
        tls = self.start_registry("tls-cut", certificate=self.certificate, key=self.key)
        self.push(tls, "app:1", "--preserve-digests")
        for case, registry, more in (("http", self.plain, {}), ("TLS, HTTP/2", tls, {"ca_file": self.ca})):
            whole = self.pull_through(registry, more, [], False)
            worst, points = 0.0, 0
            for reset in (False, True):
                for at in [5_000, BIG - 1000, *range(300_000, BIG, BIG // POINTS)]:
                    down = self.pull_through(registry, more, [at], reset)
                    worst, points = max(worst, down / whole), points + 1
                down = self.pull_through(registry, more, [1_500_000, 1_500_000, 1_500_000], reset)
                worst, points = max(worst, down / whole), points + 1
            self.assertLessEqual(worst, 1.02)
            self.row("R37", f"{case}: cut at {points} places, closed and reset",
                     f"{whole} B uncut for {size} B of layers; worst {worst:.4f} x")

    def pull_through(self, registry, more, cuts, reset):
        relay = Relay(("127.0.0.1", registry.port), cuts=cuts, reset=reset)
        try:
            probe = Probe(self.folder, [listed(relay.host, **more)], images={"fetches_per_registry": 1})
            self.good(probe.pull(f"{relay.host}/app:1"))
            probe.close()
            self.assertEqual(relay.cuts, [], "a cut was not reached")
            return relay.down
        finally:
            relay.close()

    def test_10_proxies(self):
        names = {"registry.test:80": ("127.0.0.1", self.plain.port)}
        tls = self.start_registry("tls-proxy", certificate=self.certificate, key=self.key)
        self.push(tls, "app:1")
        names["registry.test:443"] = ("127.0.0.1", tls.port)
        proxy = ForwardProxy(names)
        strict = ForwardProxy(names, "user:canary-proxy-password")
        self.stack += [proxy.close, strict.close]
        secured = [{"host": "registry.test", "ca_file": self.ca}]
        insecure = [{"host": "registry.test", "insecure_http": True}]
        with_password = strict.url.replace("//", "//user:canary-proxy-password@")
        off = {x: "" for x in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY",
                               "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUEST_METHOD")}
        table = [
            ("HTTPS_PROXY", secured, {"HTTPS_PROXY": proxy.url}, "CONNECT registry.test:443", ""),
            ("https_proxy", secured, {"https_proxy": proxy.url}, "CONNECT registry.test:443", ""),
            ("HTTP_PROXY", insecure, {"HTTP_PROXY": proxy.url}, "GET http://registry.test/v2/", ""),
            ("http_proxy", insecure, {"http_proxy": proxy.url}, "GET http://registry.test/v2/", ""),
            ("HTTP_PROXY in a CGI's environment", insecure,
             {"HTTP_PROXY": proxy.url, "REQUEST_METHOD": "GET"}, "", "REGISTRY_UNREACHABLE"),
            ("NO_PROXY names the host", secured,
             {"HTTPS_PROXY": proxy.url, "NO_PROXY": "x.test, .test"}, "", "REGISTRY_UNREACHABLE"),
            ("a proxy with a password", secured, {"HTTPS_PROXY": with_password}, "CONNECT", ""),
            ("a proxy's password missing", secured, {"HTTPS_PROXY": strict.url}, "CONNECT",
             "REGISTRY_UNREACHABLE"),
            ("loopback is never proxied", [listed(self.plain.host)], {"HTTP_PROXY": proxy.url}, "", ""),
            ("metadata by its address, through a proxy", [], {"HTTPS_PROXY": proxy.url}, "",
             "REGISTRY_UNREACHABLE"),
        ]
        for case, registries, environment, asked, reason in table:
            proxy.log.clear(), strict.log.clear()
            ref = {"loopback is never proxied": f"{self.plain.host}/app:1",
                   "metadata by its address, through a proxy": "169.254.169.254/app:1"}.get(case, "registry.test/app:1")
            probe = self.probe(registries, env={**off, **environment}, tuning={"max_tries": 2})
            answer = probe.pull(ref)
            self.assertEqual(answer.get("reason", ""), reason, f"{case}: {answer}")
            self.assertNotIn("canary-proxy-password", json.dumps(answer) + probe.log())
            if case == "a proxy's password missing":
                self.assertIn("the proxy answered 407", answer["message"])
            log = proxy.log + strict.log
            self.assertTrue(all(x.startswith(asked) for x in log) and bool(log) == bool(asked), (case, log))
            self.row("P8", case, (reason or "pulled") + f", {len(log)} requests at the proxy")

    def test_11_tag_moves(self):
        """R44: what is pinned is pulled, whatever the tag says by now."""
        self.push(self.plain, "moving:1")
        probe = self.probe([listed(self.plain.host)])
        first = self.good(probe.pull(f"{self.plain.host}/moving:1"))["manifest"]
        other = os.path.join(self.folder, "moved")
        make_layout(other, "--seed", "2", "--layer", "gzip:a=moved")
        self.push(self.plain, "moving:1", source=f"oci:{other}:latest")
        pinned = self.good(self.probe([listed(self.plain.host)]).pull(
            f"{self.plain.host}/moving:1", pinned=first))["manifest"]
        moved = self.good(probe.pull(f"{self.plain.host}/moving:1"))["manifest"]
        self.assertEqual(pinned, first)
        self.assertNotEqual(moved, first)
        self.row("R44", "tag moved between two workers", "the pinned digest on both")

    def test_12_many_at_once(self):
        """R36: 100 pulls at once, of one image."""
        relay = Relay(("127.0.0.1", self.plain.port))
        self.addCleanup(relay.close)
        before = {x["digest"]: self.plain.blob_requests("app", x["digest"]) for x in self.made["layers"]}
        config_before = self.plain.blob_requests("app", self.made["config"])
        answers = self.probe([listed(relay.host)]).pull(f"{relay.host}/app:1", times=100)
        self.assertEqual([x["ok"] for x in answers], [True] * 100)
        before[self.made["config"]] = config_before
        new = lambda digest: self.plain.blob_requests("app", digest) - before[digest]
        processes.wait_until(lambda: all(new(x) for x in before), "the registry has logged all")
        self.assertEqual([new(x) for x in before], [1] * len(before))
        self.row("R36", "100 pulls of one image at once",
                 f"1 GET for each of {len(before) - 1} layers, 1 for the config; {relay.down} B on the wire")

    def test_12b_shared_layers(self):
        other = os.path.join(self.folder, "shares")
        made = make_layout(other, "--layer", f"gzip:etc/base=one,big=@{BIG}", "--layer", "tar:etc/own=own")
        shared, own = [x["digest"] for x in made["layers"]]
        self.assertEqual(shared, self.made["layers"][0]["digest"])
        self.push(self.plain, "shares:1", "--preserve-digests", source=f"oci:{other}:latest")
        probe = self.probe([listed(self.plain.host)])
        self.good(probe.pull(f"{self.plain.host}/app:1"))
        self.good(probe.pull(f"{self.plain.host}/shares:1"))
        processes.wait_until(lambda: self.plain.blob_requests("shares", own), "the registry has logged it")
        self.assertEqual([self.plain.blob_requests("shares", x) for x in (shared, own)], [0, 1])
        self.row("R36", "a second image on the same base layer", "0 GETs of the base layer, 1 of its own")

    def test_13_private_blobs(self):
        """G8: what one pull has brought is not given to one that may not have it."""
        registry = self.start_registry("private", htpasswd=htpasswd(self.folder, {"ada": "pw"}))
        self.push(registry, "app:1", creds="ada:pw")
        probe = self.probe([listed(registry.host)], credentials={"auths": {
            f"{registry.host}/app": {"username": "ada", "password": "pw"}}})
        self.good(probe.pull(f"{registry.host}/app:1"))
        kept = probe.kept()
        processes.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "ada:pw",
                       f"oci:{self.layout}:latest", f"docker://{registry.host}/app-too:1"])
        self.bad(probe.pull(f"{registry.host}/app-too:1"), "REGISTRY_AUTH_FAILED")
        self.assertEqual(probe.kept(), kept)
        self.row("G8", "the same blobs under a name without credentials", "REGISTRY_AUTH_FAILED, though all are cached")

    def test_14_registry_down(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{free.getsockname()[1]}"
            started = time.monotonic()
            answer = self.bad(self.probe([listed(host)]).pull(f"{host}/app:1"), "REGISTRY_UNREACHABLE", host)
        self.assertTrue(answer["retryable"])
        self.row("R45", "registry down", f"REGISTRY_UNREACHABLE, worth another try, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
