#!/usr/bin/python3
"""Network profiles, attacked from inside guests, in a network of the test's own (harness/outside.py):
what a profile allows arrives, and of everything else not one packet leaves. In the end the rules are
taken away, and the very same probes arrive, spoofed frames and private answers too; where nobody reads
them, or where their names are allowed, the very same lies are heard: so they could have been."""

import base64
import json
import os
import struct
import subprocess
import sys
import unittest

from harness import case, images, outside, paths, processes

GOOD, SECOND, EVIL, FLIP = "45.10.0.10", "45.10.0.12", "45.10.0.66", "45.10.0.13"
PRIVATE, EXEMPT = "10.99.0.5", "10.99.0.6"
NAMES = {"files.registry.example": [[GOOD]], "second.registry.example": [[SECOND]],
         "evil.example": [[EVIL, GOOD]], "other.registry.example": [[GOOD]], "inside.registry.example": [[PRIVATE]],
         "metadata.registry.example": [["169.254.169.254"]], "mirror.registry.example": [[EXEMPT]],
         **{x + ".registry.example": [[FLIP], [PRIVATE]] for x in ("flip-registry", "flip-allowlisted")}}
REGISTRY = ["*.registry.example"]
GUEST_MAC, GATEWAY_MAC = bytes.fromhex("02626b000002"), bytes.fromhex("02626b000001")


def http(host, target="/", more=""):
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def packet(source, target, proto=17, port=443):
    body = struct.pack(">HHHH", 4000, port, 13, 0) + b"spoof"
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, proto, 0,
                       bytes(map(int, source.split("."))), bytes(map(int, target.split("."))))
    total = sum(struct.unpack(">10H", head))
    total = ~((total >> 16) + (total & 0xffff)) & 0xffff
    return head[:10] + struct.pack(">H", total) + head[12:] + body


def packet6(port):
    body = struct.pack(">HHHH", 4000, port, 13, 1) + b"spoof"
    return struct.pack(">IHBB", 0x60000000, len(body), 17, 64) + b"\xfd" + bytes(14) + b"\x02" + b"\xfd" + bytes(
        14) + b"\x01" + body


def frame(source_mac, ethertype, payload):
    return GATEWAY_MAC + source_mac + ethertype.to_bytes(2, "big") + payload


# Frames that get past the rules of the tap are counted behind them, each kind by what gives it away.
FRAMES = ("other_ip", "other_mac", "tagged", "version_6")
CANARY = b"""table netdev canary {
  counter passed {}
  counter other_ip {}
  counter other_mac {}
  counter tagged {}
  counter version_6 {}
  chain seen {
    type filter hook ingress device "tap0" priority 0; policy accept;
    counter name passed
    ip saddr 10.200.0.9 counter name other_ip
    ether saddr 02:00:00:00:00:09 counter name other_mac
    ether type 8021q counter name tagged
    ether type ip6 counter name version_6
  }
}
"""


# What must not leave, whatever the profile; and the packet that the world would see: (proto, dst, port).
EVERYWHERE = {
    "metadata": ("tcp", "169.254.169.254", 80, b""), "private": ("tcp", PRIVATE, 80, b""),
    "private-other-port": ("tcp", PRIVATE, 22, b""), "private-udp": ("udp", PRIVATE, 443, b""),
    "oracle": ("tcp", "192.0.0.192", 80, b""), "azure": ("tcp", "168.63.129.16", 80, b""),
    "shared": ("tcp", "100.64.0.1", 80, b""), "benchmark": ("tcp", "198.18.77.2", 22, b""),
    "class-e": ("tcp", "240.0.0.1", 80, b""), "smtp": ("tcp", EVIL, 25, b""),
    "private-icmp": ("icmp", PRIVATE, 0, b""),
}
# And besides these where the guard decides.
GUARDED = {
    "literal": ("tcp", EVIL, 80, b""), "literal-tls": ("tcp", EVIL, 443, outside.client_hello("evil.example")),
    "literal-lying": ("tcp", EVIL, 80, http("files.registry.example")),
    "other-port": ("tcp", GOOD, 8080, b""), "ssh": ("tcp", GOOD, 22, b""), "dot": ("tcp", "8.8.8.8", 853, b""),
    "dns-tcp": ("tcp", "8.8.8.8", 53, b""), "quic": ("udp", GOOD, 443, b""), "ntp": ("udp", EVIL, 123, b""),
    "icmp": ("icmp", EVIL, 0, b""),
}


