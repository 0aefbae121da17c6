#!/usr/bin/python3
"""The served OpenAPI document: accepted by a validator, and every operation of it called with
generated requests, by a key of each role, with seeded ids; every answer is held against it.

The generator and the validator come from PyPI into a folder of this run's own. Where that can't be
reached, this says SKIPPED and what was left out.

BUNKER_SCHEMATHESIS_S=600 goes on for longer; BUNKER_SCHEMATHESIS_EXAMPLES=50 asks more of each.
BUNKER_SCHEMATHESIS_REPORT=FILE keeps the report.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import httpx

from harness import advisories, case, images, paths, processes

BUDGET_S = int(os.environ.get("BUNKER_SCHEMATHESIS_S", "85"))
EXAMPLES = int(os.environ.get("BUNKER_SCHEMATHESIS_EXAMPLES", "3"))
ROLES = ("tenant_viewer", "tenant_user", "tenant_admin", "partner_admin", "super_admin")
MODULE = "/v1/modules/scaibunker"
PACKAGES = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"]


def make_environment(folder):
    """A Python with the two packages, or why there is none."""
    for command in ([sys.executable, "-m", "venv", folder],
                    [os.path.join(folder, "bin/pip"), "install", "-q", "--disable-pip-version-check",
                     "--retries", "1", "--timeout", "15", *PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            return (done.stderr or done.stdout).strip().splitlines()[-1]
    return None


class OpenApiTest(case.ClusterTest):
    # One advisory, so that scans have something to say.
    ADVISORIES = tempfile.mkdtemp(prefix="bkosv")
    CONTROLLER = {"limits": {"requests_per_s": 100000.0, "request_burst": 100000.0},
                  "scan": {"advisories": ADVISORIES, "interval_s": 1}}
    # Few bunkers fit, so that generated creates boot few of them.
    AGENT = {"worker": {"cpu_millicores": 1000, "memory_mb": 1024, "disk_mb": 8192}}

    @classmethod
    def prepare(cls):
        cls.folder = tempfile.mkdtemp(prefix="bkapi")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.addClassCleanup(shutil.rmtree, cls.ADVISORIES, ignore_errors=True)
        advisories.write_osv(cls.ADVISORIES, advisories.osv("ALPINE-1", "busybox", "1.36.1-r6",
                                                            ecosystem="Alpine:v3.18"))
        cls.missing = make_environment(os.path.join(cls.folder, "venv"))
        answer = httpx.get(cls.c.controller.host + "/openapi.json",
                           headers={"Authorization": "Bearer " + cls.c.controller.key}, timeout=30)
        cls.document = answer.json()
        assert answer.status_code == 200, answer.text

    def have_tools(self):
        if self.missing:
            print(f"SKIPPED: no packages from PyPI ({self.missing}); left out: {self.id()}", flush=True)
        return not self.missing

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, data):
        with open(self.path(name), "w", encoding="utf-8") as out:
            json.dump(data, out)
        return self.path(name)

    def account(self, method, path, body=None):
        """A row of the account routes; None where this build does not have them."""
        answer = httpx.request(method, self.c.controller.host + path, json=body, timeout=30,
                               headers={"Authorization": "Bearer " + self.c.controller.key})
        return answer.json()["data"] if answer.status_code < 300 else None

    def keys(self):
        keys = {}
        for role in ROLES:
            user = self.account("POST", "/v1/users", {"name": "api-" + role, "role": role})
            key = user and self.account("POST", "/v1/api-keys", {"name": "api-" + role, "user_id": user["id"]})
            if key:
                keys[role] = key["key"]
        return keys or {"super_admin": self.c.controller.key}

    def test_a_validator_takes_it(self):
        if not self.have_tools():
            return
        done = subprocess.run([self.path("venv/bin/python"), "-m", "openapi_spec_validator",
                               self.write("openapi.json", self.document)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        print(f"openapi-spec-validator: {done.stdout.strip()}", flush=True)

    def seeds(self):
        """Ids of things that are there, by the names of path parameters and body fields."""
        image = self.c.ready_image("seeded", images.alpine())
        self.c.post(f"/images/{image['id']}/scan", expect=200)
        processes.wait_until(lambda: self.c.get(f"/images/{image['id']}")["scan_status"] != "pending",
                             "the image is scanned", 120, 0.2)
        bunker = self.c.bunker("seeded", name="seeded-bunker", memory_mb=128, cpu_millicores=100, disk_mb=64)
        snapshot = self.c.post(f"/bunkers/{bunker['id']}/snapshot", {})
        group = self.c.get("/availability-groups")[0]
        worker = self.c.get("/workers")[0]
        me = self.account("GET", "/v1/whoami")
        tenant, partner = me["tenant"]["id"], me["partner"]["id"]
        spare = self.account("POST", "/v1/users", {"name": "spare", "role": "tenant_user"}) or me["user"]
        crowd = self.account("POST", "/v1/groups", {"name": "crowd"}) or {"id": "none"}
        key = self.account("POST", "/v1/api-keys", {"name": "spare", "user_id": spare["id"]}) or {"id": me["key_id"]}
        secret = self.c.call("POST", "/registry-credentials", {"name": "spare", "host": self.c.registry.host,
                                                               "username": "u", "password": "p"})
        profile = self.c.call("POST", "/quota-profiles", {"name": "spare"})
        profile_id = profile.json()["data"]["id"] if profile.status_code == 201 else "none"
        assignment = self.c.call("POST", "/quota-assignments", {"profile_id": profile_id, "target_kind": "user",
                                                                "target_id": spare["id"], "mode": "individual"})
        token = self.c.call("POST", "/worker-tokens", {"name": "spare", "scope": "platform"})
        source = {"kind": "oci", "ref": image["build_source"]["ref"]}
        return {
            "image": image["id"], "bunker": bunker["id"], "snapshot": snapshot["id"], "group": group["id"], "worker": worker["id"],
            "project_id": tenant, "id": image["uuid"], "user": spare["id"], "key": key["id"], "tenant": tenant,
            "partner": partner, "profile": profile_id, "name": "spare" if secret.status_code == 201 else None,
            "assignment": assignment.json()["data"]["id"] if assignment.status_code == 201 else None,
            "token": token.json()["data"]["id"] if token.status_code == 201 else None,
            "/v1/groups/{group}#group": crowd["id"], "/v1/groups/{group}/members/{user}#group": crowd["id"],
            "body#image": "seeded", "body#build_source": source, "body#pull_secret": None,
            "body#tenant_id": tenant, "body#partner_id": partner, "body#user_id": spare["id"],
            "body#profile_id": profile_id, "body#target_id": spare["id"], "body#target_kind": "user",
            "body#parent_id": None, "body#swr_path": source["ref"], "body#command": ["true"], "body#user": "0",
            "body#cwd": "/", "body#arch": "X86_64", "body#snapshot": None,
            MODULE + "/availability-groups/{group}/images#ref": image["id"],
            MODULE + "/availability-groups/{group}/workers#ref": worker["id"],
            "required": {
                "CreateBunker": {"memory_mb": 64, "cpu_millicores": 100, "disk_mb": 64, "worker_labels": {},
                                 "env_vars": {}, "network_profile": "isolated", "gpu_count": 0},
                "ExplainPlacement": {"memory_mb": 64, "cpu_millicores": 100, "worker_labels": {}},
                "CreateUser": {"role": "tenant_user"}, "UpdateUser": {"role": "tenant_user"},
                "CreateApiKey": {"permissions": [], "expires_at": "2090-01-01T00:00:00Z"},
                "SetModulePermissions": {"permissions": ["scaibunker:execute"]},
                "CreateUserGroup": {"permissions": [], "parent_id": None},
                "PlanAvailabilityGroup": {"add_images": [image["id"]], "remove_images": [], "remove_workers": [],
                                          "add_workers": [worker["id"]]},
                "CreateRegistryCredential": {"host": "reg.example", "username": "u", "password": "p",
                                             "json_key": None, "scope": "tenant"},
                "ReplaceRegistryCredential": {"scope": "tenant", "host": "reg.example", "username": "u", "password": "p", "json_key": None},
                "CreateWorkerToken": {"tenant_id": None, "partner_id": None, "scope": "platform", "shared": False},
                "UpdateWorker": {"labels": {"metro": "fra"}}, "DrainWorker": {"deadline_s": 60, "then": "wait"},
                "CreateQuotaAssignment": {"mode": "individual"},
            }}

    def test_every_operation_answers_as_it_says(self):
        if not self.have_tools():
            return
        seeds = self.seeds()
        plan = self.write("plan.json", {
            "base": self.c.controller.host, "document": self.document, "keys": self.keys(),
            "admin": self.c.controller.key, "seeds": seeds, "examples": EXAMPLES, "budget_s": BUDGET_S})
        report_path = os.environ.get("BUNKER_SCHEMATHESIS_REPORT") or self.path("report.json")
        done = subprocess.run([self.path("venv/bin/python"), os.path.join(paths.ROOT, "tests/support/schemathesis_lane.py"),
                               plan, report_path], capture_output=True, text=True, timeout=BUDGET_S + 240)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(report_path, encoding="utf-8") as source:
            report = json.load(source)
        print(f"{'operation':34} {'calls':>6} {'2xx':>6}  statuses", flush=True)
        for name, row in sorted(report["operations"].items()):
            print(f"{name:34} {row['calls']:6} {row['2xx']:6}  {row['statuses']}", flush=True)
        untested = sorted(name for name, row in report["operations"].items() if row["2xx"] == 0)
        print(f"untested, for nothing answered 2xx: {', '.join(untested) or 'none'}")
        if report["cut_short"]:
            print(f"cut short by the budget of {BUDGET_S} s: {', '.join(report['cut_short'])}")
        self.c.controller.daemon.check()
        self.assertEqual(report["failures"], [], json.dumps(report["failures"], indent=1)[:20000])


if __name__ == "__main__":
    unittest.main(verbosity=2)
