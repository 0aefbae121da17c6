#!/usr/bin/python3
"""/metrics on its own listener: promtool takes it, the README lists it, it counts what happens, and
it holds no name or id of a tenant's."""

import os
import re
import shutil
import subprocess
import unittest

import httpx

from harness import case, images, paths


class MetricsTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        log = cls.c.controller.daemon.log()
        cls.url = f"http://127.0.0.1:{re.search(r'metrics_port.{1,3}?([0-9]+)', log).group(1)}/metrics"

    def text(self):
        answer = httpx.get(self.url, timeout=10)
        self.assertEqual(answer.status_code, 200)
        self.assertEqual(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        return answer.text

    def value(self, series):
        found = re.search("^" + re.escape(series) + r" (\S+)$", self.text(), re.M)
        return float(found.group(1)) if found else 0.0

    def test_it_counts_what_happens(self):
        commits = self.value("bunker_commits_total")
        self.assertEqual(self.value('bunker_workers{status="online"}'), 1)
        image = self.c.ready_image("measured-image-name")
        row = self.c.bunker("measured-image-name", name="measured-bunker-name")
        self.assertEqual(self.value('bunker_cache_entries{status="ready"}'), 1)
        started = 'bunker_bunkers{status="running",start_kind="%s"}'
        self.assertEqual(self.value(started % "cold") + self.value(started % "restore"), 1)
        self.assertEqual(self.value("bunker_placements_total"), 1)
        self.assertEqual(self.value("bunker_start_duration_seconds_count"), 1)
        self.assertEqual(self.value("bunker_link_sessions"), 1)
        self.assertGreater(self.value("bunker_link_observations_total"), 0)
        self.assertGreater(self.value("bunker_commits_total"), commits)
        self.assertGreaterEqual(self.value("bunker_fsyncs_total"), self.value("bunker_commits_total") - commits)
        route = 'route="/v1/modules/scaibunker/bunkers",method="POST"'
        self.assertEqual(self.value(f'bunker_http_requests_total{{{route},status="201"}}'), 1)
        self.c.error("POST", "/bunkers", {"image": "measured-image-name", "memory_mb": 1000000})
        self.assertEqual(self.value('bunker_placement_refusals_total{predicate="memory"}'), 1)
        self.assertEqual(self.value('bunker_api_errors_total{code="WORKER_UNAVAILABLE"}'), 1)
        self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)
        text = self.text()
        for secret in ("measured-", image["id"], row["id"], row["tenant_id"], self.c.workers()["w1"]["id"], "sgk_"):
            self.assertNotIn(secret, text)

    def test_promtool_takes_it_and_the_readme_lists_it(self):
        text = self.text()
        self.assertTrue(shutil.which("promtool"), "promtool is missing: apt-get install prometheus (tests/run does)")
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))
        with open(os.path.join(paths.ROOT, "README.md"), encoding="utf-8") as source:
            listed = set(re.findall(r"`((?:bunker|process)_[a-z_]+)`", source.read()))
        served = set(re.findall(r"^# TYPE (\S+)", text, re.M))
        self.assertEqual(served - listed, set(), "the README's table lacks these")

    def test_nothing_else_is_there(self):
        base = self.url.rsplit("/", 1)[0]
        self.assertEqual(httpx.get(base + "/").status_code, 404)
        self.assertEqual(httpx.post(self.url).status_code, 405)
        self.assertEqual(httpx.get(self.c.controller.host + "/metrics").status_code, 404)


if __name__ == "__main__":
    unittest.main(verbosity=2)
