#!/usr/bin/python3
"""A bunker that takes all it can get, and the one next to it: its commands go on at nearly the same pace.

The bound here is a generous one, for the machine does other things too; tests/perf/neighbour_bench.py has the goal."""

import os
import unittest

from harness import case, neighbours, processes

ROUNDS, EACH = 6, 12
MOST = {"p50": 3.0, "p90": 6.0}  # times of those with an idle hog


class NeighboursTest(case.ClusterTest):
    AGENT = {"vm": {"template_max": 0}}

    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.pair = neighbours.Pair(cls.c, "tiny")
        cls.agent = cls.c.agents[0]
        for _ in range(5):  # the first ones of a boot are slower
            cls.pair.timed.run()

    def hog(self, kind):
        pid, started = self.pair.vms["neighbour"], processes.start_time(self.pair.vms["neighbour"])
        rss = neighbours.rss_kib(self.agent.daemon.pid)
        idle, active = self.pair.measure(kind, ROUNDS, EACH)
        ratios = {}
        for name, q in (("p50", .5), ("p90", .9)):
            ratios[name] = neighbours.quantile(active, q) / neighbours.quantile(idle, q)
        grown = neighbours.rss_kib(self.agent.daemon.pid) - rss
        print(f"{kind}: p50 {neighbours.quantile(idle, .5):.0f} → {neighbours.quantile(active, .5):.0f} ms, ratios "
              f"{ {k: round(v, 2) for k, v in ratios.items()} }; the agent has grown by {grown} KiB", flush=True)
        for name, most in MOST.items():
            self.assertLessEqual(ratios[name], most, name)
        self.assertLess(grown, 16 * 1024)
        processes.wait_until(self.pair.hog_answers, "the hog's PID 1 answers", 60)
        self.assertEqual(processes.start_time(pid), started)
        self.assertEqual(set(self.agent.vm_pids()), set(self.pair.vms.values()))
        self.assertEqual(self.c.sh(self.pair.bunkers["neighbour"], "echo well"), "well\n")
        self.agent.daemon.check()

    def test_fork_bomb(self):
        self.hog("fork bomb")

    def test_disk_filler(self):
        self.hog("disk filler")
        # What it may fill is its own disk.
        folder = os.path.join(self.agent.state, "vm", self.pair.bunkers["hog"] + ".1")
        used = sum(os.stat(os.path.join(folder, x)).st_blocks * 512 for x in os.listdir(folder))
        self.assertLessEqual(used, 136 << 20)

    def test_memory_hog(self):
        self.hog("memory hog")

    def test_console_flood(self):
        self.hog("console flood")
        self.assertLess(os.stat(self.agent.daemon.log_path).st_size, 4 << 20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
