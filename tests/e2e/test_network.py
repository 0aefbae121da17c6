#!/usr/bin/python3
"""Network profiles, attacked from inside guests, in a network of the test's own (harness/outside.py):
what a profile allows arrives, and of everything else not one packet leaves. In the end the rules are
taken away, and the very same probes arrive: so they could have."""

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
         "evil.example": [[EVIL]], "inside.registry.example": [[PRIVATE]],
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


def frame(source_mac, ethertype, payload):
    return GATEWAY_MAC + source_mac + ethertype.to_bytes(2, "big") + payload


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

    def assert_nothing_left(self, bunker, probes):
        outcomes, seen = self.probe(bunker, probes)
        for key, (kind, address, port, _) in probes.items():
            self.assertNotIn((kind, address, port), self.arrived(seen), key)
            if kind not in ("raw", "frame"):
                self.assertFalse(outcomes[key].startswith("heard"), (key, outcomes[key]))
        return seen

    def spaces(self):
        return [x for x in os.listdir("/run/netns") if x.startswith("bunker-bnk_")]

    def assert_nothing_stays(self):
        processes.wait_until(lambda: not self.spaces(), "no namespace stays", 30)
        links = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, check=True).stdout.decode()
        self.assertNotIn("bkv", links)
        self.assertEqual(self.c.agents[0].guard_pids(), [])

    def spoofs(self):
        good = packet("10.200.0.2", EVIL)
        return {"ip": ("raw", EVIL, 443, packet("10.200.0.9", EVIL)),
                "mac": ("frame", EVIL, 443, frame(b"\x02\x00\x00\x00\x00\x09", 0x0800, good)),
                "vlan": ("frame", EVIL, 443, frame(GUEST_MAC, 0x8100, b"\x00\x01\x08\x00" + good)),
                "ipv6": ("frame", EVIL, 443, frame(GUEST_MAC, 0x86dd, bytes(40)))}


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
        self.check_events(bunker["id"])
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)

    def test_isolated_has_no_card(self):
        bunker = self.c.bunker("debian", network_profile="isolated")
        self.assertEqual(self.c.sh(bunker["id"], "ls /sys/class/net").split(), ["lo"])
        self.assertIsNone(bunker["private_ip"])
        self.assertNotIn("bunker-" + bunker["id"] + ".1", self.spaces())
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
        self.assert_nothing_left(bunker, self.spoofs())
        self.lies(bunker)
        self.rebind(bunker)

    def lies(self, bunker):
        """To an address that was handed out, under a name that does not go with it."""
        lies = {"sni-evil": ("tcp", GOOD, 443, outside.client_hello("evil.example")),
                "sni-none": ("tcp", GOOD, 443, outside.client_hello(None)),
                "sni-other": ("tcp", GOOD, 443, outside.client_hello("second.registry.example")),
                "host-evil": ("tcp", GOOD, 80, http("evil.example")),
                "host-address": ("tcp", GOOD, 80, http(GOOD)),
                "host-other": ("tcp", GOOD, 80, http("second.registry.example")),
                "host-twice": ("tcp", GOOD, 80, http("files.registry.example", more="Host: evil.example\r\n")),
                "connect": ("tcp", GOOD, 80, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: files.registry.example\r\n\r\n"),
                "absolute": ("tcp", GOOD, 80, http("files.registry.example", "http://evil.example/")),
                "upgrade": ("tcp", GOOD, 80, http("files.registry.example", more="Upgrade: h2c\r\n")),
                "h2": ("tcp", GOOD, 80, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
                "ssh": ("tcp", GOOD, 443, b"SSH-2.0-OpenSSH_9\r\n")}
        outcomes, seen = self.probe(bunker, lies)
        for key, outcome in outcomes.items():
            self.assertNotIn("fine", outcome, key)
            self.assertNotIn("HEARD", outcome, key)
        self.assertEqual([x for x in seen if "heard" in x], [], "nothing of it was heard")
        # The second request of a connection is read as the first is.
        two = http("files.registry.example") + http("evil.example", "/smuggled")
        _, seen = self.probe(bunker, {"two": ("tcp", GOOD, 80, two)})
        self.assertNotIn("smuggled", "".join(x.get("heard", "") for x in seen))
        hidden = (b"POST / HTTP/1.1\r\nHost: files.registry.example\r\nContent-Length: 4\r\n\r\nbody"
                  + http("evil.example", "/smuggled"))
        _, seen = self.probe(bunker, {"hidden": ("tcp", GOOD, 80, hidden)})
        self.assertNotIn("smuggled", "".join(x.get("heard", "") for x in seen))

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
        def told():
            events = self.c.get(f"/bunkers/{bunker}/network/events")
            rules = {(x["decision"], x["rule"]) for x in events}
            wanted = {("denied", "dns"), ("allowed", "dns"), ("denied", "name"), ("allowed", "name"),
                      ("denied", "policy")}
            return events if wanted <= rules else None
        events = processes.wait_until(told, "the events", 30)
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
        self.assert_nothing_left(bunker["id"], self.spoofs())
        self.neighbours(bunker["id"], other["private_ip"])
        self.positive_control(bunker["id"])
        for row in (bunker, other):
            self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)
        self.assert_nothing_stays()

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

    def positive_control(self, bunker):
        """The probes of both lists once more with no agent and no rules: each one arrives."""
        agent, space = self.c.agents[0], f"bunker-{bunker}.1"
        probes = {**EVERYWHERE, **GUARDED}
        wire = json.dumps({k: [kind, address, port, base64.b64encode(said).decode()]
                           for k, (kind, address, port, said) in probes.items()})
        self.c.sh(bunker, "cat > /tmp/probes.json", stdin=wire, user="0")
        self.c.sh(bunker, "cat > /tmp/probes.py", stdin=self.script, user="0")
        self.c.sh(bunker, "setsid sh -c 'for i in 1 2 3 4 5 6; do python3 /tmp/probes.py < /tmp/probes.json; sleep 3;"
                          " done' >/dev/null 2>&1 & :", user="0")
        before = len(outside.log())
        agent.daemon.kill9()
        for inside in (["ip", "netns", "exec", space], []):
            subprocess.run([*inside, "nft", "-f", "-"], check=True, input=b"flush ruleset\ntable ip open { chain out { "
                           b"type nat hook postrouting priority 100; oifname != \"tap0\" masquerade; }; }\n")
        wanted = {(kind, address, port) for kind, address, port, _ in probes.values()}
        wanted -= {("tcp", outside.RESOLVER, 53)}
        try:
            processes.wait_until(lambda: wanted <= self.arrived(outside.log()[before:]), "all arrive without rules", 90)
        except AssertionError:
            self.fail(f"without rules, these did not arrive: {wanted - self.arrived(outside.log()[before:])}")
        subprocess.run(["nft", "delete", "table", "ip", "open"], check=True)
        agent.start()
        processes.wait_until(lambda: "policy drop" in subprocess.run(
            ["ip", "netns", "exec", space, "nft", "list", "ruleset"], check=True,
            stdout=subprocess.PIPE).stdout.decode(), "the rules are back", 60)
        subprocess.run(["ip", "netns", "exec", space, "nft", "delete", "table", "ip", "open"], check=True)
        self.c.wait_online(1, 60)
        self.assert_nothing_left(bunker, EVERYWHERE)

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
