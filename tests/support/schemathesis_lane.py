#!/usr/bin/env python3
"""Calls every operation of a served OpenAPI document with generated requests and holds each answer
against the document. Runs under a Python that has schemathesis; test_schemathesis.py makes one.

usage: schemathesis_lane.py PLAN.json REPORT.json

PLAN: {"base", "document", "keys": {role: key}, "admin": key, "seeds": {...}, "examples", "budget_s"}
REPORT: {"operations": {id: {"2xx", "calls", "statuses"}}, "failures": [...], "cut_short"}
"""

import collections
import json
import sys
import time

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

CHECKS = [checks.status_code_conformance, checks.content_type_conformance,
          checks.response_headers_conformance, checks.response_schema_conformance]
DOCUMENTED_5XX = {503, 504, 507}
MODULE = "/v1/modules/scaibunker"


def close_answers(document):
    """Answers may grow for clients; here a field that the document does not have is a mismatch."""
    def close(schema):
        if isinstance(schema, list):
            for part in schema:
                close(part)
        if not isinstance(schema, dict):
            return
        if schema.get("type") in ("object", ["object", "null"]) and "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)
    for name, schema in document["components"]["schemas"].items():
        if not name.endswith(("Request", "Input")):
            close(schema)
    for verbs in document["paths"].values():
        for operation in verbs.values():
            close(operation["responses"])
    return document