class NetworkCase(case.ClusterTest):
    AGENT = {"network": {"package_registries": REGISTRY, "egress_allow": ["mirror.registry.example"]}}

    @classmethod
    def prepare(cls):
        ref = images.push_debian(cls.c.registry)
        row = cls.c.register("debian", ref, size_mib=1024, default_memory_mb=384)
        cls.c.group("all", images=[row["id"]])
        cls.c.wait_cache(row["id"], seconds=300)
        cls.c.agents[0].wait_templates(2)  # so that it is restored guests that are attacked
        with open(os.path.join(paths.ROOT, "tests/support/network_probes.py"), encoding="utf-8") as source:
            cls.script = source.read()

    def probe(self, bunker, probes):
        """Runs probes in the guest as root; what the world saw meanwhile beside the guard's questions."""
        before = len(outside.log())
        wire = {k: [kind, address, port, base64.b64encode(said).decode()]
                for k, (kind, address, port, said) in probes.items()}
        result = self.c.exec(bunker, ["python3", "-c", self.script], stdin=json.dumps(wire), user="0")
        self.assertEqual(result["exit_code"], 0, result)
        return json.loads(result["stdout"]), outside.log()[before:]

    @staticmethod
    def arrived(seen):
        return {(x["packet"], x["dst"], x["port"]) for x in seen if "dst" in x and "packet" in x
                and (x["dst"], x["port"]) != (outside.RESOLVER, 53)}

    @staticmethod
    def as_seen(kind, address, port):
        return ("udp" if kind in ("raw", "frame") else kind, address, port)

    def assert_nothing_left(self, bunker, probes):
        outcomes, seen = self.probe(bunker, probes)
        for key, (kind, address, port, _) in probes.items():
            self.assertNotIn(self.as_seen(kind, address, port), self.arrived(seen), key)
            if kind not in ("raw", "frame"):
                self.assertFalse(outcomes[key].startswith("heard"), (key, outcomes[key]))
        return seen

    def assert_nothing_stays(self):
        processes.wait_until(lambda: not outside.spaces(), "no namespace stays", 30)
        uplinks = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, check=True).stdout.decode()
        self.assertNotIn("bkv", uplinks)
        self.assertEqual(self.c.agents[0].guard_pids(), [])

    def spoofs(self):
        """Each to a port of its own, by which the world tells them apart."""
        def good(port):
            return packet("10.200.0.2", EVIL, port=port)
        return {"ip": ("raw", EVIL, 4431, packet("10.200.0.9", EVIL, port=4431)),
                "mac": ("frame", EVIL, 4432, frame(b"\x02\x00\x00\x00\x00\x09", 0x0800, good(4432))),
                "vlan": ("frame", EVIL, 4433, frame(GUEST_MAC, 0x8100, b"\x00\x01\x08\x00" + good(4433))),
                "ipv6": ("frame", EVIL, 4434, frame(GUEST_MAC, 0x86dd, packet6(4434)))}

    @staticmethod
    def canary(space):
        """Kind -> frames of it that came past the tap's rules."""
        listed = subprocess.run(["ip", "netns", "exec", space, "nft", "-j", "list", "table", "netdev", "canary"],
                                check=True, stdout=subprocess.PIPE).stdout
        return {x["counter"]["name"]: x["counter"]["packets"] for x in json.loads(listed)["nftables"] if "counter" in x}

    def assert_spoofs_are_dropped(self, bunker):
        space = f"bunker-{bunker}.1"
        subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], check=True, input=CANARY)
        self.assert_nothing_left(bunker, {**self.spoofs(), "honest": ("tcp", PRIVATE, 80, b"")})
        counts = self.canary(space)
        self.assertGreater(counts.pop("passed"), 0, "the canary sees nothing at all")
        self.assertEqual(counts, {x: 0 for x in FRAMES})
        subprocess.run(["ip", "netns", "exec", space, "nft", "delete", "table", "netdev", "canary"], check=True)

    def lies(self):
        """To an address that was handed out, under a name that does not go with it, or in no way that is read."""
        files = "files.registry.example"
        return {"sni-evil": ("tcp", GOOD, 443, outside.client_hello("evil.example")),
                "sni-none": ("tcp", GOOD, 443, outside.client_hello(None)),
                "sni-other": ("tcp", GOOD, 443, outside.client_hello("second.registry.example")),
                "sni-unasked": ("tcp", GOOD, 443, outside.client_hello("other.registry.example")),
                "host-evil": ("tcp", GOOD, 80, http("evil.example")),
                "host-address": ("tcp", GOOD, 80, http(GOOD)),
                "host-other": ("tcp", GOOD, 80, http("second.registry.example")),
                "host-unasked": ("tcp", GOOD, 80, http("other.registry.example")),
                "host-twice": ("tcp", GOOD, 80, http(files, more="Host: evil.example\r\n")),
                "connect": ("tcp", GOOD, 80, f"CONNECT evil.example:443 HTTP/1.1\r\nHost: {files}\r\n\r\n".encode()),
                "absolute": ("tcp", GOOD, 80, http(files, "http://evil.example/")),
                "upgrade": ("tcp", GOOD, 80, http(files, more="Upgrade: h2c\r\n")),
                "h2": ("tcp", GOOD, 80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
                "ssh": ("tcp", GOOD, 443, b"SSH-2.0-OpenSSH_9\r\n")}

    def smuggled(self):
        """The second request of a connection is not what the first one is."""
        files, hidden = "files.registry.example", http("evil.example", "/smuggled")
        body = f"POST / HTTP/1.1\r\nHost: {files}\r\nContent-Length: 4\r\n\r\nbody".encode()
        return {"two": ("tcp", GOOD, 80, http(files) + hidden), "hidden": ("tcp", GOOD, 80, body + hidden)}

    @staticmethod
    def heard(seen):
        return "".join(x.get("heard", "") for x in seen)


class GuardedTest(NetworkCase):
    """registry and allowlisted: the guard is the only way out."""

    def test_registry(self):
        self.flip = "flip-registry.registry.example"
        bunker = self.c.bunker("debian", network_profile="registry")
        self.assertRegex(bunker["private_ip"], r"^10\.201\.")
        self.assertEqual((bunker["start_kind"], bunker["fallback_reason"]), ("restore", None))
        self.attack(bunker["id"])
        self.survive_the_agent(bunker["id"])
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        self.assert_nothing_stays()

    def test_allowlisted(self):
        self.flip = "flip-allowlisted.registry.example"
        bunker = self.c.bunker("debian", network_profile="allowlisted",
                               network_allowlist=["Files.Registry.Example", "*.registry.example"])
        self.assertEqual(bunker["network_allowlist"], ["files.registry.example", "*.registry.example"])
        self.attack(bunker["id"])
        # The rules were taken away for the controls, and with them their counts: once more, with rules.
        self.assert_nothing_left(bunker["id"], GUARDED)
        self.check_events(bunker["id"])
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)

    def test_isolated_has_no_card(self):
        bunker = self.c.bunker("debian", network_profile="isolated")
        self.assertEqual(self.c.sh(bunker["id"], "ls /sys/class/net").split(), ["lo"])
        self.assertIsNone(bunker["private_ip"])
        self.assertNotIn("bunker-" + bunker["id"] + ".1", outside.spaces())
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)

    def names(self, bunker, flipped=False):
        wanted = {x: ("name", x, 0, b"") for x in
                  ("files.registry.example", "second.registry.example", "mirror.registry.example",
                   "inside.registry.example", "metadata.registry.example", "evil.example",
                   "registry.example", "secret-data.evil.example", self.flip)}
        outcomes, seen = self.probe(bunker, wanted)
        heard = {k for k, v in outcomes.items() if v.startswith("heard")}
        self.assertEqual(heard, {"files.registry.example", "second.registry.example", "mirror.registry.example"} |
                         (set() if flipped else {self.flip}), outcomes)
        asked = {x["asked"] for x in seen if "asked" in x}
        self.assertFalse(asked & {"evil.example", "registry.example", "secret-data.evil.example"}, asked)

    def attack(self, bunker):
        self.assertNotIn("heard", self.probe(bunker, {"early": ("tcp", GOOD, 80, http("files.registry.example"))})
                         [0]["early"], "an address that was never handed out")
        self.names(bunker)
        good = {"plain": ("tcp", GOOD, 80, http("files.registry.example")),
                "tls": ("tcp", GOOD, 443, outside.client_hello("files.registry.example")),
                "tls-on-80": ("tcp", GOOD, 80, outside.client_hello("files.registry.example")),
                "exempt": ("tcp", EXEMPT, 80, http("mirror.registry.example")),
                "intercepted": ("udp", "8.8.8.8", 53, dns("files.registry.example"))}
        outcomes, seen = self.probe(bunker, good)
        for key, outcome in outcomes.items():
            self.assertTrue(outcome.startswith("heard"), (key, outcomes))
        self.assertFalse([x for x in seen if x.get("dst") == "8.8.8.8"])
        self.assert_nothing_left(bunker, {**EVERYWHERE, **GUARDED})
        self.assert_spoofs_are_dropped(bunker)
        self.lie(bunker)
        self.rebind(bunker)

    def lie(self, bunker):
        outcomes, seen = self.probe(bunker, self.lies())
        for key, outcome in outcomes.items():
            self.assertNotIn("fine", outcome, key)
            self.assertNotIn("HEARD", outcome, key)
        self.assertEqual(self.heard(seen), "", "nothing of it was heard")
        for key, probe in self.smuggled().items():
            _, seen = self.probe(bunker, {key: probe})
            self.assertNotIn("smuggled", self.heard(seen))

    def test_where_the_names_are_allowed_the_lies_are_none(self):
        """The control of what is refused by name: with those names in the list, and asked for, it arrives."""
        bunker = self.c.bunker("debian", network_profile="allowlisted",
                               network_allowlist=["*.registry.example", "evil.example"])["id"]
        lies = {k: v for k, v in self.lies().items() if k.endswith(("-evil", "-unasked"))}
        self.assertEqual(len(lies), 4)
        outcomes, _ = self.probe(bunker, {"files": ("name", "files.registry.example", 0, b""), **lies})
        self.assertEqual([k for k in lies if "fine" in outcomes[k] or "HEARD" in outcomes[k]], [], outcomes)
        self.probe(bunker, {x: ("name", x, 0, b"") for x in ("evil.example", "other.registry.example")})
        outcomes, seen = self.probe(bunker, lies)
        for key, probe in lies.items():
            self.assertTrue("fine" in outcomes[key] or "HEARD" in outcomes[key], (key, outcomes))
            self.assertIn(probe[3].decode("latin-1"), self.heard(seen), key)
        self.c.call("DELETE", f"/bunkers/{bunker}", expect=200)

    def rebind(self, bunker):
        outcomes, seen = self.probe(bunker, {"flipped": ("name", self.flip, 0, b"")})
        self.assertFalse(outcomes["flipped"].startswith("heard"), outcomes)
        self.assert_nothing_left(bunker, {"flipped": ("tcp", PRIVATE, 80, http(self.flip))})

    def survive_the_agent(self, bunker):
        """Rules hold while there is no agent; what is gone when it is back is put back."""
        agent, space = self.c.agents[0], f"bunker-{bunker}.1"
        old = agent.guard_pids()
        agent.daemon.kill9()
        rules = subprocess.run(["ip", "netns", "exec", space, "nft", "list", "ruleset"], check=True,
                               stdout=subprocess.PIPE).stdout.decode()
        self.assertIn("policy drop", rules)
        self.assertEqual(agent.guard_pids(), old)
        os.kill(old[0], 9)
        subprocess.run(["ip", "netns", "exec", space, "nft", "delete", "chain", "inet", "bunker", "input"],
                       check=False, stderr=subprocess.DEVNULL)
        agent.start()
        processes.wait_until(lambda: agent.guard_pids() not in ([], old), "a new guard", 60)
        self.c.wait_online(1, 60)
        processes.wait_until(lambda: self.c.call("POST", f"/bunkers/{bunker}/exec", {"command": "true"}).status_code
                             == 200, "the bunker answers", 60)
        self.names(bunker, flipped=True)
        self.assert_nothing_left(bunker, GUARDED)
        # Without a guard everything is closed, until there is one again.
        os.kill(agent.guard_pids()[0], 9)
        processes.wait_until(lambda: agent.guard_pids(), "a guard again", 30)
        subprocess.run(["ip", "netns", "exec", space, "nft", "flush", "ruleset"], check=True)
        processes.wait_until(lambda: "policy drop" in subprocess.run(
            ["ip", "netns", "exec", space, "nft", "list", "ruleset"], check=True,
            stdout=subprocess.PIPE).stdout.decode(), "the rules are back", 15)

    def check_events(self, bunker):
        wanted = {("denied", "dns"), ("allowed", "dns"), ("denied", "name"), ("allowed", "name"), ("denied", "policy")}
        rules = set()

        def told():
            events = self.c.get(f"/bunkers/{bunker}/network/events")
            rules.update((x["decision"], x["rule"]) for x in events)
            return events if wanted <= rules else None
        try:
            events = processes.wait_until(told, "the events", 60)
        except AssertionError:
            self.fail(f"of the events these are missing: {wanted - rules}")
        self.assertLessEqual(len(events), 64)
        self.assertEqual(events, sorted(events, key=lambda x: x["at"], reverse=True))
        quic = [x for x in events if (x["proto"], x["dst"], x["port"]) == ("udp", GOOD, 443)]
        self.assertTrue(quic and quic[0]["count"] >= 1, events)
        self.assertEqual({x["name"] for x in events if x["rule"] == "dns" and x["decision"] == "denied"} &
                         {"evil.example"}, {"evil.example"})


