#!/usr/bin/python3
"""How a worker comes in, and who is kept out: tokens, credentials, TLS."""

import json
import os
import unittest

from harness import case, processes
from harness.cluster import Cluster


class JoinTest(case.ClusterTest):
    AGENTS = 0

    def test_a_token_is_bound_to_its_name(self):
        token = self.c.controller.join_token("alpha")
        other = self.c.new_agent("beta")
        refused = other.join(token, check=False)
        self.assertNotEqual(refused.returncode, 0, "a token for alpha let beta in")
        self.assertRegex(refused.stdout + refused.stderr, r"(?i)token")
        garbage = other.join("wtk_" + "0" * 60, check=False)
        self.assertNotEqual(garbage.returncode, 0)

    def test_a_token_used_twice_is_refused(self):
        token = self.c.controller.join_token("once")
        first = self.c.new_agent("once")
        first.join(token)
        second = self.c.new_agent("twice", {"worker": {"name": "once"}})
        refused = second.join(token, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr + refused.stdout, r"(?i)used|unknown|join-token")
        mode = os.stat(self.identity(first)).st_mode & 0o777
        self.assertEqual(mode, 0o600)
        first.start()
        processes.wait_until(lambda: self.c.workers().get("once", {}).get("status") == "online", "once is online")

    def identity(self, agent):
        for name in os.listdir(agent.state):
            if name.startswith("identity"):
                return os.path.join(agent.state, name)
        raise AssertionError(f"no identity in {os.listdir(agent.state)}")

    def test_a_forged_credential_is_refused(self):
        agent = self.c.new_agent("forger")
        agent.join(self.c.controller.join_token("forger"))
        path = self.identity(agent)
        with open(path, encoding="utf-8") as source:
            text = source.read()
        document = json.loads(text)
        real = document["credential"]
        forged = real[:-4] + ("aaaa" if not real.endswith("aaaa") else "bbbb")
        with open(path, "w", encoding="utf-8") as out:
            out.write(text.replace(real, forged))
        agent.start()
        processes.wait_until(lambda: "credential" in agent.daemon.log() or "UNAUTHENTICATED" in agent.daemon.log()
                             or "unauthenticated" in agent.daemon.log().lower(), "the agent is told why")
        self.assertNotEqual(self.c.workers()["forger"]["status"], "online")
        agent.stop()
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
        agent.start()
        processes.wait_until(lambda: self.c.workers()["forger"]["status"] == "online", "the real one is let in")

    def test_plain_text_beyond_loopback_is_refused(self):
        agent = self.c.new_agent("far", {"controller": {"address": "192.0.2.1:7443"}})
        refused = agent.join("wtk_x", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("tls", (refused.stderr + refused.stdout).lower())


def make_certificates(folder):
    """An authority and a server certificate for localhost, by openssl."""
    def path(name):
        return os.path.join(folder, name)
    processes.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-keyout", path("ca.key"), "-out", path("ca.pem"), "-days", "2", "-subj", "/CN=test authority"])
    processes.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                   "-keyout", path("tls.key"), "-out", path("tls.csr"), "-subj", "/CN=localhost"])
    with open(path("ext"), "w", encoding="ascii") as out:
        out.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    processes.run(["openssl", "x509", "-req", "-in", path("tls.csr"), "-CA", path("ca.pem"), "-CAkey", path("ca.key"),
                   "-CAcreateserial", "-out", path("tls.pem"), "-days", "2", "-extfile", path("ext")])
    return path("ca.pem"), path("tls.pem"), path("tls.key")


class TlsTest(unittest.TestCase):
    def test_the_link_over_tls(self):
        with Cluster(agents=0, registry=False) as c:
            authority, certificate, key = make_certificates(c.folder)
            c.controller.daemon.stop()
            with open(c.controller.config, encoding="utf-8") as source:
                text = source.read()
            with open(c.controller.config, "w", encoding="utf-8") as out:
                out.write(text.replace("[grpc]\n", f'[grpc]\ntls_certificate = "{certificate}"\ntls_key = "{key}"\n'))
            c.controller.start()
            tls = {"controller": {"address": f"localhost:{c.controller.grpc_port}", "tls": True,
                                  "ca_file": authority}}
            c.add_agent("secure", tls)
            c.wait_online(1)
            plain = c.new_agent("plain")
            self.assertNotEqual(plain.join(c.controller.join_token("plain"), check=False).returncode, 0)
            stranger = c.new_agent("stranger", {"controller": {**tls["controller"], "ca_file": ""}})
            self.assertNotEqual(stranger.join(c.controller.join_token("stranger"), check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