class Lane:
    def __init__(self, plan):
        self.plan = plan
        self.base = plan["base"]
        self.seeds = plan["seeds"]
        self.session = requests.Session()
        self.counts = collections.defaultdict(collections.Counter)
        self.failures = {}
        self.deadline = time.monotonic() + plan["budget_s"]
        self.cut_short = []
        self.made = 0

    def admin(self, method, path, body=None):
        answer = self.session.request(method, self.base + path, json=body, timeout=60, headers={
            "Authorization": "Bearer " + self.plan["admin"]})
        return answer.json().get("data") if answer.content else None

    def throwaway(self, operation):
        """Path parameters of a thing made to be deleted or changed; None: there is no recipe."""
        self.made += 1
        name = f"throwaway-{self.made}"
        if operation.path.endswith("/quota-assignments/{assignment}"):
            row = self.admin("POST", MODULE + "/quota-assignments", {
                "profile_id": self.seeds["profile"], "target_kind": "user", "target_id": self.fresh_user(),
                "mode": "individual"})
            return {"assignment": row["id"]} if row else None
        for prefix, (body, variable) in THROWAWAYS.items():
            if operation.path == prefix + "/{" + variable + "}" or \
                    operation.path.startswith(prefix + "/{" + variable + "}/"):
                body = json.loads(json.dumps(body).replace("NAME", name))
                row = self.admin("POST", prefix, body)
                if isinstance(row, dict):
                    return {variable: row.get("id") or row.get("name")}
        return None

    def fresh_user(self):
        self.made += 1
        return self.admin("POST", "/v1/users", {"name": f"target-{self.made}", "role": "tenant_user"})["id"]

    def parameters(self, operation):
        """The seeded path parameters, or None where one is unknown."""
        names = [x.name for x in operation.path_parameters]
        if operation.method.upper() in ("DELETE", "PATCH", "PUT"):
            made = self.throwaway(operation)
            if made is not None:
                return {**{n: self.seeds.get(n, "none") for n in names}, **made}
        values = {}
        for name in names:
            special = self.seeds.get(operation.path + "#" + name)
            values[name] = special or self.seeds.get(name)
        return values if all(values.values()) else None

    def tame(self, case, seeded):
        """Nothing waits long, and where seeds are asked for, references lead somewhere."""
        if seeded and case.headers:
            # The generator's keys repeat, and a repeat under another body is a conflict.
            case.headers = {k: v for k, v in case.headers.items() if k.lower() != "idempotency-key"}
        if isinstance(case.query, dict):
            for waiting in ("wait_s", "wait_status"):
                case.query.pop(waiting, None)
            if seeded:
                case.query.pop("cursor", None)
        body = case.body
        if not isinstance(body, dict):
            return
        if "timeout_s" in body:
            body["timeout_s"] = 1
        if not seeded:
            return
        for key in list(body):
            value = self.seeds.get(f"{case.operation.path}#{key}", self.seeds.get("body#" + key))
            if value is not None:
                body[key] = value
        for key, value in self.seeds.get("required", {}).get(case.operation.definition.raw["operationId"], {}).items():
            body[key] = value
        if case.operation.definition.raw["operationId"] == "CreateQuotaAssignment":
            body.update(target_kind="user", target_id=self.fresh_user())  # one for each target
        # A name is unique; the generator's favourites are not.
        if "name" in body and isinstance(body["name"], str) and case.method.upper() == "POST" and body["name"]:
            self.made += 1
            body["name"] = f"generated-{self.made}"

    def one(self, operation, role, mode):
        seeded, generation = mode
        overrides = self.parameters(operation) if seeded else None
        if seeded and overrides is None:
            return
        strategy = operation.as_strategy(generation_mode=generation,
                                         **({"path_parameters": overrides} if overrides else {}))

        def call(case):
            if time.monotonic() > self.deadline:
                return
            if overrides:
                case.path_parameters = dict(overrides)
            self.tame(case, seeded)
            # A stream of events would go on for ever: asked for JSON, its route refuses.
            headers = {"Authorization": "Bearer " + self.plan["keys"][role], "Accept": "application/json"}
            try:
                response = case.call(base_url=self.base, session=self.session, headers=headers, timeout=20)
            except requests.exceptions.Timeout as late:
                name = operation.definition.raw["operationId"]
                self.failures[(name, "late")] = {"operation": name, "role": role, "message": f"no answer: {late}",
                                                 "sent": f"{case.method} {case.path} {case.query!r} {case.body!r}"}
                return
            except requests.exceptions.ConnectionError as gone:
                name = operation.definition.raw["operationId"]
                self.failures[(name, "gone")] = {"operation": name, "role": role, "message": f"no answer: {gone}",
                                                 "sent": f"{case.method} {case.path} {case.query!r} {case.body!r}"}
                self.deadline = 0  # nothing else would be told by going on
                return
            self.judge(operation, role, mode, case, response)
        run = settings(max_examples=self.plan["examples"], deadline=None, derandomize=True, database=None,
                       phases=[Phase.generate], suppress_health_check=list(HealthCheck))(given(strategy)(call))
        try:
            run()
        except Unsatisfiable:
            pass  # this mode makes no request of it
        except Flaky:
            pass

    def judge(self, operation, role, mode, case, response):
        name = operation.definition.raw["operationId"]
        status = response.status_code
        self.counts[name][status] += 1
        if status >= 500 and status not in DOCUMENTED_5XX:
            self.fail(name, role, mode, case, response, f"answered {status}")
        try:
            case.validate_response(response, checks=CHECKS, additional_checks=[])
        except (Exception, BaseExceptionGroup) as problem:  # whatever a check says
            self.fail(name, role, mode, case, response, str(problem)[:1500])
        if mode[1] == GenerationMode.NEGATIVE and 200 <= status < 300:
            self.counts[name]["accepted"] += 1

    def fail(self, name, role, mode, case, response, message):
        key = (name, response.status_code, message.splitlines()[0] if message else "")
        if key not in self.failures:
            self.failures[key] = {"operation": name, "role": role, "seeded": mode[0], "status": response.status_code,
                                  "message": message, "sent": f"{case.method} {case.formatted_path} {case.query!r} "
                                  f"{str(case.body)[:500]}", "answer": response.text[:800]}

    def run(self, schema):
        operations = [x.ok() for x in schema.get_all_operations()]
        order = {"get": 0, "post": 1, "put": 2, "patch": 3, "delete": 4}
        last = ("DrainWorker", "DeleteWorker", "RemoveWorker")
        operations.sort(key=lambda x: (x.definition.raw["operationId"] in last, order[x.method.lower()]))
        modes = [(True, GenerationMode.POSITIVE), (False, GenerationMode.POSITIVE), (False, GenerationMode.NEGATIVE)]
        for operation in operations:
            name = operation.definition.raw["operationId"]
            self.counts[name]  # listed, though nothing answers
            for role in self.plan["keys"]:
                # Every role for what is there; the rest by the weakest that writes and the strongest.
                wide = role in ("tenant_user", "super_admin")
                for mode in modes if wide else modes[:1]:
                    if time.monotonic() > self.deadline:
                        self.cut_short.append(name)
                        break
                    self.one(operation, role, mode)
            self.clean(name)
        return {
            "operations": {name: {"2xx": sum(n for s, n in counts.items() if isinstance(s, int) and s < 300),
                                  "calls": sum(n for s, n in counts.items() if isinstance(s, int)),
                                  "negative_accepted": counts["accepted"],
                                  "statuses": {str(s): n for s, n in sorted(counts.items(), key=str)}}
                           for name, counts in self.counts.items()},
            "failures": list(self.failures.values()), "cut_short": sorted(set(self.cut_short))}

    def clean(self, name):
        if name in ("CreateBunker", "DeleteBunker"):
            for row in self.admin("GET", MODULE + "/bunkers?limit=200") or []:
                if row["id"] != self.seeds.get("bunker") and not row["terminated_at"]:
                    self.admin("DELETE", f"{MODULE}/bunkers/{row['id']}")
        if name == "DrainWorker":
            self.admin("POST", f"{MODULE}/workers/{self.seeds['worker']}/resume", {})


OCI = {"kind": "oci", "ref": "127.0.0.1:1/x:1"}
# Collection → what makes a row of it, and the variable of its routes.
THROWAWAYS = {
    MODULE + "/images": ({"name": "NAME", "build_source": OCI, "size_mib": 16}, "image"),
    MODULE + "/availability-groups": ({"name": "NAME"}, "group"),
    MODULE + "/registry-credentials": ({"name": "NAME", "host": "127.0.0.1:1", "username": "u", "password": "p"},
                                       "name"),
    MODULE + "/quota-profiles": ({"name": "NAME"}, "profile"),
    MODULE + "/worker-tokens": ({"name": "NAME", "scope": "platform"}, "token"),
    "/v1/partners": ({"name": "NAME"}, "partner"),
    "/v1/tenants": ({"name": "NAME"}, "tenant"),
    "/v1/users": ({"name": "NAME", "role": "tenant_user"}, "user"),
    "/v1/groups": ({"name": "NAME"}, "group"),
    "/v1/api-keys": ({"name": "NAME"}, "key"),
}


def main():
    with open(sys.argv[1], encoding="utf-8") as source:
        plan = json.load(source)
    schema = schemathesis.openapi.from_dict(close_answers(plan["document"]))
    report = Lane(plan).run(schema)
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(report, out, indent=1)


if __name__ == "__main__":
    main()