class UnrestrictedTest(NetworkCase):
    """What the worker reaches, less what nobody may."""

    def test_unrestricted(self):
        bunker = self.c.bunker("debian", network_profile="unrestricted")
        other = self.c.bunker("debian", network_profile="unrestricted")
        self.assertNotEqual(bunker["private_ip"], other["private_ip"])
        good = {"literal": ("tcp", EVIL, 80, b""), "odd-port": ("tcp", EVIL, 8080, b""),
                "tls": ("tcp", GOOD, 443, b"anything"), "icmp": ("icmp", EVIL, 0, b""),
                "any-name": ("name", "evil.example", 0, b""), "exempt-name": ("name", "mirror.registry.example", 0, b"")}
        outcomes, _ = self.probe(bunker["id"], good)
        for key, outcome in outcomes.items():
            self.assertTrue(outcome.startswith("heard"), (key, outcomes))
        outcomes, seen = self.probe(bunker["id"], {
            "exempt": ("tcp", EXEMPT, 80, http("mirror.registry.example")), "quic": ("udp", GOOD, 443, b""),
            "private-name": ("name", "inside.registry.example", 0, b"")})
        self.assertTrue(outcomes["exempt"].startswith("heard"), outcomes)
        self.assertFalse(outcomes["private-name"].startswith("heard"), outcomes)
        self.assertIn(("udp", GOOD, 443), self.arrived(seen))
        self.assert_nothing_left(bunker["id"], EVERYWHERE)
        self.assert_spoofs_are_dropped(bunker["id"])
        self.lies_are_heard(bunker["id"])
        self.neighbours(bunker["id"], other["private_ip"])
        self.positive_control(bunker["id"])
        for row in (bunker, other):
            self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)
        self.assert_nothing_stays()

    def lies_are_heard(self, bunker):
        """The control of the guard's refusals: nobody reads what this profile says, and all of it arrives."""
        for key, probe in {**self.lies(), **self.smuggled()}.items():
            _, seen = self.probe(bunker, {key: probe})
            self.assertIn(probe[3].decode("latin-1"), self.heard(seen), key)

    def neighbours(self, bunker, other):
        """Another bunker, the host by each of its addresses, and the controller."""
        port = self.c.controller.rest_port
        host_end = other.rsplit(".", 1)[0] + "." + str(int(other.rsplit(".", 1)[1]) - 1)
        with_listener = subprocess.Popen([sys.executable, "-m", "http.server", "8099"], stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL, cwd="/proc/self")
        try:
            processes.wait_until(lambda: processes.tcp_open(8099), "a service of the host", 20)
            probes = {f"{address}:{at}": ("tcp", address, at, b"")
                      for address in (other, host_end, outside.HOST, "10.200.0.1", "127.0.0.1")
                      for at in (8099, port, 22, 15080)}
            outcomes, _ = self.probe(bunker, probes)
            for key, outcome in outcomes.items():
                self.assertFalse(outcome.startswith("heard"), (key, outcome))
        finally:
            with_listener.kill()
            with_listener.wait(10)

    QUESTIONS = {"inside.registry.example": PRIVATE, "metadata.registry.example": "169.254.169.254",
                 "secret-data.evil.example": None, "registry.example": None}

    def controls(self):
        """All that is refused anywhere, and questions that the guard answers by itself, put to the resolver."""
        return {**EVERYWHERE, **GUARDED, **self.spoofs(),
                **{"ask " + x: ("udp", outside.RESOLVER, 53, dns(x)) for x in self.QUESTIONS}}

    def positive_control(self, bunker):
        """All of it once more with no agent and no rules: each one arrives."""
        agent, space = self.c.agents[0], f"bunker-{bunker}.1"
        wire = json.dumps({k: [kind, address, port, base64.b64encode(said).decode()]
                           for k, (kind, address, port, said) in self.controls().items()})
        self.c.sh(bunker, "cat > /tmp/probes.json", stdin=wire, user="0")
        self.c.sh(bunker, "cat > /tmp/probes.py", stdin=self.script, user="0")
        self.c.sh(bunker, "setsid sh -c 'for i in 1 2 3 4 5 6; do python3 /tmp/probes.py < /tmp/probes.json "
                          ">> /tmp/outcomes; sleep 3; done' >/dev/null 2>&1 & :", user="0")
        before = len(outside.log())
        agent.daemon.kill9()
        subprocess.run(["ip", "netns", "exec", space, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0",
                        "net.ipv4.conf.tap0.rp_filter=0"], check=True)
        for inside, more in ((["ip", "netns", "exec", space], CANARY), ([], b"")):
            subprocess.run([*inside, "nft", "-f", "-"], check=True, input=b"flush ruleset\ntable ip open { chain out { "
                           b"type nat hook postrouting priority 100; oifname != \"tap0\" masquerade; }; }\n" + more)
        self.await_all(space, before)
        subprocess.run(["nft", "delete", "table", "ip", "open"], check=True)
        agent.start()
        processes.wait_until(lambda: "policy drop" in subprocess.run(
            ["ip", "netns", "exec", space, "nft", "list", "ruleset"], check=True,
            stdout=subprocess.PIPE).stdout.decode(), "the rules are back", 60)
        for table in (("ip", "open"), ("netdev", "canary")):
            subprocess.run(["ip", "netns", "exec", space, "nft", "delete", "table", *table], check=True)
        self.c.wait_online(1, 60)
        self.check_answers(bunker)
        self.assert_nothing_left(bunker, EVERYWHERE)

    def await_all(self, space, before):
        """Until the world has seen every probe, every question, and the tap every spoofed frame."""
        wanted = {self.as_seen(kind, address, port) for kind, address, port, _ in self.controls().values()}
        wanted = {x for x in wanted if x[1:] != (outside.RESOLVER, 53)}
        # No device of the namespace takes these two; that they got that far is what the tap's rules prevent.
        wanted -= {("udp", EVIL, 4433), ("udp", EVIL, 4434)}
        wanted |= set(self.QUESTIONS) | set(FRAMES)

        def missing():
            seen = outside.log()[before:]
            return (wanted - self.arrived(seen) - {x["asked"] for x in seen if "asked" in x}
                    - {k for k, v in self.canary(space).items() if v > 0})
        try:
            processes.wait_until(lambda: not missing(), "all arrive without rules", 90)
        except AssertionError:
            self.fail(f"without rules, these did not arrive: {missing()}")

    def check_answers(self, bunker):
        """What the resolver says of names that lead inside had come to the guest, too."""
        told = [json.loads(x) for x in self.c.sh(bunker, "cat /tmp/outcomes").splitlines()]
        for name, address in self.QUESTIONS.items():
            if address is not None:
                answer = bytes(map(int, address.split("."))).hex()
                self.assertTrue(any(answer in x["ask " + name] for x in told), (name, told))

    def test_bandwidth(self):
        bunker = self.c.bunker("debian", network_profile="unrestricted", bandwidth_mbit=8)
        self.assertEqual(bunker["bandwidth_mbit"], 8)
        shaped = subprocess.run(["ip", "netns", "exec", f"bunker-{bunker['id']}.1", "tc", "qdisc"], check=True,
                                stdout=subprocess.PIPE).stdout.decode()
        self.assertEqual(shaped.count("rate 8Mbit"), 2, shaped)
        fetch = ("import time, urllib.request as u; t = time.monotonic(); n = len(u.urlopen('http://%s/big').read());"
                 "print(n, time.monotonic() - t)" % GOOD)
        size, took = self.c.exec(bunker["id"], ["python3", "-c", fetch])["stdout"].split()
        self.assertEqual(size, "4000000")
        # 4 s at that rate; only faster would be wrong.
        self.assertGreater(float(took), 3.0)
        self.assert_nothing_left(bunker["id"], {**EVERYWHERE, **self.spoofs()})
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)


def dns(name):
    labels = b"".join(bytes([len(x)]) + x.encode() for x in name.split("."))
    return struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


if __name__ == "__main__":
    outside.enter(NAMES)
    unittest.main(verbosity=2)
