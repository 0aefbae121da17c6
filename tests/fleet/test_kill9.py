#!/usr/bin/python3
"""kill -9 of the controller during mixed mutations: what was acked is there, and nothing is half.

Several clients change things through REST at once, scripted agents play the workers. Again and again
the controller is killed at a random moment, its store is checked offline (a copy, with the engine's
own invariants), and it starts again; then every acked mutation is looked for. A mutation whose answer
was lost may have happened or not; sent again under its Idempotency-Key it has happened exactly once.

BUNKER_KILL9_ROUNDS sets the number of kills (default 5), BUNKER_KILL9_SEED the seed.
"""

import json
import os
import random
import shutil
import sys
import threading
import time
import unittest

import httpx

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
from harness import cluster, fleet, processes  # pylint: disable=wrong-import-position

ROUNDS = int(os.environ.get("BUNKER_KILL9_ROUNDS", "5"))
SEED = int(os.environ.get("BUNKER_KILL9_SEED", "1"))
AGENTS, CLIENTS = 12, 5
LIMITS = {"limits": {"requests_per_s": 100000, "request_burst": 100000}}


class Unanswered(Exception):
    """The controller died before the answer came."""


class Client(threading.Thread):
    """One client, with names of its own, and what it knows to be true of them."""

    def __init__(self, number, host, key):
        super().__init__(daemon=True)
        self.number, self.host, self.key = number, host, key
        self.random = random.Random(SEED * 1000 + number)
        self.http = httpx.Client(base_url=host, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self.made = 0
        self.acked = 0
        self.bunkers, self.deleted = {}, {}         # id → name
        self.groups, self.images = {}, {}           # id → row, acked
        self.dropped_groups, self.retired = {}, {}  # id → name
        self.keys, self.revoked = {}, {}
        self.open_calls = []                        # (method, path, body, idempotency key), outcome unknown
        self.failure = None
        self.paused, self.running = threading.Event(), threading.Event()
        self.ended = False

    # ---- calls

    def call(self, method, path, body=None, key=None):
        headers = {"Idempotency-Key": key} if key else {}
        try:
            # Keys and users are above the module.
            full = path if path.startswith("/v1/") else cluster.MODULE + path
            answer = self.http.request(method, full, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unanswered(str(error)) from error
        if answer.status_code >= 500 and answer.status_code != 503:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def mutate(self, method, path, body=None):
        """The row, or None where it was refused; Unanswered is noted for a repeat."""
        self.made += 1
        key = f"c{self.number}-{self.made}"
        try:
            answer = self.call(method, path, body, key)
        except Unanswered:
            self.open_calls.append((method, path, body, key))
            raise
        if answer.status_code >= 400:
            return None
        self.acked += 1
        return answer.json()["data"]

    # ---- one step of its life

    def step(self):
        choice = self.random.random()
        name = f"c{self.number}n{self.made}"
        if choice < 0.45 or not self.bunkers:
            self.note(self.mutate("POST", "/bunkers", {"image": "tiny", "name": name, "idle_timeout_s": 86400}), self.bunkers)
        elif choice < 0.70:
            victim = self.random.choice(sorted(self.bunkers))
            if self.mutate("DELETE", f"/bunkers/{victim}") is not None:
                self.deleted[victim] = self.bunkers.pop(victim)
        elif choice < 0.80:
            self.note(self.mutate("POST", "/availability-groups", {"name": name}), self.groups)
        elif choice < 0.85 and self.groups:
            victim = self.random.choice(sorted(self.groups))
            if self.mutate("DELETE", f"/availability-groups/{victim}") is not None:
                self.dropped_groups[victim] = self.groups.pop(victim)
        elif choice < 0.88:
            self.note(self.mutate("POST", "/v1/api-keys", {"name": name}), self.keys)
        elif choice < 0.90 and self.keys:
            victim = self.random.choice(sorted(self.keys))
            if self.mutate("DELETE", f"/v1/api-keys/{victim}") is not None:
                self.revoked[victim] = self.keys.pop(victim)
        elif choice < 0.95 or not self.images:
            body = {"name": name, "size_mib": 64,
                    "build_source": {"kind": "oci", "ref": f"registry.example/scripted/{name}:1"}}
            self.note(self.mutate("POST", "/images", body), self.images)
        else:
            victim = self.random.choice(sorted(self.images))
            if self.mutate("DELETE", f"/images/{victim}") is not None:
                self.retired[victim] = self.images.pop(victim)

    def note(self, row, table):
        if row is not None:
            table[row["id"]] = row["name"]

    def run(self):
        while not self.ended:
            self.running.wait()
            if self.ended:
                return
            try:
                while self.running.is_set():
                    self.step()
            except Unanswered:
                self.running.clear()
            except Exception as error:  # pylint: disable=broad-except
                self.failure = error
                self.running.clear()
            self.paused.set()

    # ---- after a restart

    def repeat_open_calls(self):
        """Sends again what was not answered, twice: the second answer is the first one's."""
        for method, path, body, key in self.open_calls:
            answers = [self.call(method, path, body, key) for _ in range(2)]
            if answers[0].status_code != answers[1].status_code or \
                    (answers[0].status_code < 400 and answers[0].json()["data"] != answers[1].json()["data"]):
                raise AssertionError(f"{method} {path} twice under {key}: {[x.text for x in answers]}")
            if answers[0].status_code >= 400:
                continue
            row = answers[0].json()["data"]
            last = path.rsplit("/", 1)[-1]
            if method == "POST":
                self.note(row, {"/bunkers": self.bunkers, "/images": self.images, "/v1/api-keys": self.keys,
                                "/availability-groups": self.groups}[path])
            elif path.startswith("/bunkers"):
                self.deleted[last] = self.bunkers.pop(last)
            elif path.startswith("/v1/api-keys"):
                self.revoked[last] = self.keys.pop(last)
            elif path.startswith("/images"):
                self.retired[last] = self.images.pop(last)
            else:
                self.dropped_groups[last] = self.groups.pop(last)
        self.open_calls = []

    def check(self):
        """Every acked mutation of this client is there, but what an unanswered one may have undone."""
        unsure = {path.rsplit("/", 1)[-1] for method, path, _, _ in self.open_calls if method == "DELETE"}
        for bunker, name in self.bunkers.items():
            if bunker in unsure:
                continue
            row = self.row("/bunkers/" + bunker)
            if row["name"] != name or row["status"] not in ("provisioning", "running"):
                raise AssertionError(f"an acked bunker is not as it was: {row}")
        for bunker in self.deleted:
            row = self.row("/bunkers/" + bunker)
            if row["status"] not in ("stopping", "stopped"):
                raise AssertionError(f"an acked delete is undone: {row}")
        for image, name in self.images.items():
            if image in unsure:
                continue
            row = self.row("/images/" + image)
            if row["name"] != name or not row["active"]:
                raise AssertionError(f"an acked image is not as it was: {row}")
        for image in self.retired:
            if self.row("/images/" + image)["active"]:
                raise AssertionError(f"an acked deactivation is undone: {image}")
        for group, name in self.groups.items():
            if group not in unsure and self.row("/availability-groups/" + group)["name"] != name:
                raise AssertionError(f"an acked group is not as it was: {group}")
        for key, name in self.keys.items():
            row = self.row("/v1/api-keys/" + key)
            if key not in unsure and (row["name"] != name or row["revoked_at"]):
                raise AssertionError(f"an acked key is not as it was: {row}")
        for key in self.revoked:
            if not self.row("/v1/api-keys/" + key)["revoked_at"]:
                raise AssertionError(f"an acked revocation is undone: {key}")
        for group in self.dropped_groups:
            if self.call("GET", "/availability-groups/" + group).status_code != 404:
                raise AssertionError(f"an acked removal of a group is undone: {group}")

    def row(self, path):
        answer = self.call("GET", path)
        if answer.status_code != 200:
            raise AssertionError(f"acked, and gone: {path}: {answer.status_code} {answer.text}")
        return answer.json()["data"]


class Kill9Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.c = cluster.Cluster(agents=0, controller=LIMITS, registry=False)
        cls.c.__enter__()
        cls.addClassCleanup(lambda: cls.c.__exit__(None))
        cls.fleet = fleet.ScriptedAgents(cls.c, AGENTS, image_ms=20, boot_ms=30, stop_ms=20, seed=SEED,
                                         cpu_millicores=4000000, memory_mb=4000000, disk_mb=4000000).start()
        cls.addClassCleanup(cls.fleet.stop)
        cls.fleet.dial()
        image = cls.c.register("tiny", "registry.example/scripted/tiny:1")
        cls.c.group(images=[image["id"]])
        cls.fleet.wait("images_ready", AGENTS)

    def check_offline(self):
        """The store as the dead controller left it, opened as its next life would: a copy of it."""
        copy = os.path.join(self.c.folder, "copy")
        shutil.rmtree(copy, ignore_errors=True)
        os.mkdir(copy)
        source = self.c.controller.folder
        for name in os.listdir(source):
            if name.startswith("state.db"):
                shutil.copy(os.path.join(source, name), copy)
        processes.run([fleet.tool("fleet_store"), "check", os.path.join(copy, "state.db")])

    def all_bunkers(self):
        rows, cursor = {}, ""
        while True:
            page = self.c.call("GET", f"/bunkers?limit=200{cursor}", expect=200).json()
            rows.update({x["id"]: x for x in page["data"]})
            if not page["has_more"]:
                return rows
            cursor = "&cursor=" + page["next_cursor"]

    def check_whole(self):
        """No two live bunkers of one name, and each where its row says."""
        names = [x["name"] for x in self.all_bunkers().values() if not x["terminated_at"]]
        self.assertEqual(len(names), len(set(names)))

    def check_audit(self, head):
        """The chain holds, and goes on from what it was before the kills."""
        path = os.path.join(self.c.folder, "head.json")
        with open(path, "w", encoding="utf-8") as out:
            json.dump(head, out)
        self.c.ctl("audit", "verify", "--head", path)
        after = self.c.get("/audit/head")
        self.assertGreater(after["seq"], head["seq"])
        return after

    def check_settled(self):
        def settled():
            rows = self.all_bunkers().values()
            return all(x["status"] == "running" or x["terminated_at"] for x in rows)
        processes.wait_until(settled, "all bunkers run or have ended", 60, 0.2)
        wanted = {(x["worker_id"], "bunkers/" + x["id"]) for x in self.all_bunkers().values()
                  if x["status"] == "running"}

        def agree():
            held = {(worker, name) for worker, rows in self.fleet.do("dump").items() for name in rows
                    if name.startswith("bunkers/")}
            return held == wanted
        processes.wait_until(agree, "the agents hold what the controller says, and nothing else", 30, 0.2)

    def round(self, number, clients):
        for client in clients:
            client.paused.clear()
            client.running.set()
        time.sleep(random.Random(SEED * 7919 + number).uniform(0.05, 0.6))
        self.c.controller.daemon.kill9()
        for client in clients:
            client.running.clear()
            self.assertTrue(client.paused.wait(40), "a client hangs")
            self.assertIsNone(client.failure)
        self.check_offline()
        self.c.controller.start()
        for client in clients:
            client.check()
            client.repeat_open_calls()
        self.check_whole()

    def test_acked_is_there(self):
        clients = [Client(x, self.c.controller.host, self.c.controller.key) for x in range(CLIENTS)]
        for client in clients:
            client.start()
        head = self.c.get("/audit/head")
        for number in range(ROUNDS):
            self.round(number, clients)
            if number % 10 == 9 or number == ROUNDS - 1:
                head = self.check_audit(head)
                print(f"{number + 1} kills", file=sys.stderr, flush=True)
            for client in clients:
                client.check()
        self.fleet.wait("connected", AGENTS)
        self.check_settled()
        for client in clients:
            client.ended = True
            client.running.set()
        acked = sum(x.acked for x in clients)
        self.assertGreater(acked, ROUNDS)
        print(f"{ROUNDS} kills, {acked} acked mutations, {sum(x.made for x in clients)} made, "
              f"{len(self.all_bunkers())} bunkers", file=sys.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
