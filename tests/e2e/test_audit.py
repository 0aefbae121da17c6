#!/usr/bin/python3
"""Accounts and the audit chain with the real binaries: edits of the store's file are found."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import threading
import unittest

import httpx

from harness import paths, processes
from harness.cluster import Cluster

ROUNDS = int(os.environ.get("BUNKER_AUDIT_KILLS", "3"))


def row_hash(row):
    """The canonical form, written once more from its description in common/base/audit_entry.h."""
    text = b"bunker-audit-1\n"
    for field in ("prev_hash", "seq", "at_unix_ms", "actor", "actor_tenant_id", "key_id", "tenant_id",
                  "partner_id", "action", "target", "detail", "outcome", "request_id", "suppressed"):
        value = str(row[field]).encode()
        text += str(len(value)).encode() + b":" + value + b","
    return hashlib.sha256(text).hexdigest()


class AuditTest(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(agents=0, registry=False)
        self.c = self.cluster.__enter__()
        self.addCleanup(self.cluster.__exit__, None)
        self.store = os.path.join(self.c.controller.folder, "state.db")

    def account(self, method, path, body=None, key=None, **more):
        headers = {"Authorization": f"Bearer {key or self.c.controller.key}"}
        return httpx.request(method, self.c.controller.host + path, json=body, headers=headers, timeout=30,
                             **more)

    def verify(self, head=None):
        arguments = ["audit", "verify", "--json"] + (["--head", head] if head else [])
        done = self.c.ctl(*arguments, check=False)
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if report["intact"] else 1, done.stderr)
        return report

    def edited(self, *statements, edit=None):
        """The findings of a verify after the statements were run on the file of the stopped store."""
        self.c.controller.daemon.stop()
        shutil.copy(self.store, self.store + ".good")
        database = sqlite3.connect(self.store)
        for statement in statements:
            database.execute(statement)
        if edit:
            edit(database)
        database.commit()
        database.close()
        self.c.controller.start()
        report = self.verify(self.head)
        self.c.controller.daemon.stop()
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.store + suffix):
                os.remove(self.store + suffix)
        shutil.move(self.store + ".good", self.store)
        self.c.controller.start()
        return report["findings"]

    def export_head(self):
        self.head = os.path.join(self.cluster.folder, "head.json")
        with open(self.head, "w", encoding="utf-8") as out:
            out.write(self.c.ctl("audit", "head", "--json").stdout)

    def test_edits_are_found(self):
        for name in "abcdefgh":
            self.c.post("/availability-groups", {"name": name})
        self.export_head()
        with open(self.head, encoding="utf-8") as file:
            last = json.load(file)["seq"]
        self.assertEqual(last, 8)
        report = self.verify(self.head)
        self.assertEqual((report["intact"], report["rows"]), (True, 8))

        def rewrite(seq, chain=False, **fields):
            """Changes fields and makes the row's own hash right again; with `chain`, all after it."""
            def edit(database):
                rows = [json.loads(x[0]) for x in database.execute("SELECT body FROM audit ORDER BY id")]
                for i, row in enumerate(rows):
                    if row["seq"] == seq:
                        row.update(fields)
                        row["hash"] = row_hash(row)
                    elif chain and row["seq"] > seq:
                        row["prev_hash"] = rows[i - 1]["hash"]
                        row["hash"] = row_hash(row)
                    body = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
                    database.execute("UPDATE audit SET body=? WHERE id=?", (body, f"{row['seq']:020}"))
            return edit

        def insert(database):
            body = database.execute("SELECT body FROM audit ORDER BY id DESC LIMIT 1").fetchone()[0]
            row = json.loads(body)
            row.update(seq=last + 5, prev_hash=row["hash"], target="forged")
            row["hash"] = row_hash(row)
            database.execute("INSERT INTO audit VALUES (?, ?)", (
                f"{last + 5:020}", json.dumps(row, separators=(",", ":"), ensure_ascii=False)))

        # Rewriting without a change is no finding: the edits below are what is seen.
        self.assertEqual(self.edited(edit=rewrite(3)), [])
        cases = {
            "a field": dict(statements=["UPDATE audit SET body=replace(body, '\"ok\"', '\"no\"') "
                                        "WHERE id LIKE '%3'"], word="row 3 was edited"),
            "a blank": dict(statements=["UPDATE audit SET body=body||' ' WHERE id LIKE '%4'"],
                            word="row 4 was edited"),
            "not JSON": dict(statements=["UPDATE audit SET body='x' WHERE id LIKE '%5'"], word="row 5 was edited"),
            "a field and its hash": dict(edit=rewrite(3, actor="usr_x"), word="row 4 does not follow"),
            "the last row and its hash": dict(edit=rewrite(8, actor="usr_x"), word="exported head"),
            "the chain from there on": dict(edit=rewrite(3, chain=True, actor="usr_x"), word="exported head"),
            "a deleted row": dict(statements=["DELETE FROM audit WHERE id LIKE '%5'"], word="rows 5 to 5 are missing"),
            "the first row": dict(statements=["DELETE FROM audit WHERE id LIKE '%1'"], word="rows 1 to 1 are missing"),
            "the tail": dict(statements=["DELETE FROM audit WHERE id > '%020d'" % 6], word="the tail was cut off"),
            "everything": dict(statements=["DELETE FROM audit"], word="the tail was cut off"),
            "a row put in": dict(edit=insert, word="rows 9 to 12 are missing"),
            "another id": dict(statements=["UPDATE audit SET id='zzz' WHERE id LIKE '%5'"], word="rows 5 to 5"),
            "two rows changed places": dict(statements=[
                "UPDATE audit SET id='x' WHERE id LIKE '%2'", "UPDATE audit SET id='%020d' WHERE id LIKE '%%3'" % 2,
                "UPDATE audit SET id='%020d' WHERE id='x'" % 3], word="was edited"),
        }
        for name, one in cases.items():
            findings = self.edited(*one.get("statements", []), edit=one.get("edit"))
            self.assertTrue(any(one["word"] in x for x in findings), (name, findings))
            print(f"found {name}: {findings[0]}", flush=True)

        # A cut tail needs the exported head, and the command says so.
        self.c.controller.daemon.stop()
        database = sqlite3.connect(self.store)
        database.execute("DELETE FROM audit WHERE id > ?", (f"{6:020}",))
        database.commit()
        database.close()
        self.c.controller.start()
        done = self.c.ctl("audit", "verify")
        self.assertIn("6 rows, from 1 to 6: intact", done.stdout)
        self.assertIn("Without an exported head, rows cut off at the end can't be seen", done.stdout)

    def test_the_chain_holds_through_kills(self):
        """kill -9 under mutations: every acknowledged one has its row, and the chain is whole."""
        acked = []
        for round_number in range(ROUNDS):
            stop = threading.Event()

            def work(worker):
                for i in range(100_000):
                    if stop.is_set():
                        return
                    try:
                        answer = self.account("POST", "/v1/groups", {"name": f"g{round_number}-{worker}-{i}"})
                        if answer.status_code == 201:
                            acked.append(answer.json()["data"]["id"])
                    except httpx.HTTPError:
                        return

            before = len(acked)
            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            processes.wait_until(lambda: len(acked) >= before + 20, "20 mutations")
            self.c.controller.daemon.kill9()
            stop.set()
            for thread in threads:
                thread.join()
            self.c.controller.start()
            self.assertEqual(self.verify()["findings"], [])
        self.c.controller.daemon.stop()
        database = sqlite3.connect(self.store)
        told = {json.loads(x[0])["target"] for x in database.execute("SELECT body FROM audit")}
        there = {x[0] for x in database.execute("SELECT id FROM user_groups")}
        database.close()
        self.assertEqual(set(acked) - told, set())
        self.assertEqual(there, told)
        self.c.controller.start()
        print(f"{len(acked)} acknowledged mutations through {ROUNDS} kills", flush=True)

    def test_only_who_sees_all_verifies(self):
        user = self.account("POST", "/v1/users", {"name": "t", "role": "tenant_admin"}).json()["data"]["id"]
        key = self.account("POST", "/v1/api-keys", {"name": "k", "user_id": user}).json()["data"]["key"]
        done = subprocess.run([paths.binary("bunkerctl"), "audit", "verify"], capture_output=True, text=True,
                              timeout=60, env=dict(os.environ, SCAIGRID_HOST=self.c.controller.host,
                                                   SCAIGRID_API_KEY=key), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("admin:platform", done.stderr)

    def test_the_operator_is_an_actor(self):
        self.c.controller.join_token("w9")
        rows = self.c.get("/audit?actor=operator")
        self.assertEqual([(x["action"], x["target"], x["outcome"]) for x in rows],
                         [("Admin.CreateJoinToken", "w9", "ok")])

    def test_secrets_are_nowhere(self):
        key = self.account("POST", "/v1/api-keys", {"name": "k"},
                           ).json()["data"]["key"]
        again = httpx.post(self.c.controller.host + "/v1/api-keys", json={"name": "once"}, timeout=30, headers={
            "Authorization": f"Bearer {key}", "Idempotency-Key": "one"}).json()["data"]["key"]
        repeat = httpx.post(self.c.controller.host + "/v1/api-keys", json={"name": "once"}, timeout=30, headers={
            "Authorization": f"Bearer {key}", "Idempotency-Key": "one"}).json()["data"]["key"]
        self.assertEqual(again, repeat)
        self.c.controller.daemon.stop()
        for root, _, files in os.walk(self.c.controller.folder):
            for name in files:
                with open(os.path.join(root, name), "rb") as file:
                    content = file.read()
                for secret in (key, again):
                    self.assertNotIn(secret.encode(), content, name)
                    self.assertNotIn(secret.encode().hex().encode(), content, name)
        self.c.controller.start()


if __name__ == "__main__":
    unittest.main(verbosity=2)
