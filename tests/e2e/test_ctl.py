#!/usr/bin/python3
"""bunkerctl and the event stream against goldens that a real run wrote.

BUNKER_UPDATE_GOLDENS=1 writes them anew: look at the difference before you commit it.
"""

import json
import os
import re
import subprocess
import unittest

import httpx

from harness import case, images, paths, processes
from harness.cluster import MODULE

GOLDEN = os.path.join(paths.E2E, "golden")

RULES = [
    (r"\b(img|ag|wrk|bnk|snap|req|usr|tnt)_[0-9a-f]{32}\b", r"\1_ID"),
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
           "version", "isolation", "cpu_millicores", "memory_mb", "disk_mb", "size_bytes"}


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
    AGENT = {"vm": {"template_max": 0}}  # how a bunker starts is the same each time
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

    def test_b_lifecycle(self):
        row = self.json("bunker", "create", "golden", "--name", "kept", "--lifecycle", "session", "--no-start")
        self.assertEqual((row["status"], row["incarnation"]), ("stopped", 1))
        self.assertEqual(self.json("bunker", "start", "kept")["incarnation"], 2)
        self.c.get("/bunkers/kept?wait_status=running&wait_s=60")
        self.assertEqual(self.json("bunker", "update", "kept", "--label", "a=b", "--name", "renamed")["label_set"],
                         {"a": "b"})
        self.assertEqual(self.json("bunker", "pause", "renamed")["name"], "renamed")
        self.c.get("/bunkers/renamed?wait_status=paused&wait_s=60")
        self.json("bunker", "resume", "renamed")
        self.c.get("/bunkers/renamed?wait_status=running&wait_s=60")
        self.assertEqual(self.json("bunker", "stop", "renamed")["status"], "stopping")
        self.assertIn("LIFECYCLE_MODE_DENIED", self.fails(1, "bunker", "stop", "gold"))
        self.c.ctl("bunker", "rm", "renamed")
        told = self.c.ctl("bunker", "events", row["id"], seconds=60).stdout
        self.assertIn("stopped", told.splitlines()[-1])

    def test_c_snapshots(self):
        self.json("bunker", "create", "golden", "--name", "source", "--cpu-millicores", "250")
        self.json_golden("snapshot-create.json", "snapshot", "create", "source", "--name", "one")

        def ready():
            return self.json("snapshot", "show", "one")["status"] == "ready"
        processes.wait_until(ready, "the snapshot is ready", 60, 0.2)
        self.json_golden("snapshot-list.json", "snapshot", "list", "--bunker", "source")
        table = self.c.ctl("snapshot", "list").stdout.splitlines()
        self.assertEqual(table[0].split(), ["NAME", "STATE", "CREATED", "AT", "IMAGE", "SIZE", "DISK", "MB", "BUNKER",
                                            "ID"])
        self.assertRegex(table[1], r"^one +ready ")
        copy = self.json("bunker", "create", "--snapshot", "one", "--name", "copy", "--cpu-millicores", "250")
        self.assertEqual((copy["status"], copy["image"]), ("running", "golden"))
        self.assertRegex(self.c.ctl("bunker", "rm", "copy", "--snapshot").stdout,
                         r"^copy ends once the snapshot snap_[0-9a-f]{32} is ready$")
        self.assertTrue(self.json("snapshot", "delete", "one")["deleting"])
        self.fails(2, "bunker", "create")
        self.fails(2, "bunker", "create", "golden", "--snapshot", "one")
        self.c.ctl("bunker", "rm", "source")

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

    def json(self, *arguments):
        return json.loads(self.c.ctl("--json", *arguments).stdout)

    def fails(self, code, *arguments):
        """The exit code of what must fail, and what people are told."""
        done = self.c.ctl(*arguments, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stderr

    def test_accounts(self):
        tenant = self.json("tenant", "create", "acme")
        user = self.json("user", "create", "ann", "--role", "tenant_viewer", "--tenant", tenant["id"])
        group = self.json("user-group", "create", "crew", "--permission", "scaibunker:execute")
        mine = self.json("user", "create", "bob", "--role", "tenant_user")
        self.json("user-group", "add", group["id"], mine["id"])
        self.assertIn("scaibunker:execute", self.json("user", "show", mine["id"])["effective_permissions"])
        self.json("user", "permissions", mine["id"], "--permission", "scaibunker:images:manage")
        key = self.json("key", "create", "spare", "--user", mine["id"], "--permission", "scaibunker:create",
                        "--expires-at", "2090-01-01T00:00:00Z", "--rate-limit", "7")
        self.assertRegex(key["key"], r"^sgk_[0-9A-Za-z]{43}$")
        environment = dict(self.c.shell_environment(), SCAIGRID_API_KEY=key["key"])
        who = processes.run([paths.binary("bunkerctl"), "--json", "whoami"], env=environment)
        self.assertEqual(json.loads(who.stdout)["permissions"], ["scaibunker:create"])
        self.json("key", "revoke", key["id"])
        gone = processes.run([paths.binary("bunkerctl"), "whoami"], env=environment, check=False)
        self.assertEqual(gone.returncode, 1)
        self.assertIn("AUTH_TOKEN_INVALID", gone.stderr)
        self.assertIn("ann", self.c.ctl("user", "list").stdout)
        self.json("user", "update", user["id"], "--status", "disabled")
        self.json("user-group", "remove", group["id"], mine["id"])
        self.json("user-group", "delete", group["id"])
        self.json("user", "delete", mine["id"])
        self.assertIn("VALIDATION_ERROR", self.fails(1, "user", "create", "eve", "--role", "emperor"))

    def test_c_files(self):
        here = os.path.join(self.c.folder, "files")
        os.makedirs(here)
        source, back = os.path.join(here, "a file"), os.path.join(here, "back")
        content = os.urandom(300_000)
        with open(source, "wb") as out:
            out.write(content)
        os.chmod(source, 0o750)
        self.c.ctl("file", "mkdir", "gold", "/srv/new/folder", "--parents")
        row = self.json("cp", source, "gold:/srv/new/folder/")
        self.assertEqual((row["path"], row["mode"], row["size"]), ("/srv/new/folder/a file", "0750", 300_000))
        self.c.ctl("cp", source, "gold:/srv/new/folder/run", "--mode", "0755")
        self.table_golden("file-list.txt", "file", "list", "gold", "/srv/new/folder")
        self.assertEqual(self.json("cp", "gold:/srv/new/folder/a file", back), {"path": back, "size": 300_000})
        with open(back, "rb") as found:
            self.assertEqual(found.read(), content)
        into = self.json("cp", "gold:/srv/new/folder/run", here)
        self.assertEqual(into["path"], os.path.join(here, "run"))
        environment = self.c.shell_environment()
        ctl = paths.binary("bunkerctl")
        told = subprocess.run([ctl, "cp", "-", "gold:/srv/piped"], input=content, env=environment, check=True,
                              capture_output=True)
        self.assertEqual(told.stdout, b"")
        told = subprocess.run([ctl, "cp", "gold:/srv/piped", "-"], env=environment, check=True, capture_output=True)
        self.assertEqual(told.stdout, content)
        packed = subprocess.run([ctl, "cp", "--tar", "gold:/srv/new", "-"], env=environment, check=True,
                                capture_output=True).stdout
        subprocess.run([ctl, "cp", "--tar", "-", "gold:/srv/copy"], input=packed, env=environment, check=True)
        self.assertEqual(self.json("file", "show", "gold", "/srv/copy/folder/run")["mode"], "0755")
        self.c.ctl("file", "mv", "gold", "/srv/copy/folder/run", "/srv/copy/run")
        self.assertIn("RESOURCE_IN_USE", self.fails(1, "file", "mv", "gold", "/srv/copy/folder", "/srv/copy/run"))
        self.assertIn("recursive", self.fails(1, "file", "rm", "gold", "/srv/copy"))
        self.c.ctl("file", "rm", "gold", "/srv/copy", "--recursive")
        self.assertIn("PATH_NOT_FOUND", self.fails(1, "file", "show", "gold", "/srv/copy"))
        told = os.path.join(self.c.folder, "watched")
        with open(told, "wb") as out, subprocess.Popen([ctl, "file", "watch", "gold", "/srv/new/folder"], stdout=out,
                                                       env=environment) as watch:
            processes.wait_until(lambda: self.c.ctl("cp", source, "gold:/srv/new/folder/run") and os.path.getsize(told),
                                 "the first change", 30)
            self.c.ctl("file", "rm", "gold", "/srv/new/folder", "--recursive")
            self.assertEqual(watch.wait(30), 0)
        with open(told, encoding="utf-8") as out:
            lines = out.read().splitlines()
        self.assertIn("removed  a file", lines)
        self.assertEqual(lines[-1].strip(), "ended")
        # What fails leaves nothing here.
        self.assertIn("PATH_NOT_FOUND", self.fails(1, "cp", "gold:/srv/none", os.path.join(here, "none")))
        self.assertIn("--tar", self.fails(1, "cp", "gold:/srv", os.path.join(here, "none")))
        self.assertIn("tar c", self.fails(1, "cp", here, "gold:/srv/x"))
        self.assertEqual(sorted(os.listdir(here)), ["a file", "back", "run"])
        for arguments in (["cp", source, back], ["cp", "gold:/a", "gold:/b"], ["cp", "gold:/a", back, "--mode", "1"]):
            self.fails(2, *arguments)

    def test_quotas_workers_and_audit(self):
        profile = self.json("quota-profile", "create", "small", "--max-bunkers", "0", "--description", "nothing")
        self.json("quota-profile", "update", profile["id"], "--max-memory-mb", "64", "--max-bunkers", "none")
        row = self.json("quota-profile", "show", profile["id"])
        self.assertEqual((row["max_memory_mb"], row["max_concurrent_bunkers"]), (64, None))
        self.c.ctl("quota-profile", "usage")
        me = self.json("whoami")["user"]["id"]
        given = self.json("quota-assignment", "create", "--profile", profile["id"], "--kind", "user", "--target", me,
                          "--mode", "individual")
        self.json("quota-assignment", "delete", given["id"])
        self.json("quota-profile", "delete", profile["id"])
        self.json("worker", "label", "w1", "--label", "metro=fra", "--label", "disk=fast")
        self.assertEqual(self.json("worker", "show", "w1")["labels"]["metro"], "fra")
        self.assertEqual(self.json("worker", "drain", "w1", "--deadline-s", "600", "--then", "wait")["status"],
                         "draining")
        self.assertEqual(self.json("worker", "resume", "w1")["status"], "online")
        self.assertIn("would_evict", self.json("worker", "gc", "w1", "--dry-run"))
        token = self.json("worker-token", "create", "w9", "--scope", "platform", "--shared", "--ttl-s", "60")
        self.assertTrue(token["token"])
        self.assertIn("w9", self.c.ctl("worker-token", "list").stdout)
        self.json("worker-token", "revoke", token["id"])
        self.assertIn("Workers.DrainWorker", self.c.ctl("audit", "list").stdout)
        self.assertEqual(len(self.json("audit", "head")["hash"]), 64)

    def test_credentials_keep_their_secret(self):
        secret = os.path.join(self.c.folder, "secret")
        with open(secret, "w", encoding="utf-8") as out:
            out.write("hush\n")
        self.json("credential", "create", "reg", "--host", "https://reg.example", "--username", "u",
                  "--password-file", secret)
        shown = self.c.ctl("credential", "show", "reg").stdout
        self.assertIn("reg.example", shown)
        self.assertNotIn("hush", shown)
        self.assertIn("reg", self.c.ctl("credential", "list").stdout)
        self.json("credential", "delete", "reg")

    def test_usage_errors_end_with_2(self):
        for arguments in (["image"], ["no-such"], ["key", "create"], ["run", "x", "-m", "lots"],
                          ["worker", "label", "w1", "--label", "x"], ["api", "FETCH", "/images"]):
            self.fails(2, *arguments)

    def test_run_names_what_it_started(self):
        ref = self.c.registry.push(images.tiny(marker="run"), "run", "v1")
        row = self.c.register("runner", ref)
        self.c.group("run", images=[row["id"]])
        self.c.wait_cache(row["id"])
        self.json("worker", "label", "w1", "--label", "metro=fra")
        text = self.c.ctl("run", "runner", "-m", "128MiB", "--replicas", "1", "--metro", "fra").stdout
        self.assertEqual(text.count("[●] Started"), 2, text)
        for label in ("name", "uuid", "state", "image", "boot time", "memory", "args"):
            self.assertRegex(text, rf"─ {label}: \S")
        self.assertIn("NO_SUITABLE_WORKER", self.fails(1, "run", "runner", "--metro", "nowhere")
                      .replace("WORKER_UNAVAILABLE", "NO_SUITABLE_WORKER"))
        explained = self.c.ctl("bunker", "explain", "runner").stdout
        self.assertRegex(explained, r"w1 +(true|false) ")

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
