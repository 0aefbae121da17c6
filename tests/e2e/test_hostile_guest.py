#!/usr/bin/python3
"""Guests whose PID 1 is no friend (tests/support/fake_hostile_guest.cc): whatever they send into the agent's
port, the agent lives, their own bunkers fail in time and say why, and the bunker next to them works on."""

import os
import threading
import time
import unittest

from harness import case, images, paths, processes

BOOT_S = 30
# What the row's message has to say. The first four never answer rightly; the others break a rule.
NEVER_UP = {"silent": "did not answer within 30s", "noise": "did not answer within 30s",
            "mute": "did not take its configuration", "halves": "did not take its configuration",
            "lengths": "a broken frame", "checksum": "a broken frame", "boot-error": "did not come up"}
# What a command in them answers.
LATER = {"credit": (503, "UNAVAILABLE", "credit for nothing"), "output": (503, "UNAVAILABLE", "the channel's rules"),
         "stranger": (503, "UNAVAILABLE", "output of no command"), "flood": (503, "UNAVAILABLE", "a broken frame"),
         "grudge": (503, "UNAVAILABLE", "the channel's rules"), "unread": (504, "UPSTREAM_TIMEOUT", "in time"),
         "twice": (200, None, "")}
PATIENCE_S = 60


def rss_kib(pid):
    return int(processes.status_of(pid)["VmRSS"].split()[0])


def archive(name, content):
    """A cpio archive of one program, as a kernel reads it after the archives before it."""
    out = b""
    for at, (path, mode, data) in enumerate(((name, 0o100755, content), ("TRAILER!!!", 0, b""))):
        fields = (at + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0)
        entry = b"070701" + b"".join(b"%08x" % x for x in fields) + path.encode() + b"\0"
        entry += b"\0" * (-len(entry) % 4) + data
        out += entry + b"\0" * (-len(entry) % 4)
    return out


