#!/usr/bin/python3
"""Network profile transit: bunkers on bridges of the host, in a network of the test's own. What a card
may not call itself does not get past its rules, with the agent and without it; and from a card without
a guard the very same frames arrive, so they could have."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

import httpx

from harness import case, images, outside, paths, processes

LAB, WAN = f"br-lab{os.getpid() % 1000}", f"br-wan{os.getpid() % 1000}"
PEER, OTHER_PEER = "192.0.2.1", "198.51.100.1"
SPOOFS = ("mac", "source", "arp-address", "arp-mac", "ipv6", "advertisement", "dhcp", "vlan", "vlan-ip", "stacked",
          "lldp", "llc")


def mac_bytes(text):
    return bytes(int(x, 16) for x in text.split(":"))


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff


def udp(source, target, text, sport=4000, dport=9):
    body = struct.pack(">HHHH", sport, dport, 8 + len(text), 0) + text
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 7, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def arp(sender_mac, sender_address, target_mac, target, text):
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + sender_mac + socket.inet_aton(sender_address) + \
        target_mac + socket.inet_aton(target) + text


def ipv6(proto, body):
    return struct.pack(">IHBB", 6 << 28, len(body), proto, 255) + bytes.fromhex("fe80" + "00" * 13 + "05") + \
        bytes.fromhex("ff02" + "00" * 13 + "01") + body


def frames(mac, address, peer_mac, prefix):
    """Of a card: one that is good, and one of each kind that is not. Each says which it is."""
    own, to, other = mac_bytes(mac), mac_bytes(peer_mac), bytes.fromhex("020000000099")

    def mark(name):
        return f"<{prefix}-{name}-@@@@>".encode()

    def frame(source, kind, payload, target=to):
        return (target + source + struct.pack(">H", kind) + payload).hex()
    dhcp = udp(address, "255.255.255.255", mark("dhcp"), 67, 68)
    return {
        "good": frame(own, 0x0800, udp(address, PEER, mark("good"))),
        "good-arp": frame(own, 0x0806, arp(own, address, to, PEER, mark("good-arp"))),
        "mac": frame(other, 0x0800, udp(address, PEER, mark("mac"))),
        "source": frame(own, 0x0800, udp("192.0.2.77", PEER, mark("source"))),
        "arp-address": frame(own, 0x0806, arp(own, "192.0.2.77", to, PEER, mark("arp-address"))),
        "arp-mac": frame(own, 0x0806, arp(other, address, to, PEER, mark("arp-mac"))),
        "ipv6": frame(own, 0x86dd, ipv6(59, mark("ipv6"))),
        "advertisement": frame(own, 0x86dd, ipv6(58, bytes([134, 0, 0, 0]) + bytes(12) + mark("advertisement"))),
        "dhcp": frame(own, 0x0800, dhcp, b"\xff" * 6),
        "vlan": frame(own, 0x8100, b"\x00\x07\x86\xdd" + mark("vlan")),
        "vlan-ip": frame(own, 0x8100, b"\x00\x07\x08\x00" + udp(address, PEER, mark("vlan-ip"))),
        "stacked": frame(own, 0x88a8, b"\x00\x07\x81\x00\x00\x08\x08\x00" + udp(address, PEER, mark("stacked"))),
        "lldp": frame(own, 0x88cc, mark("lldp")),
        "llc": (to + own + struct.pack(">H", 60) + b"\xaa\xaa\x03" + mark("llc") + bytes(40)).hex(),
    }


class Canary:
    """A peer on a bridge, in a namespace of its own, that tells of each frame it gets."""

    def __init__(self, folder, bridge, address):
        self.log_path = os.path.join(folder, f"frames-{bridge}")
        script = os.path.join(paths.ROOT, "tests/support/frame_canary.py")
        self.process = subprocess.Popen(["unshare", "-n", sys.executable, script, "peer", address + "/24", self.log_path],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"waiting\n"
        outer = "pv-" + bridge[-8:]
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", "peer", "netns", str(self.process.pid))
        run("ip", "link", "set", outer, "master", bridge)
        run("ip", "link", "set", outer, "up")
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"ready\n"
        told = subprocess.run(["nsenter", "-t", str(self.process.pid), "-n", "ip", "-j", "link", "show", "peer"],
                              check=True, stdout=subprocess.PIPE).stdout
        self.mac = json.loads(told)[0]["address"]

    def frames(self):
        with open(self.log_path, encoding="utf-8") as source:
            return [json.loads(x) for x in source.read().splitlines() if x.endswith("}")]

    def marks(self, prefix):
        """{name: the rounds that arrived}"""
        found = {}
        for row in self.frames():
            for name, number in re.findall(f"<{prefix}-([a-z0-9-]+)-([0-9]{{4}})>", row["text"]):
                found.setdefault(name, set()).add(int(number))
        return found

    def stop(self):
        self.process.kill()
        self.process.wait(10)


def run(*argv):
    processes.run(list(argv))


def rules(bunker, incarnation=1):
    return subprocess.run(["ip", "netns", "exec", f"bunker-{bunker}.{incarnation}", "nft", "list", "ruleset"],
                          check=True, stdout=subprocess.PIPE).stdout.decode()


class TransitTest(case.ClusterTest):
    AGENT = {"network": {"bridges": [LAB, WAN, "br-missing"]}, "vm": {"usage_period_s": 1}}

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="bkt")
        for bridge in (LAB, WAN):
            run("ip", "link", "add", bridge, "type", "bridge", "stp_state", "0")
            run("ip", "link", "set", bridge, "up")
        cls.peer = Canary(cls.folder.name, LAB, PEER)
        cls.other_peer = Canary(cls.folder.name, WAN, OTHER_PEER)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for canary in (cls.peer, cls.other_peer):
            canary.stop()
        for bridge in (LAB, WAN):
            run("ip", "link", "delete", bridge)
        cls.folder.cleanup()

    @classmethod
    def prepare(cls):
        row = cls.c.register("debian", images.push_debian(cls.c.registry), size_mib=1024, default_memory_mb=384)
        cls.c.group("all", images=[row["id"]])
        cls.c.wait_cache(row["id"], seconds=300)
        cls.c.agents[0].wait_templates(2)  # so that it is restored guests that are attacked
        cls.lab = cls.c.post("/bridges", {"name": LAB})
        cls.wan = cls.c.post("/bridges", {"name": WAN, "workers": [cls.c.agents[0].name]})
        with open(os.path.join(paths.ROOT, "tests/support/frame_probes.py"), encoding="utf-8") as source:
            cls.script = source.read()

    def tearDown(self):
        for row in self.c.get("/bunkers?limit=200"):
            if row["terminated_at"] is None:  # of a test that failed: the next one is to see its own alone
                self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)
                self.c.get(f"/bunkers/{row['id']}?wait_status=stopped&wait_s=30")

    def attach(self, address=None, bridge=LAB, name="lan0", more=None, **fields):
        card = {"if_name": name, "bridge_name": bridge, **({"ipv4": address + "/24"} if address else {}), **(more or {})}
        return self.c.bunker("debian", network_profile="transit", interfaces=[card], **fields)

    def delete(self, *bunkers):
        for bunker in bunkers:
            self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        for bunker in bunkers:
            self.c.get(f"/bunkers/{bunker['id']}?wait_status=stopped&wait_s=30")
            processes.wait_until(lambda row=bunker: not os.path.exists(f"/run/netns/bunker-{row['id']}.1"),
                                 "its namespace is gone", 30)
        links = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, check=True).stdout.decode()
        self.assertNotIn("bkt", links.replace(self.folder.name, ""))

    def ping(self, bunker, address, expect=True):
        script = ("import socket,sys\n"
                  "s=socket.socket(socket.AF_INET,socket.SOCK_RAW,socket.IPPROTO_ICMP); s.settimeout(1)\n"
                  "for i in range(int(sys.argv[2])):\n"
                  "  try:\n"
                  "    s.sendto(b'\\x08\\x00\\xf7\\xfe\\x00\\x01\\x00\\x00',(sys.argv[1],0))\n"
                  "    d=s.recv(2000)\n"
                  "    if d[20]==0: print('pong'); break\n"
                  "  except OSError as error: last=error\n"
                  "else: print(last)\n")
        tries = "15" if expect else "2"
        told = self.c.exec(bunker["id"], ["python3", "-c", script, address, tries], user="0")["stdout"].strip()
        self.assertEqual(told == "pong", expect, told)

    def send(self, bunker, prefix, names=None, link="lan0", rounds=3):
        """Sends the frames, the good ones last; returns what had arrived when those had."""
        card = bunker["interfaces"][0]
        all_frames = frames(card["mac"], (card["ipv4"] or "192.0.2.50/24").split("/")[0], self.peer.mac, prefix)
        wanted = [all_frames[x] for x in names or SPOOFS]
        result = self.c.exec(bunker["id"], ["python3", "-c", self.script, link, str(rounds), "0.02"], user="0",
                             stdin=json.dumps(wanted + [all_frames["good"], all_frames["good-arp"]]))
        self.assertEqual(result["exit_code"], 0, result)

    def test_two_bunkers_and_a_peer(self):
        """They reach each other; and what is spoofed does not leave, restored guest or not."""
        one, two = self.attach("192.0.2.11"), self.attach("192.0.2.12")
        self.assertEqual((one["start_kind"], one["fallback_reason"]), ("restore", None))
        self.assertEqual((one["private_ip"], two["private_ip"]), ("192.0.2.11", "192.0.2.12"))
        card = one["interfaces"][0]
        self.assertRegex(card["mac"], "^02:")
        self.assertEqual((card["spoof_guard"], card["if_name"], card["bridge_name"]), (True, "lan0", LAB))
        self.assertEqual(self.c.sh(one["id"], "cat /sys/class/net/lan0/address").strip(), card["mac"])
        for target in ("192.0.2.12", PEER):
            self.ping(one, target)
        self.ping(two, "192.0.2.11")
        self.send(one, "one")
        last = {"good", "good-arp"}
        processes.wait_until(lambda: all(2 in self.peer.marks("one").get(x, ()) for x in last), "good frames", 20)
        self.assertEqual(set(self.peer.marks("one")), last, "of those that it may not send, none arrives")
        self.assertFalse([x for x in self.peer.frames() if x["src"] == card["mac"] and x["type"] not in (0x800, 0x806)])
        self.check_events(one)
        self.check_usage(one)
        self.survive_the_agent(one)
        self.delete(one, two)

    def test_without_a_guard_the_same_frames_arrive(self):
        bunker = self.attach("192.0.2.21", more={"spoof_guard": False})
        self.ping(bunker, PEER)
        self.send(bunker, "open")
        wanted = set(SPOOFS) | {"good", "good-arp"}
        try:
            processes.wait_until(lambda: wanted <= set(self.peer.marks("open")), "all arrive", 20)
        except AssertionError:
            self.fail(f"without a guard, these did not arrive: {wanted - set(self.peer.marks('open'))}")
        told = self.c.get(f"/audit?action=Bunkers.CreateBunker&target={bunker['id']}")
        self.assertEqual([("l2_transparency" in x["detail"], x["outcome"]) for x in told], [(True, "ok")])
        self.delete(bunker)

    def test_without_an_address_nothing_leaves(self):
        bunker = self.attach()
        self.assertIsNone(bunker["private_ip"])
        other = self.attach("192.0.2.31")
        self.send(bunker, "mute")
        self.send(other, "beside")
        processes.wait_until(lambda: 2 in self.peer.marks("beside").get("good", ()), "the other's arrive", 20)
        self.assertEqual(self.peer.marks("mute"), {})
        # It is the rules that hold it: without them the same frames arrive.
        self.loop_in_guest(bunker, "loop-mute")
        agent = self.c.agents[0]
        agent.daemon.kill9()
        run("ip", "netns", "exec", f"bunker-{bunker['id']}.1", "nft", "flush", "ruleset")
        processes.wait_until(lambda: set(SPOOFS) <= set(self.peer.marks("loop-mute")), "all arrive without rules", 60)
        agent.start()
        processes.wait_until(lambda: "policy drop" in rules(bunker["id"]), "the rules are back", 60)
        self.c.wait_online(1, 60)
        self.delete(bunker, other)

    def loop_in_guest(self, bunker, prefix):
        """Spoofed and good frames again and again, though nobody can ask the guest for them."""
        card = bunker["interfaces"][0]
        all_frames = frames(card["mac"], (card["ipv4"] or "192.0.2.50/24").split("/")[0], self.peer.mac, prefix)
        self.c.sh(bunker["id"], "cat > /tmp/frames.json", user="0",
                  stdin=json.dumps([all_frames[x] for x in SPOOFS + ("good", "good-arp")]))
        self.c.sh(bunker["id"], "cat > /tmp/probes.py", stdin=self.script, user="0")
        self.c.sh(bunker["id"], "setsid python3 /tmp/probes.py lan0 600 0.2 < /tmp/frames.json >/dev/null 2>&1 & :",
                  user="0")

    def survive_the_agent(self, bunker):
        agent = self.c.agents[0]
        self.loop_in_guest(bunker, "loop")
        processes.wait_until(lambda: self.peer.marks("loop").get("good"), "the loop runs", 30)
        agent.daemon.kill9()
        self.assertIn("policy drop", rules(bunker["id"]))
        newest = max(self.peer.marks("loop")["good"])
        processes.wait_until(lambda: max(self.peer.marks("loop")["good"]) > newest + 10, "it goes on", 60)
        self.assertEqual(set(self.peer.marks("loop")), {"good", "good-arp"})
        # And it is they that hold it: without them the same frames arrive.
        run("ip", "netns", "exec", f"bunker-{bunker['id']}.1", "nft", "flush", "ruleset")
        processes.wait_until(lambda: set(SPOOFS) <= set(self.peer.marks("loop")), "all arrive without rules", 60)
        agent.start()
        processes.wait_until(lambda: "policy drop" in rules(bunker["id"]), "the rules are back", 60)
        self.c.wait_online(1, 60)
        self.ping(bunker, PEER)
        self.send(bunker, "after")
        processes.wait_until(lambda: 2 in self.peer.marks("after").get("good-arp", ()), "good frames again", 20)
        self.assertEqual(set(self.peer.marks("after")), {"good", "good-arp"})

    def check_events(self, bunker):
        def told():
            events = self.c.get(f"/bunkers/{bunker['id']}/network/events")
            found = {(x["decision"], x["rule"]) for x in events}
            return events if {("denied", x) for x in ("mac", "arp", "source", "ethertype", "dhcp")} <= found else None
        events = processes.wait_until(told, "the events", 30)
        spoofed = [x for x in events if x["rule"] == "source" and x["name"] == "192.0.2.77"]
        self.assertTrue(spoofed and spoofed[0]["dst"] == PEER and spoofed[0]["count"] >= 3, events)
        self.assertIn("02:00:00:00:00:99", [x["name"] for x in events if x["rule"] == "mac"])

    def check_usage(self, bunker):
        def told():
            usage = self.c.get(f"/bunkers/{bunker['id']}")["usage"]
            return usage and usage["net_tx_bytes"] > 500 and usage["net_rx_bytes"] > 0
        processes.wait_until(told, "its traffic is told", 60)

    def test_several_cards(self):
        cards = [{"if_name": "eth1", "bridge_name": LAB, "ipv4": "192.0.2.41/24", "gateway": PEER,
                  "mac": "02:00:5E:10:00:41"},
                 {"if_name": "eth0", "bridge_name": WAN, "ipv4": "198.51.100.41/24"}]
        bunker = self.c.bunker("debian", network_profile="transit", interfaces=cards)
        self.assertEqual(bunker["start_kind"], "cold")
        self.assertIn("several network cards", bunker["fallback_reason"])
        self.assertEqual(bunker["interfaces"][0]["mac"], "02:00:5e:10:00:41")
        for card in bunker["interfaces"]:
            told = self.c.sh(bunker["id"], f"cat /sys/class/net/{card['if_name']}/address").strip()
            self.assertEqual(told, card["mac"])
        self.ping(bunker, PEER)
        self.ping(bunker, OTHER_PEER)
        self.assertIn(self.c.sh(bunker["id"], "awk '$2 == \"00000000\" {print $1}' /proc/net/route").strip(), "eth1")
        # From the other card, the first one's address is a stranger's.
        self.send(bunker, "second", ["source"], link="eth0", rounds=2)
        self.ping(bunker, OTHER_PEER)
        self.assertEqual(self.other_peer.marks("second"), {})
        self.delete(bunker)

    def test_a_restart_keeps_the_card(self):
        bunker = self.attach("192.0.2.51", lifecycle_mode="session")
        row = self.c.post(f"/bunkers/{bunker['id']}/restart", expect=200)
        self.assertEqual(row["interfaces"], bunker["interfaces"])
        row = self.c.get(f"/bunkers/{bunker['id']}?wait_status=running&wait_s=60")
        self.assertEqual((row["status"], row["incarnation"]), ("running", 2), row)
        self.assertEqual(row["interfaces"], bunker["interfaces"])
        told = self.c.sh(bunker["id"], "cat /sys/class/net/lan0/address").strip()
        self.assertEqual(told, bunker["interfaces"][0]["mac"])
        self.ping(row, PEER)
        self.c.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
        self.c.get(f"/bunkers/{bunker['id']}?wait_status=stopped&wait_s=30")

    def test_pause_leaves_the_card_alone(self):
        bunker = self.attach("192.0.2.56")
        self.c.post(f"/bunkers/{bunker['id']}/pause", expect=200)
        self.c.get(f"/bunkers/{bunker['id']}?wait_status=paused&wait_s=30")
        self.c.post(f"/bunkers/{bunker['id']}/resume", expect=200)
        self.c.get(f"/bunkers/{bunker['id']}?wait_status=running&wait_s=30")
        self.ping(bunker, PEER)
        self.delete(bunker)

    def test_bandwidth(self):
        bunker = self.attach("192.0.2.61", bandwidth_mbit=8)
        shaped = subprocess.run(["ip", "netns", "exec", f"bunker-{bunker['id']}.1", "tc", "qdisc"], check=True,
                                stdout=subprocess.PIPE).stdout.decode()
        self.assertEqual(shaped.count("rate 8Mbit"), 2, shaped)
        self.ping(bunker, PEER)
        fetch = ("import time, urllib.request as u; t = time.monotonic(); n = len(u.urlopen('http://%s/').read());"
                 "print(n, time.monotonic() - t)" % PEER)
        size, took = self.c.exec(bunker["id"], ["python3", "-c", fetch])["stdout"].split()
        self.assertEqual(size, "4000000")
        self.assertGreater(float(took), 3.0)  # 4 s at that rate; only faster would be wrong
        self.send(bunker, "shaped")
        processes.wait_until(lambda: 2 in self.peer.marks("shaped").get("good-arp", ()), "good frames", 20)
        self.assertEqual(set(self.peer.marks("shaped")), {"good", "good-arp"})
        self.delete(bunker)

    def test_a_bridge_is_its_tenants_alone(self):
        def account(path, body):
            answer = httpx.post(self.c.controller.host + path, json=body, timeout=30,
                                headers={"Authorization": f"Bearer {self.c.controller.key}"})
            self.assertEqual(answer.status_code, 201, answer.text)
            return answer.json()["data"]
        tenant = account("/v1/tenants", {"name": "others"})
        user = account("/v1/users", {"name": "ada", "role": "tenant_admin", "tenant_id": tenant["id"]})
        key = account("/v1/api-keys", {"name": "k", "user_id": user["id"]})["key"]
        self.c.post("/images", {"name": "theirs", "build_source": {"kind": "oci", "ref": "docker.io/r-base:4.4"},
                                "size_mib": 64}, key=key)

        def refused(bridge):
            return self.c.error("POST", "/bunkers", {
                "image": "theirs", "network_profile": "transit",
                "interfaces": [{"if_name": "eth0", "bridge_name": bridge}]}, key=key)
        theirs, nobodys = refused(LAB), refused("br-nobodys")
        self.assertEqual(theirs[:2], (404, "NOT_FOUND"))
        self.assertEqual(theirs[2].replace(LAB, "br-nobodys"), nobodys[2])
        self.assertEqual(self.c.get("/bridges", key=key), [])
        self.assertEqual(self.c.error("GET", f"/bridges/{self.lab['id']}", key=key)[0], 404)
        self.assertEqual(self.c.error("POST", "/bridges", {"name": LAB}, key=key)[0], 404, "the worker is only shared")
        # One that the operator lists and the host does not have is not reported.
        self.assertEqual(self.c.error("POST", "/bridges", {"name": "br-missing"})[0], 404)
        self.assertEqual(self.c.error("POST", "/bridges", {"name": "lo"})[0], 404)

    def test_a_mac_is_had_once(self):
        """Of those that the controller knows, and of whatever else is on the bridge."""
        bunker = self.attach("192.0.2.71", more={"mac": "02:00:5e:10:00:71"})
        body = {"image": "debian", "network_profile": "transit",
                "interfaces": [{"if_name": "lan0", "bridge_name": LAB, "mac": "02:00:5E:10:00:71"}]}
        self.assertEqual(self.c.error("POST", "/bunkers", body)[:2], (422, "VALIDATION_ERROR"))
        entries = subprocess.run(["bridge", "fdb", "show", "br", LAB], check=True, stdout=subprocess.PIPE).stdout
        self.assertRegex(entries.decode(), r"02:00:5e:10:00:71 dev bkt\d+a sticky master \S+ static")
        self.assertEqual(self.c.error("DELETE", f"/bridges/{self.lab['id']}")[:2], (409, "RESOURCE_IN_USE"))
        # That of the bridge itself: nothing is left of the attempt.
        told = subprocess.run(["ip", "-j", "link", "show", LAB], check=True, stdout=subprocess.PIPE).stdout
        body["interfaces"][0]["mac"] = json.loads(told)[0]["address"]
        row = self.c.post("/bunkers?wait_s=60", body)
        self.assertEqual(row["status"], "failed", row)
        self.assertIn(f"the MAC {body['interfaces'][0]['mac']} can't be had on the bridge {LAB}", row["status_message"])
        # The image's template is none the worse for it.
        again = self.attach("192.0.2.72")
        self.assertEqual((again["start_kind"], again["fallback_reason"]), ("restore", None))
        self.delete(row, bunker, again)

    def port_of(self, mac):
        """By what port the bridge reaches that MAC."""
        entries = subprocess.run(["bridge", "fdb", "show", "br", LAB], check=True, stdout=subprocess.PIPE).stdout
        return [x.split()[2] for x in entries.decode().splitlines() if x.startswith(mac + " dev ")]

    def speak_as(self, mac):
        """From the peer, to all: frames that say they are from that MAC."""
        frame = "ff" * 6 + mac.replace(":", "") + "0806" + "00" * 46
        subprocess.run(["nsenter", "-t", str(self.peer.process.pid), "-n", sys.executable, "-c", self.script,
                        "peer", "3", "0.02"], input=json.dumps([frame]).encode(), check=True)

    def test_nobody_takes_a_cards_frames(self):
        """Who speaks with a guarded card's MAC does not get what is for it; with another's, he does."""
        guarded, bare = self.attach("192.0.2.81"), self.attach("192.0.2.82", more={"spoof_guard": False})
        macs = [x["interfaces"][0]["mac"] for x in (guarded, bare)]
        for bunker, mac in zip((guarded, bare), macs):
            self.ping(bunker, PEER)
            self.assertRegex(",".join(self.port_of(mac)), r"^bkt\d+a$")

        def taken(mac):
            self.speak_as(mac)
            return self.port_of(mac) == ["pv-" + LAB[-8:]]
        processes.wait_until(lambda: taken(macs[1]), "the bare one's are the peer's", 20)
        self.assertFalse(taken(macs[0]))
        self.assertRegex(",".join(self.port_of(macs[0])), r"^bkt\d+a$")
        self.ping(guarded, PEER)
        self.delete(guarded, bare)


if __name__ == "__main__":
    outside.enter({})
    case.main()
