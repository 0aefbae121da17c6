#!/usr/bin/python3
"""Processes: commands that live on by themselves; re-attaching by offset over every restart."""

import hashlib
import unittest

import httpx

from harness import case, processes, sse
from harness.cluster import MODULE


class ProcessTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.bunker = cls.c.bunker("tiny")["id"]

    def start(self, command, **more):
        return self.c.post(f"/bunkers/{self.bunker}/processes", {"command": command, **more})

    def path(self, pid, more=""):
        return f"/bunkers/{self.bunker}/processes/{pid}{more}"

    def get(self, pid):
        return self.c.get(self.path(pid))

    def raw(self, pid, data, **more):
        return self.c_raw("POST", self.path(pid, "/stdin"), data, **more)

    def c_raw(self, method, path, data, seconds=60):
        return httpx.request(method, self.c.controller.host + MODULE + path, content=data, timeout=seconds,
                             headers={"Authorization": f"Bearer {self.c.controller.key}"})

    def output(self, pid, offset=None, last_id=None, count=None, key=None):
        """Events (id, name, data) from there on, until the end or `count` of them."""
        query = "" if offset is None else f"?offset={offset}"
        headers = {"Authorization": f"Bearer {key or self.c.controller.key}"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        seen = []
        with httpx.stream("GET", self.c.controller.host + MODULE + self.path(pid, "/output" + query),
                          headers=headers, timeout=httpx.Timeout(20, read=60)) as answer:
            self.assertEqual(answer.status_code, 200, answer.read() if answer.status_code != 200 else "")
            for event in sse.events(answer):
                seen.append(event)
                if event[1] in ("exit", "error") or len(seen) == count:
                    break
        return seen

    def text(self, events):
        return "".join(data["data"] for _, name, data in events if name in ("stdout", "stderr"))

    def ended(self, pid):
        return processes.wait_until(lambda: (lambda x: x if x["status"] == "exited" else None)(self.get(pid)),
                                    f"process {pid} has ended", 30)

    def back(self):
        """Until the worker answers for the bunker again."""
        self.c.wait_online(1)
        processes.wait_until(
            lambda: self.c.call("GET", f"/bunkers/{self.bunker}/processes").status_code == 200,
            "the guest answers", 40)

    def test_a_row_from_start_to_end(self):
        row = self.start(["sh", "-c", "echo out; echo err >&2; exit 5"], env={"A": "b"})
        self.assertEqual((row["status"], row["command"]), ("running", ["sh", "-c", "echo out; echo err >&2; exit 5"]))
        row = self.ended(row["pid"])
        self.assertEqual((row["exit_code"], row["signal"], row["stdout_bytes"], row["stderr_bytes"], row["timed_out"]),
                         (5, None, 4, 4, False))
        self.assertIn(row["pid"], [x["pid"] for x in self.c.get(f"/bunkers/{self.bunker}/processes")])
        seen = self.output(row["pid"])
        self.assertEqual(self.text(seen), "out\nerr\n")
        self.assertEqual([x[0] for x in seen[:2]], ["4", "8"])
        self.assertEqual((seen[-1][1], seen[-1][2]["exit_code"]), ("exit", 5))

    def test_refusals(self):
        self.assertEqual(self.c.error("GET", self.path(999999))[:2], (404, "NOT_FOUND"))
        self.assertEqual(self.c.error("POST", self.path(1, "/signal"), {"signal": "TERM"})[:2], (404, "NOT_FOUND"))
        self.assertEqual(self.c.error("POST", f"/bunkers/{self.bunker}/processes",
                                      {"command": "true", "cwd": "/no/such"})[:2], (404, "PATH_NOT_FOUND"))
        pid = self.start("sleep 60")["pid"]
        self.assertEqual(self.c.error("POST", self.path(pid, "/signal"), {"signal": "SIGNONE"})[:2],
                         (422, "VALIDATION_ERROR"))
        self.assertEqual(self.c.error("GET", self.path(pid, "/output?offset=100"))[:2], (422, "VALIDATION_ERROR"))
        self.c.call("POST", self.path(pid, "/signal"), {"signal": "9"}, expect=200)
        self.ended(pid)
        self.assertEqual(self.c.error("POST", self.path(pid, "/signal"), {"signal": "9"})[:2], (404, "NOT_FOUND"))

    def test_stdin_raw_and_closed(self):
        pid = self.start("sha256sum")["pid"]
        data = bytes(range(256)) * 8192  # 2 MiB
        self.assertEqual(self.raw(pid, data).json()["data"]["written_bytes"], len(data))
        self.assertTrue(self.get(pid)["stdin_open"])
        self.c.call("DELETE", self.path(pid, "/stdin"), expect=200)
        self.assertEqual(self.ended(pid)["exit_code"], 0)
        self.assertEqual(self.text(self.output(pid)).split()[0], hashlib.sha256(data).hexdigest())

    def test_stdin_that_nobody_reads_to_its_end(self):
        pid = self.start("head -c 10 >/dev/null; exec <&-; sleep 1")["pid"]
        answer = self.raw(pid, b"x" * 4_000_000).json()
        self.assertLess(answer["data"]["written_bytes"], 4_000_000)

    def test_signals_and_timeouts_are_told(self):
        pid = self.start("trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.1; done")["pid"]
        self.output(pid, count=1)
        self.c.call("POST", self.path(pid, "/signal"), {"signal": "SIGTERM"}, expect=200)
        self.assertEqual(self.ended(pid)["exit_code"], 3)
        self.assertEqual(self.text(self.output(pid)), "up\ngot\n")
        pid = self.start("(setsid sleep 8181 &) ; echo up; sleep 8181", timeout_s=2)["pid"]
        row = self.ended(pid)
        self.assertTrue(row["timed_out"], row)
        self.assertEqual(self.c.exec(self.bunker, "ps | grep -c '[s]leep 8181'")["stdout"], "0\n")
        self.assertTrue(self.output(pid)[-1][2]["timed_out"])

    def test_lost_output_is_told_with_its_size(self):
        pid = self.start("head -c 1000000 /dev/zero | tr '\\0' x; echo end")["pid"]
        row = self.ended(pid)
        seen = self.output(pid)
        self.assertEqual(seen[0][1], "gap")
        kept = len(self.text(seen))
        self.assertEqual(seen[0][2]["bytes"] + kept, 1_000_004)
        self.assertEqual((row["output_begin"], kept), (seen[0][2]["bytes"], 256 * 1024))
        self.assertTrue(self.text(seen).endswith("xend\n"))

    def test_output_goes_on_from_an_offset(self):
        pid = self.start("i=0; while [ $i -lt 40 ]; do echo line$i; i=$((i+1)); sleep 0.05; done")["pid"]
        whole = "".join(f"line{i}\n" for i in range(40))
        first = self.output(pid, count=3)
        rest = self.output(pid, last_id=first[-1][0])
        self.assertEqual(self.text(first) + self.text(rest), whole)
        self.assertEqual(self.text(self.output(pid, offset=6)), whole[6:])

    def survives(self, kill):
        pid = self.start("i=0; while [ $i -lt 120 ]; do echo line$i; i=$((i+1)); sleep 0.1; done; exit 9")["pid"]
        first = self.output(pid, count=3)
        kill()
        self.back()
        rest = self.output(pid, last_id=first[-1][0])
        self.assertEqual(self.text(first) + self.text(rest), "".join(f"line{i}\n" for i in range(120)))
        self.assertEqual((rest[-1][1], rest[-1][2]["exit_code"]), ("exit", 9))

    def test_it_survives_the_agents_death(self):
        def kill():
            self.c.agents[0].daemon.kill9()
            self.c.agents[0].start()
        self.survives(kill)

    def test_it_survives_the_controllers_death(self):
        def kill():
            self.c.controller.daemon.kill9()
            self.c.controller.start()
        self.survives(kill)

    def test_who_may_not_be_root_touches_no_process_of_one_who_may(self):
        pid = self.start("sleep 60")["pid"]
        weak = httpx.post(self.c.controller.host + "/v1/api-keys", headers={
            "Authorization": f"Bearer {self.c.controller.key}"}, json={
                "name": "weak", "permissions": ["scaibunker:create", "scaibunker:execute"]}).json()["data"]["key"]
        for method, path, body in (("POST", "/signal", {"signal": "KILL"}), ("DELETE", "/stdin", None)):
            self.assertEqual(self.c.error(method, self.path(pid, path), body, key=weak)[:2],
                             (403, "AUTHZ_PERMISSION_DENIED"))
        made = self.c.post(f"/bunkers/{self.bunker}/processes", {"command": "id -u; sleep 60"}, key=weak)
        self.assertEqual(made["uid"], 1000)
        self.assertEqual(self.text(self.output(made["pid"], count=1, key=weak)), "1000\n")
        self.c.call("POST", self.path(made["pid"], "/signal"), {"signal": "KILL"}, expect=200, key=weak)
        self.assertEqual(self.ended(made["pid"])["signal"], "SIGKILL")
        self.c.call("POST", self.path(pid, "/signal"), {"signal": "KILL"}, expect=200)

    def test_there_are_so_many_at_once(self):
        pids = []
        for _ in range(40):
            answer = self.c.call("POST", f"/bunkers/{self.bunker}/processes", {"command": "sleep 300"})
            if answer.status_code != 201:
                self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (429, "RATE_LIMITED"))
                break
            pids.append(answer.json()["data"]["pid"])
        self.assertLessEqual(len(pids), 32)
        for pid in pids:
            self.c.call("POST", self.path(pid, "/signal"), {"signal": "KILL"}, expect=200)
        for pid in pids:
            self.ended(pid)

    def test_a_fork_bomb_leaves_the_guest_alive(self):
        pid = self.start("b() { b | b & }; b; while :; do :; done", timeout_s=5)["pid"]
        self.ended(pid)
        self.assertEqual(self.c.sh(self.bunker, "echo alive"), "alive\n")

    def test_starts_are_audited_without_the_command(self):
        self.start(["echo", "secret-argument"])
        rows = self.c.get("/audit?action=Processes.CreateProcess&limit=200")
        self.assertIn((self.bunker, "ok"), [(x["target"], x["outcome"]) for x in rows])
        self.assertNotIn("secret-argument", str(rows))


if __name__ == "__main__":
    unittest.main(verbosity=2)
