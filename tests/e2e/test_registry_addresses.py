#!/usr/bin/python3
"""Where the puller may be led: names, redirects and token services that stand for loopback, the host
itself, link-local and metadata addresses, and a resolver that changes its mind. Two network
namespaces are the hosts; canaries at every forbidden address count what reaches them."""

import json
import os
import unittest

from harness import processes
from harness.puller import RegistryCase, make_layout
from harness.two_hosts import CLIENT, METADATA, SERVER, TwoHosts

PORT = 5000


class Addresses(RegistryCase):
    @classmethod
    def prepare(cls):
        processes.skip_in_plain_chroot("mount namespace of a test's own")
        cls.layout = cls.folder + "/image"
        cls.made = make_layout(cls.layout, "--layer", "gzip:a=one")
        cls.layer = cls.made["layers"][0]["digest"]
        cls.hosts = TwoHosts(cls.folder).__enter__()
        cls.stack.append(lambda: cls.hosts.__exit__())
        cls.canaries = []
        for pid, address in ((cls.hosts.client, "127.0.0.1"), (cls.hosts.client, CLIENT),
                             (cls.hosts.client, "10.88.0.5"), (cls.hosts.server, METADATA)):
            cls.canary(pid, address)
        cls.serve("registry", "--port", str(PORT))
        cls.hosts.names({
            "registry.test": [[SERVER]], "other.test": [[SERVER]], "loop.test": [["127.0.0.1"]], "own.test": [[CLIENT]],
            "routed.test": [["10.88.0.5"]], "metadata.test": [[METADATA]], "none.test": [[]],
            "both.test": [["127.0.0.1", SERVER]], "many.test": [["127.0.0.1", CLIENT, METADATA, "10.88.0.5"]],
            # The first answer passes a check, the second would be what is connected to.
            "flip.test": [[SERVER], ["127.0.0.1"]], "flop.test": [["127.0.0.1"], [SERVER], ["127.0.0.1"]],
        })

    @classmethod
    def canary(cls, pid, address):
        log = os.path.join(cls.folder, f"canary-{address}.log")
        cls.hosts.start(pid, "faulty_registry.py", cls.layout, "--bind", address, "--port", str(PORT), "--log-file", log)
        cls.canaries.append((address, log))

    @classmethod
    def serve(cls, name, *options):
        log = os.path.join(cls.folder, f"{name}.log")
        cls.hosts.start(cls.hosts.server, "faulty_registry.py", cls.layout, "--bind", SERVER, "--log-file", log, *options)
        return log

    def hits(self):
        return {address: sum(1 for _ in open(log, encoding="utf-8")) for address, log in self.canaries if os.path.exists(log)}

    def control(self, pid, address, port, path, body):
        processes.run(self.hosts.inside(pid, ["/usr/bin/python3", "-c",
                      "import sys,urllib.request as u; u.urlopen(u.Request(sys.argv[1], sys.argv[2].encode()))",
                      f"http://{address}:{port}{path}", json.dumps(body)]))

    def puller(self, *names, listed=()):
        tables = [{"host": f"{x}:{PORT}", "insecure_http": True} for x in names]
        tables += [{"host": f"{x}:{PORT}", "insecure_http": True, "allow_address": True} for x in listed]
        return self.probe(tables, inside=lambda argv: self.hosts.inside(self.hosts.client, argv), tuning={"max_tries": 2})

    def test_1_names(self):
        table = [("a private address by its number", SERVER, ""), ("a name of a private address", "registry.test", ""),
                 ("loopback by its number", "127.0.0.1", "loopback"), ("a name of loopback", "loop.test", "loopback"),
                 ("the host's own address", CLIENT, "an address of this host"),
                 ("a name of it", "own.test", "an address of this host"),
                 ("an address that a local route makes the host's own", "10.88.0.5", "an address of this host"),
                 ("a name of it", "routed.test", "an address of this host"),
                 ("metadata by its number", METADATA, "cloud metadata"),
                 ("a name of it", "metadata.test", "cloud metadata"),
                 ("a name of all of these", "many.test", "refused"),
                 ("a name of nothing", "none.test", "check that the registry runs"),
                 ("127.1", "127.1", ""), ("2130706433", "2130706433.", ""), ("localhost", "localhost", "loopback")]
        for case, name, words in table:
            answer = self.puller(name).pull(f"{name}:{PORT}/app:1")
            if case in ("127.1", "2130706433"):
                self.assertFalse(answer["ok"])
            elif words:
                self.bad(answer, "REGISTRY_UNREACHABLE", words)
            else:
                self.good(answer)
            self.assertEqual(self.hits(), {})
            self.row("G6", f"{case}: {name}", "pulled" if answer["ok"] else f"{answer['reason']} ({words or 'refused'})")
        answer = self.puller("both.test").pull(f"both.test:{PORT}/app:1")
        self.assertEqual(self.hits(), {})
        self.row("G6", "a name of loopback and of a private address",
                 "pulled from the private one" if answer["ok"] else answer["reason"])

    def test_2_rebinding(self):
        for name in ("flip.test", "flop.test"):
            outcomes = []
            for _ in range(4):
                probe = self.puller(name)  # a process of its own: no answer is remembered
                outcomes += ["pulled" if probe.pull(f"{name}:{PORT}/app:1")["ok"] else "refused" for _ in range(2)]
            self.assertEqual(self.hits(), {})
            self.assertIn("refused", outcomes)
            self.row("G6", f"{name}: the resolver flips between {SERVER} and 127.0.0.1",
                     f"asked {self.hosts.asked(name)} times: {', '.join(outcomes)}; canaries 0")

    def test_3_redirects(self):
        for address in ("127.0.0.1", CLIENT, METADATA, "10.88.0.5", "loop.test", "own.test", "routed.test", "metadata.test",
                        "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0", "localhost"):
            self.control(self.hosts.server, SERVER, PORT, "/_clear", {})
            self.control(self.hosts.server, SERVER, PORT, "/_fault", {
                "match": self.layer, "kind": "redirect", "to": f"http://{address}:{PORT}/v2/x/blobs/{self.layer}"})
            # Even where plain http is allowed there, the address is not.
            answer = self.puller("registry.test", *([] if address[0] in "[02" else [address])).pull(f"registry.test:{PORT}/app:1")
            self.bad(answer, "REGISTRY_UNREACHABLE")
            self.assertEqual(self.hits(), {})
            self.row("G6", f"redirect to {address}", "REGISTRY_UNREACHABLE, canary 0")
        self.control(self.hosts.server, SERVER, PORT, "/_clear", {})

    def test_4_realms(self):
        for i, address in enumerate(("127.0.0.1", "loop.test", "own.test", "routed.test", "metadata.test")):
            port = PORT + 1 + i
            self.serve(f"realm-{i}", "--port", str(port), "--auth", "token", "--realm", f"http://{address}:{PORT}/token")
            probe = self.probe([{"host": f"registry.test:{port}", "insecure_http": True},
                                {"host": f"{address}:{PORT}", "insecure_http": True}],
                               inside=lambda argv: self.hosts.inside(self.hosts.client, argv), tuning={"max_tries": 2})
            self.bad(probe.pull(f"registry.test:{port}/app:1"), "REGISTRY_UNREACHABLE", "refused")
            self.assertEqual(self.hits(), {})
            self.row("G6", f"token service at {address}", "REGISTRY_UNREACHABLE, canary 0")

    def test_5_plain_http(self):
        """Only where the configuration allows it, at a registry, a redirect and a token service."""
        log = self.serve("other", "--port", "5100")
        plain = lambda *tables: self.probe(tables, tuning={"max_tries": 2},
                                           inside=lambda argv: self.hosts.inside(self.hosts.client, argv))
        registry = {"host": f"registry.test:{PORT}", "insecure_http": True}
        self.bad(plain().pull("other.test:5100/app:1"), "REGISTRY_UNREACHABLE", "without TLS must be configured")
        self.row("P13", "plain http at a registry that is not listed", "https is spoken to it: REGISTRY_UNREACHABLE")
        self.control(self.hosts.server, SERVER, PORT, "/_fault", {
            "match": self.layer, "kind": "redirect", "to": f"http://other.test:5100/v2/x/blobs/{self.layer}"})
        self.bad(plain(registry).pull(f"registry.test:{PORT}/app:1"), "REGISTRY_UNREACHABLE", "plain http is refused")
        self.row("P13", "a redirect to plain http elsewhere, not listed", "REGISTRY_UNREACHABLE")
        self.serve("realm", "--port", "5101", "--auth", "token", "--realm", "http://other.test:5100/token")
        answer = plain({"host": "registry.test:5101", "insecure_http": True}).pull("registry.test:5101/app:1")
        self.bad(answer, "REGISTRY_UNREACHABLE", "plain http is refused")
        self.row("P13", "a token service by plain http elsewhere, not listed", "REGISTRY_UNREACHABLE")
        self.assertFalse(os.path.exists(log), "something reached the other registry")
        self.good(plain(registry, {"host": "other.test:5100", "insecure_http": True}).pull(f"registry.test:{PORT}/app:1"))
        self.row("P13", "the same redirect, its host listed with insecure_http", "pulled")
        self.control(self.hosts.server, SERVER, PORT, "/_clear", {})

    def test_9_listed(self):
        """The canaries do answer: where the configuration lists an address, it is reached."""
        for address in ("127.0.0.1", CLIENT, METADATA, "10.88.0.5", "routed.test"):
            self.good(self.puller(listed=[address]).pull(f"{address}:{PORT}/app:1"))
            self.row("G6", f"listed with allow_address: {address}", "pulled")
        self.assertEqual(sorted(self.hits()), sorted(x for x, _ in self.canaries))


if __name__ == "__main__":
    unittest.main(verbosity=0, warnings="ignore")
