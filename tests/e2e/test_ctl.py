#!/usr/bin/python3
"""bunkerctl and the event stream against goldens that a real run wrote.

BUNKER_UPDATE_GOLDENS=1 writes them anew: look at the difference before you commit it.
"""

import json
import os
import re
import unittest

import httpx

from harness import case, images, paths, processes
from harness.cluster import MODULE

GOLDEN = os.path.join(paths.E2E, "golden")

RULES = [
    (r"\b(img|ag|wrk|bnk|req|usr|tnt)_[0-9a-f]{32}\b", r"\1_ID"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"sha256:[0-9a-f]{64}", "sha256:DIGEST"),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r"sha256:[0-9a-f]{12}\b", "sha256:PREFIX"),
    (r"\bnow\b|\b\d+ (second|minute)s? ago", "AGE"),
    (r"\b\d+us\b", "MICROSECONDS"),
]
# Figures that differ from run to run keep their type alone.
VARYING = {"size_in_bytes", "bytes_done", "bytes_total", "rate_bytes_per_s", "eta_s", "duration_ms", "queue_ms",
           "place_ms", "fetch_ms", "boot_ms", "agent_ms", "first_exec_ms", "cpu_s", "rss_bytes", "disk_bytes",
           "version", "isolation", "cpu_millicores", "memory_mb", "disk_mb"}


def normal(value, key=""):
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [normal(x) for x in value]
    if key in VARYING and value is not None:
        return "NUMBER" if isinstance(value, (int, float)) else "TEXT"
    if isinstance(value, str):
        for pattern, replacement in RULES:
            value = re.sub(pattern, replacement, value)
    return value


class GoldenTest(case.ClusterTest):
    maxDiff = None

    @classmethod
    def prepare(cls):
        cls.ref = cls.c.registry.push(images.tiny(marker="golden"), "golden", "v1")

    def compare(self, name, text):
        path = os.path.join(GOLDEN, name)
        if os.environ.get("BUNKER_UPDATE_GOLDENS"):
            os.makedirs(GOLDEN, exist_ok=True)
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
        with open(path, encoding="utf-8") as source:
            self.assertEqual(text, source.read(), f"differs from {path}")

    def json_golden(self, name, *arguments):
        data = json.loads(self.c.ctl("--json", *arguments).stdout)
        self.compare(name, json.dumps(normal(data), indent=2) + "\n")
        return data

    def table_golden(self, name, *arguments):
        text = self.c.ctl(*arguments).stdout
        for pattern, replacement in RULES:
            text = re.sub(pattern, replacement, text)
        self.compare(name, re.sub(r" +", " ", text))

    def test_a_whole_run(self):
        self.json_golden("image-register.json", "image", "register", "golden", "--ref", self.ref, "--size-mib", "64",
                         "--display-name", "Golden", "--preinstalled", "a,b", "--memory-mb", "256")
        self.json_golden("group-create.json", "group", "create", "g", "--worker", "w1", "--image", "golden")
        watched = self.c.ctl("image", "watch", "golden").stdout
        self.assertRegex(watched.splitlines()[-1], r"^w1  ready +\[#+\] 100 %")
        self.json_golden("image-show.json", "image", "show", "golden")
        self.table_golden("image-list.txt", "image", "list")
        self.table_golden("group-list.txt", "group", "list")
        self.json_golden("worker-list.json", "worker", "list")
        bunker = self.json_golden("bunker-create.json", "bunker", "create", "golden", "--name", "gold", "--env", "A=B")
        self.assertEqual(bunker["status"], "running")
        self.table_golden("bunker-list.txt", "bunker", "list")
        done = self.c.ctl("--json", "bunker", "exec", "gold", "--", "sh", "-c", "echo $A; exit 3", check=False)
        self.assertEqual(done.returncode, 3)
        self.compare("bunker-exec.json", json.dumps(normal(json.loads(done.stdout)), indent=2) + "\n")

    def test_events(self):
        ref = self.c.registry.push(images.tiny(marker="events"), "events")
        row = self.c.register("events", ref)
        self.c.group("events", images=[row["id"]])
        events, kinds = [], []
        with httpx.stream("GET", f"{self.c.controller.host}{MODULE}/images/events/cache", timeout=60, headers={
                "Authorization": f"Bearer {self.c.controller.key}", "Accept": "text/event-stream"}) as answer:
            self.assertEqual(answer.headers["content-type"].split(";")[0], "text/event-stream")
            name = data = None
            for line in answer.iter_lines():
                line = line.rstrip("\r\n")
                if line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data = line[5:].strip()
                elif not line and data is not None:
                    kinds.append(name)
                    events.append((name, json.loads(data)))
                    if isinstance(events[-1][1], dict) and events[-1][1].get("status") == "ready":
                        break
                    name = data = None
        self.assertIn("synced", kinds)
        last = events[-1]
        self.compare("cache-event.json", json.dumps([last[0], normal(last[1])], indent=2) + "\n")

    def test_errors_for_programs_and_people(self):
        done = self.c.ctl("--json", "image", "show", "no-such", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertEqual((done.stdout, json.loads(done.stderr)["error"]["code"]), ("", "NOT_FOUND"))
        people = self.c.ctl("image", "show", "no-such", check=False)
        self.assertRegex(people.stderr, r"^error: NOT_FOUND: ")
        environment = dict(os.environ)
        environment.pop("SCAIGRID_HOST", None)
        bare = processes.run([paths.binary("bunkerctl"), "image", "list"], check=False, env=environment)
        self.assertEqual(bare.returncode, 2)
        self.assertIn("SCAIGRID_HOST", bare.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
