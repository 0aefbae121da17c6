#!/usr/bin/python3
"""Fast start: bunkers restored from templates, each itself and nobody's double."""

import hashlib
import os
import re
import signal
import time
import unittest

from harness import case, processes

CLONES = int(os.environ.get("BUNKER_CLONES", "6"))
# One script a clone, so that what is compared was read at one moment. The first random bytes are
# those of the first process that asks.
IDENTITY = ("od -An -tx1 -N16 /dev/urandom; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; "
            "hostname; date +%s.%N 2>/dev/null || date +%s")


class ClonesTest(case.ClusterTest):
    AGENT = {"vm": {"template_max": 6, "concurrent_starts": 2}, "worker": {"memory_mb": 16384}}

    @classmethod
    def prepare(cls):
        cls.image = cls.c.ready_image()
        cls.wait_templates(2)  # of its default size, without and with a network card

    @classmethod
    def log(cls):
        return cls.c.agents[0].daemon.log()

    @classmethod
    def wait_templates(cls, count):
        cls.c.agents[0].wait_templates(count)

    def create(self, **more):
        row = self.c.bunker("tiny", **{"cpu_millicores": 100, **more})  # many fit, each with one CPU
        self.addCleanup(self.c.call, "DELETE", f"/bunkers/{row['id']}")
        return row

    def delete(self, *rows):
        for row in rows:
            self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)

    def test_clones_are_restored_and_none_is_anothers_double(self):
        before = self._base_digests()
        rows = [self.create(network_profile="registry") for _ in range(CLONES)]
        self.assertEqual({(x["start_kind"], x["fallback_reason"]) for x in rows}, {("restore", None)})
        self.assertEqual(len({x["private_ip"] for x in rows}), CLONES, [x["private_ip"] for x in rows])
        seen = [self.c.sh(x["id"], IDENTITY, user="0").split("\n")[:4] for x in rows]
        for what, values in zip(("random bytes", "machine-id", "boot_id", "host name"), zip(*seen)):
            self.assertEqual(len(set(values)), CLONES, f"{what}: {values}")
        for row, (_, machine_id, _, hostname) in zip(rows, seen):
            self.assertRegex(machine_id, "^[0-9a-f]{32}$")
            self.assertEqual(hostname, row["name"])
        for row in rows:
            self.c.sh(row["id"], f"echo {row['id']} > /root/mine && sync")
        for row in rows:
            self.assertEqual(self.c.sh(row["id"], "cat /root/mine").strip(), row["id"])
        off = [self.clock_off(x["id"], 2) for x in rows]
        print(f"clocks of {CLONES} clones off by at least, ms: {[round(x * 1000, 1) for x in off]}", flush=True)
        self.assertLess(max(off), 0.1)
        self.assertEqual(self._base_digests(), before)
        print("PSS of a clone, MB:", [round(x / 1e6, 1) for x in self._pss()], flush=True)
        self.delete(*rows)

    def clock_off(self, bunker, reads):
        """Seconds by which the guest's clock lies at least outside of the times before and after it was read."""
        off = []
        for _ in range(reads):
            begin = time.time()
            # The kernel's own, to the nanosecond: busybox's date knows seconds alone.
            text = self.c.sh(bunker, "touch /tmp/now && stat -c %y /tmp/now")
            end = time.time()
            stamp = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)?", text)
            guest = (time.mktime(time.strptime(stamp.group(1), "%Y-%m-%d %H:%M:%S")) - time.timezone
                     + float(stamp.group(2) or 0))
            off.append(max(begin - guest, guest - end, 0.0))
        return min(off)

    def test_the_clock_is_the_hosts(self):
        row = self.create()
        off = self.clock_off(row["id"], 5)
        print(f"clock off by at least {off * 1000:.1f} ms", flush=True)
        self.assertLess(off, 0.1)
        self.delete(row)

    def test_a_larger_disk_is_grown(self):
        row = self.create(disk_mb=700, cpu_millicores=1000)
        self.assertEqual(row["start_kind"], "restore", row)
        blocks = int(self.c.sh(row["id"], "df -k / | tail -n 1").split()[1])
        self.assertGreater(blocks, 600 * 1024)
        self.c.sh(row["id"], "dd if=/dev/zero of=/root/big bs=1M count=400 && sync && rm /root/big")
        self.delete(row)

    def test_a_network_card_is_restored_with_the_bunkers_own_address(self):
        rows = [self.create(network_profile="registry") for _ in range(2)]
        self.assertEqual({(x["start_kind"], x["fallback_reason"]) for x in rows}, {("restore", None)})
        self.assertEqual(len({x["private_ip"] for x in rows}), 2)
        for row in rows:
            routes = self.c.sh(row["id"], "cat /proc/net/route")
            self.assertRegex(routes, r"eth0\s+00000000\s+0100C80A")  # by 10.200.0.1
            self.assertIn("nameserver", self.c.sh(row["id"], "cat /etc/resolv.conf"))
        self.delete(*rows)

    def test_what_keeps_its_disk_is_restored_once_and_boots_from_then_on(self):
        row = self.create(lifecycle_mode="session", disk_mb=200)
        self.assertEqual((row["start_kind"], row["fallback_reason"]), ("restore", None))
        self.c.sh(row["id"], "echo kept > /root/note")
        for verb, status in (("stop", "stopped"), ("start", "running")):
            self.c.call("POST", f"/bunkers/{row['id']}/{verb}", expect=200)
            again = self.c.get(f"/bunkers/{row['id']}?wait_status={status}&wait_s=60")
            self.assertEqual(again["status"], status, again)
        self.assertEqual(again["start_kind"], "cold", again)
        self.assertIn("a disk of before", again["fallback_reason"])
        self.assertEqual(self.c.sh(row["id"], "cat /root/note"), "kept\n")
        blocks = int(self.c.sh(row["id"], "df -k / | tail -n 1").split()[1])
        self.assertGreater(blocks, 150 * 1024)
        self.delete(row)

    def test_another_size_boots_first_and_is_restored_next(self):
        made = self.log().count("template.made")
        row = self.create(memory_mb=200)
        self.assertEqual(row["start_kind"], "cold", row)
        self.assertIn("TEMPLATE_MISSING", row["fallback_reason"])
        self.wait_templates(made + 1)
        again = self.create(memory_mb=200)
        self.assertEqual(again["start_kind"], "restore", again)
        self.delete(row, again)

    def test_a_template_whose_making_is_killed_is_told_of(self):
        made = self.log().count("template.failed")
        # Asks for a template of its size, which may be there before it runs itself.
        row = self.c.post("/bunkers", {"image": "tiny", "cpu_millicores": 100, "memory_mb": 210})
        self.addCleanup(self.c.call, "DELETE", f"/bunkers/{row['id']}")
        making = processes.wait_until(self.c.agents[0].template_pids, "a template is being made", 120, 0.02)
        os.kill(making[0], signal.SIGKILL)
        processes.wait_until(lambda: self.log().count("template.failed") > made, "it failed", 60)
        row = self.c.until_running(row)
        self.assertEqual(row["start_kind"], "cold", row)
        again = self.create(memory_mb=210)
        self.assertEqual(again["start_kind"], "cold", again)
        self.assertIn("TEMPLATE_FAILED", again["fallback_reason"])
        self.delete(row, again)

    def test_a_template_that_broke_costs_a_boot_and_no_bunker(self):
        made = self.log().count("template.made")
        self.delete(self.create(memory_mb=220))
        self.wait_templates(made + 1)
        name = re.findall(r"template\.made name=(template\.\d+)", self.log())[-1]
        disk = os.path.join(self.c.agents[0].state, "vm", name, "rw.ext4")
        os.remove(disk)
        row = self.create(memory_mb=220)
        self.assertEqual(row["start_kind"], "cold", row)
        self.assertIn("RESTORE_FAILED", row["fallback_reason"])
        self.assertEqual(self.c.sh(row["id"], "echo well"), "well\n")
        self.delete(row)

    def test_clones_outlive_their_agent(self):
        before = self.log().count("template.made")
        rows = [self.create() for _ in range(2)]
        agent = self.c.agents[0]
        pids = set(agent.vm_pids())
        agent.daemon.kill9()
        links = self.log().count("link.connected")
        agent.start()
        processes.wait_until(lambda: self.log().count("link.connected") > links, "it is back", 60)
        for row in rows:
            self.assertEqual(self.c.sh(row["id"], "echo here"), "here\n")
            self.assertEqual(self.c.get(f"/bunkers/{row['id']}")["incarnation"], row["incarnation"])
        self.assertTrue(pids & set(agent.vm_pids()))
        self.delete(*rows)
        self.wait_templates(before + 1)
        row = self.create()
        self.assertEqual(row["start_kind"], "restore", row)
        self.delete(row)

    def _base_digests(self):
        digests = {}
        for path in self.c.agents[0].image_files().values():
            with open(path, "rb") as source:
                digests[path] = hashlib.sha256(source.read()).hexdigest()
        return digests

    def _pss(self):
        sizes = []
        for pid in self.c.agents[0].vm_pids():
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
                sizes += [int(x.split()[1]) * 1024 for x in rollup if x.startswith("Pss:")]
        return sizes