class HostileGuestTest(case.ClusterTest):
    AGENT = {"vm": {"template_max": 0, "boot_deadline_s": 60, "concurrent_starts": 3},
             "worker": {"memory_mb": 16384, "cpu_millicores": 16000}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.agent = cls.c.agents[0]
        cls.neighbour = cls.c.bunker("tiny")["id"]
        rows = {x: cls.c.register(x, cls.c.registry.push(images.tiny(marker=x), x)) for x in [*NEVER_UP, *LATER]}
        cls.c.group("hostile", images=[x["id"] for x in rows.values()])
        for row in rows.values():
            cls.c.wait_cache(row["id"])
        cls.put_hostile_initrd()
        cls.vms = cls.agent.vm_pids()

    @classmethod
    def put_hostile_initrd(cls):
        """From here on what boots is hostile; the neighbour has booted before."""
        program = os.path.join(os.path.dirname(paths.BIN), "tests/fake_hostile_guest")
        path = os.path.join(cls.agent.folder, "initrd")
        with open(paths.guest_file("initrd"), "rb") as good, open(program, "rb") as bad, open(path, "wb") as out:
            content = good.read()
            out.write(content + b"\0" * (-len(content) % 512) + archive("init", bad.read()))
        with open(cls.agent.config, encoding="utf-8") as config:
            text = config.read().replace(paths.guest_file("initrd"), path)
            text = text.replace("boot_deadline_s = 60", f"boot_deadline_s = {BOOT_S}")
        with open(cls.agent.config, "w", encoding="utf-8") as config:
            config.write(text)
        cls.agent.daemon.stop()
        cls.agent.start()
        cls.c.wait_online(1)

    def setUp(self):
        processes.wait_until(lambda: self.c.call("POST", f"/bunkers/{self.neighbour}/exec", {"command": "true"})
                             .status_code == 200, "the neighbour answers", 60)
        self.rss = rss_kib(self.agent.daemon.pid)
        self.pid = self.agent.daemon.pid
        self.lost = self.agent.daemon.log().count("guest.channel.lost")
        self.begun = time.monotonic()

    def check_others(self):
        """The agent and the neighbour, once nothing hostile is left."""
        processes.wait_until(lambda: self.agent.vm_pids() == self.vms, "only the neighbour's VM is left", PATIENCE_S)
        self.agent.daemon.check()
        self.assertEqual(self.agent.daemon.pid, self.pid)
        self.assertEqual(self.c.sh(self.neighbour, "echo well"), "well\n")
        folder = os.path.join(self.agent.state, "vm")
        processes.wait_until(lambda: [x.split(".")[0] for x in os.listdir(folder)] == [self.neighbour],
                             "no folder of theirs is left", 30)
        grown = rss_kib(self.agent.daemon.pid) - self.rss
        lost = self.agent.daemon.log().count("guest.channel.lost") - self.lost
        took = time.monotonic() - self.begun
        print(f"the agent has grown by {grown} KiB; {lost} channels lost in {took:.0f} s", flush=True)
        self.assertLess(grown, 24 * 1024)
        # Calling again is spaced out: no hostile guest fills the log.
        self.assertLess(lost, 3 * len(LATER) + took / 2)

    def test_those_that_never_come_up_fail_in_time_and_say_why(self):
        rows = {x: self.c.post("/bunkers", {"image": x, "cpu_millicores": 100})["id"] for x in NEVER_UP}
        # Three start at a time, and each may take its whole time.
        deadline = time.monotonic() + 3 * (BOOT_S + 20) + PATIENCE_S
        slowest = 0.0
        left = dict(rows)
        while left:
            self.assertLess(time.monotonic(), deadline, f"these have not failed: {left}")
            for kind, bunker in list(left.items()):
                row = self.c.get(f"/bunkers/{bunker}")
                self.assertNotEqual(row["status"], "running", kind)
                if row["status"] != "failed":
                    continue
                del left[kind]
                print(f"{kind}: {row['status_reason']}: {row['status_message'][:160]}", flush=True)
                self.assertIn(NEVER_UP[kind], row["status_message"])
                self.assertTrue(row["status_message"].isprintable() and row["status_message"].isascii())
            begun = time.monotonic()
            self.assertEqual(self.c.sh(self.neighbour, "echo well"), "well\n")
            slowest = max(slowest, time.monotonic() - begun)
        print(f"the neighbour answered within {slowest:.2f} s", flush=True)
        self.check_others()

    def test_those_that_turn_later_harm_themselves(self):
        bunkers = {x: self.c.bunker(x, cpu_millicores=100)["id"] for x in LATER}
        told = {}

        def ask(kind):
            answer = self.c.call("POST", f"/bunkers/{bunkers[kind]}/exec", {"command": "true", "timeout_s": 2},
                                 seconds=PATIENCE_S)
            told[kind] = answer.status_code, answer.json()
        threads = [threading.Thread(target=ask, args=(x,)) for x in LATER]
        for thread in threads:
            thread.start()
        while any(x.is_alive() for x in threads):
            self.assertEqual(self.c.sh(self.neighbour, "echo well"), "well\n")
        for thread in threads:
            thread.join()
        self.assertEqual(set(told), set(LATER), "an answer did not come in time")
        for kind, (status, code, words) in LATER.items():
            error = told[kind][1].get("error", {})
            self.assertEqual((told[kind][0], error.get("code")), (status, code), (kind, told[kind]))
            self.assertIn(words, error.get("message", ""), kind)
        # A slip is forgiven: the channel comes back by itself.
        processes.wait_until(lambda: self.c.call("POST", f"/bunkers/{bunkers['twice']}/exec", {"command": "true"})
                             .status_code == 200, "it is asked again", 30)
        begun = time.monotonic()
        for bunker in bunkers.values():
            self.c.call("DELETE", f"/bunkers/{bunker}", expect=200)
        for kind, bunker in bunkers.items():
            processes.wait_until(lambda x=bunker: self.c.get(f"/bunkers/{x}")["terminated_at"], f"{kind} ends",
                                 PATIENCE_S)
        print(f"all have ended after {time.monotonic() - begun:.1f} s", flush=True)
        self.check_others()


if __name__ == "__main__":
    unittest.main(verbosity=2)