class PoolTest(case.ClusterTest):
    """Clones that have run something already and wait, paused, to be asked for."""

    AGENT = {"vm": {"template_max": 2, "pool_max": 2}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.agent = cls.c.agents[0]
        cls.agent.wait_templates(2)

    def setUp(self):
        self.rows = []
        self.seen = self.agent.daemon.log().count("pool.ready")

    def create(self, **more):
        row = self.c.bunker("tiny", cpu_millicores=100, **more)
        self.rows.append(row["id"])
        return row

    def tearDown(self):
        for row in self.rows:
            self.c.call("DELETE", f"/bunkers/{row}", expect=200)
        processes.wait_until(lambda: not [x for x in self.rows if not self.c.get(f"/bunkers/{x}")["terminated_at"]],
                             "all have ended", 60)

    def wait_pooled(self):
        """For the next clone that waits; returns its name."""
        def ready():
            names = re.findall(r"pool\.ready name=(pool\.\d+)", self.agent.daemon.log())
            return names[self.seen] if len(names) > self.seen else None
        name = processes.wait_until(ready, "a clone waits", 120, 0.1)
        self.seen += 1
        return name

    def folders(self):
        return set(os.listdir(os.path.join(self.agent.state, "vm")))

    def test_a_second_one_comes_from_the_pool_and_is_nobodys_double(self):
        first = self.create()
        self.wait_pooled()
        second = self.create()
        self.assertEqual((second["start_kind"], second["fallback_reason"]), ("pool", None))
        self.wait_pooled()
        third = self.create()
        self.assertEqual(third["start_kind"], "pool", third)
        self.assertEqual(self.create(disk_mb=700)["start_kind"], "restore")  # a clone's disk can't grow
        rows = (first, second, third)
        seen = [self.c.sh(x["id"], IDENTITY, user="0").split("\n")[:4] for x in rows]
        for what, values in zip(("random bytes", "machine-id", "boot_id", "host name"), zip(*seen)):
            self.assertEqual(len(set(values)), 3, f"{what}: {values}")
        for row, said in zip(rows, seen):
            self.assertEqual(said[3], row["name"])
            self.assertNotEqual(said[1], "0" * 32)
            self.assertLess(abs(int(self.c.sh(row["id"], "date +%s")) - time.time()), 3)

    def test_one_that_died_waiting_costs_a_restore(self):
        self.create()
        name = self.wait_pooled()
        for pid in self.agent.vm_pids():
            if name in processes.command_line(pid):
                os.kill(pid, signal.SIGKILL)
        row = self.create()
        self.assertIn(row["start_kind"], ("restore", "pool"))  # another may be there by now
        self.assertEqual(self.c.sh(row["id"], "echo well"), "well\n")
        processes.wait_until(lambda: name not in self.folders(), "nothing of it is left", 60)

    def test_those_taken_outlive_their_agent_and_those_waiting_do_not(self):
        self.create()
        self.wait_pooled()
        taken = self.create()
        self.assertEqual(taken["start_kind"], "pool", taken)
        waiting = self.wait_pooled()
        self.agent.daemon.kill9()
        links = self.agent.daemon.log().count("link.connected")
        self.agent.start()
        processes.wait_until(lambda: self.agent.daemon.log().count("link.connected") > links, "it is back", 60)
        self.assertEqual(self.c.sh(taken["id"], "echo here"), "here\n")
        self.assertNotIn(waiting, self.folders())
        self.assertEqual(len(self.agent.vm_pids()), 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
