#!/usr/bin/python3
"""The image's own command: how it starts, starts again and ends; its log, and the console's."""

import unittest

import httpx

from harness import case, images, processes, sse
from harness.cluster import MODULE

SERVICE = {"Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"], "Entrypoint": ["/bin/sh", "-c"],
           "Cmd": ["echo \"$FROM_IMAGE $(pwd) $(id -u)\"; echo oops >&2; exec sleep 1000"],
           "WorkingDir": "/home/alice", "User": "alice"}
BARE = {"Env": ["PATH=/bin"]}


class MainTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image("service", images.tiny(marker="service", config=SERVICE))
        cls.c.ready_image("bare", images.tiny(marker="bare", config=BARE))

    def main(self, bunker):
        return self.c.get(f"/bunkers/{bunker}")["main_status"]

    def wait_main(self, bunker, state, seconds=30, more=lambda row: True):
        def there():
            row = self.main(bunker)
            return row if row["state"] == state and more(row) else None
        return processes.wait_until(there, f"main of {bunker} is {state}", seconds, 0.05)

    def logs(self, bunker, **query):
        text = "&".join(f"{k}={v}" for k, v in query.items())
        return self.c.get(f"/bunkers/{bunker}/logs?{text}")

    def follow(self, bunker, done, last_id=None, key=None, **query):
        """Events from there on, until `done` says so of one, or the end."""
        headers = {"Authorization": f"Bearer {key or self.c.controller.key}"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        seen = []
        with httpx.stream("GET", f"{self.c.controller.host}{MODULE}/bunkers/{bunker}/logs",
                          params={"follow": "true", **query}, headers=headers,
                          timeout=httpx.Timeout(20, read=60)) as answer:
            self.assertEqual(answer.status_code, 200, answer.read() if answer.status_code != 200 else "")
            for event in sse.events(answer):
                seen.append(event)
                if done(event):
                    break
        return seen

    def end(self, *rows):
        for row in rows:
            self.c.call("DELETE", f"/bunkers/{row['id']}", expect=200)

    def test_the_images_command_runs_as_the_image_says(self):
        row = self.c.bunker("service", main={})
        self.assertEqual(row["args"], SERVICE["Entrypoint"] + SERVICE["Cmd"])
        self.assertEqual(row["main"], {"args": [], "env": {}, "restart": "never"})
        status = self.wait_main(row["id"], "running")
        self.assertEqual((status["exit_code"], status["restarts"]), (None, 0))
        log = processes.wait_until(lambda: (lambda x: x if "oops" in x["data"] else None)(self.logs(row["id"])),
                                   "its log", 20)
        self.assertEqual((log["source"], log["offset"], log["lost_bytes"]), ("main", 0, 0))
        self.assertEqual(sorted(log["data"].splitlines()), ["oops", "yes /home/alice 1234"])
        self.assertEqual(log["next_offset"], len(log["data"]))
        self.assertEqual(self.logs(row["id"], offset=4)["data"], log["data"][4:])
        self.assertEqual(self.c.error("GET", f"/bunkers/{row['id']}/logs?offset=999")[:2],
                         (422, "VALIDATION_ERROR"))
        # Beside it commands run as ever.
        self.assertEqual(self.c.sh(row["id"], "echo beside"), "beside\n")
        self.end(row)

    def test_args_stand_in_place_of_cmd_and_env_is_over_the_bunkers(self):
        row = self.c.bunker("service", env_vars={"A": "bunker", "B": "bunker"},
                            main={"args": ["echo $A $B $FROM_IMAGE; exit 7"], "env": {"B": "main"}})
        status = self.wait_main(row["id"], "exited")
        self.assertEqual((status["exit_code"], status["signal"], status["restarts"]), (7, None, 0))
        self.assertEqual(self.logs(row["id"])["data"], "bunker main yes\n")
        self.assertEqual(self.c.get(f"/bunkers/{row['id']}")["status"], "running", "the bunker goes on")
        self.assertEqual(self.c.get(f"/bunkers/{row['id']}")["args"][2], "echo $A $B $FROM_IMAGE; exit 7")
        self.end(row)

    def test_restart_policies(self):
        script = "echo run; n=$(cat /tmp/n 2>/dev/null || echo 0); echo $((n+1)) > /tmp/n; [ $n -ge 2 ]"
        on_failure = self.c.bunker("service", main={"args": [script], "restart": "on_failure"})
        always = self.c.bunker("service", main={"args": ["echo run; exit 0"], "restart": "always"})
        status = self.wait_main(on_failure["id"], "exited")
        self.assertEqual((status["exit_code"], status["restarts"]), (0, 2))
        self.assertEqual(self.logs(on_failure["id"])["data"], "run\n" * 3)
        status = self.wait_main(always["id"], "waiting", more=lambda row: row["restarts"] >= 2)
        self.assertEqual(status["exit_code"], 0)
        self.end(on_failure, always)

    def test_a_killed_main_takes_what_it_left_with_it(self):
        script = "sleep 1000 & echo $! > /tmp/child; echo $$ > /tmp/self; wait"
        row = self.c.bunker("service", main={"args": [script]})
        self.wait_main(row["id"], "running")
        processes.wait_until(lambda: self.c.exec(row["id"], "cat /tmp/self /tmp/child")["exit_code"] == 0, "it began")
        own, child = self.c.sh(row["id"], "cat /tmp/self /tmp/child").split()
        self.c.sh(row["id"], f"kill -9 {own}", user="0")
        status = self.wait_main(row["id"], "exited")
        self.assertEqual((status["signal"], status["exit_code"]), ("SIGKILL", None))
        processes.wait_until(lambda: self.c.exec(row["id"], f"test -e /proc/{child}")["exit_code"] != 0, "its child ends")
        self.end(row)

    def test_what_cannot_be_run_says_why(self):
        nothing = self.c.bunker("bare", main={}, cpu_millicores=300)
        self.assertIn("main.args", self.wait_main(nothing["id"], "failed")["message"])
        missing = self.c.bunker("bare", main={"args": ["/no/such"]}, cpu_millicores=300)
        self.assertEqual(self.wait_main(missing["id"], "exited")["exit_code"], 127)
        self.assertIn("can't run /no/such", self.logs(missing["id"])["data"])
        without = self.c.bunker("bare", cpu_millicores=300)
        row = self.c.get(f"/bunkers/{without['id']}")
        self.assertIsNone(row["main"])
        self.assertIsNone(row["main_status"])
        status, code, message = self.c.error("GET", f"/bunkers/{without['id']}/logs")[:3]
        self.assertEqual((status, code), (404, "NOT_FOUND"), message)
        self.end(nothing, missing, without)

    def test_a_log_is_followed_over_restarts_of_both_daemons(self):
        script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"
        row = self.c.bunker("service", main={"args": [script]})
        first = self.follow(row["id"], lambda event: "line 3\n" in event[2].get("data", ""))
        self.c.agents[0].daemon.kill9()
        self.c.agents[0].start()
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        processes.wait_until(
            lambda: self.c.call("POST", f"/bunkers/{row['id']}/exec", {"command": "true"}).status_code == 200,
            "the bunker answers", 60)
        rest = self.follow(row["id"], lambda event: "line 12\n" in event[2].get("data", ""),
                           last_id=first[-1][0])
        text = "".join(event[2].get("data", "") for event in first + rest)
        numbers = [int(x.split()[1]) for x in text.splitlines() if x.startswith("line ")]
        self.assertEqual(numbers[:12], list(range(1, 13)), "no line is lost or told twice")
        # Its state is told again by the new agent.
        self.assertEqual(self.wait_main(row["id"], "running")["restarts"], 0)
        self.end(row)

    def test_a_stop_and_a_start_begin_anew(self):
        row = self.c.bunker("service", lifecycle_mode="session", main={"args": ["echo began; sleep 1000"]})
        self.wait_main(row["id"], "running")
        for verb, status in (("stop", "stopped"), ("start", "running")):
            self.c.call("POST", f"/bunkers/{row['id']}/{verb}", expect=200)
            again = self.c.get(f"/bunkers/{row['id']}?wait_status={status}&wait_s=60")
            self.assertEqual(again["status"], status, again)
        self.wait_main(row["id"], "running")
        processes.wait_until(lambda: self.logs(row["id"])["data"] == "began\n", "its new log")
        self.end(row)

    def test_its_end_ends_a_follower_with_the_exit(self):
        row = self.c.bunker("service", main={"args": ["echo one; sleep 1; echo two; exit 4"]})
        seen = self.follow(row["id"], lambda event: False)
        self.assertEqual("".join(x[2].get("data", "") for x in seen), "one\ntwo\n")
        self.assertEqual((seen[-1][1], seen[-1][2]["exit_code"]), ("exit", 4))
        self.end(row)

    def test_much_output_costs_a_ring_and_no_more(self):
        row = self.c.bunker("service", main={"args": ["yes 0123456789abcde | head -c 4000000; echo; echo end"]})
        self.wait_main(row["id"], "exited", 60)
        log = self.logs(row["id"])
        self.assertTrue(log["data"].endswith("end\n"))
        self.assertEqual(log["next_offset"], 4000005)
        self.assertEqual(log["offset"] + len(log["data"]), log["next_offset"])
        self.assertEqual(log["lost_bytes"], log["offset"])
        self.assertLessEqual(len(log["data"]), 256 << 10)
        self.end(row)

    def test_the_console(self):
        row = self.c.bunker("bare")
        self.c.sh(row["id"], "echo to the console > /dev/console", user="0")
        log = processes.wait_until(
            lambda: (lambda x: x if "to the console" in x["data"] else None)(self.logs(row["id"], source="console")),
            "the console's text", 20)
        self.assertEqual(log["source"], "console")
        again = self.logs(row["id"], source="console", offset=log["next_offset"])
        self.assertEqual(again["data"], "", "each byte has its offset, and is kept for everybody")
        self.assertIn("to the console", self.logs(row["id"], source="console")["data"])
        self.c.sh(row["id"], "echo more of it > /dev/console", user="0")
        seen = self.follow(row["id"], lambda event: "more of it" in event[2].get("data", ""),
                           source="console", offset=log["next_offset"])
        self.assertIn("more of it", "".join(x[2].get("data", "") for x in seen))
        # Another agent goes on with the same bytes and offsets.
        before = self.logs(row["id"], source="console")
        self.c.agents[0].daemon.kill9()
        self.c.agents[0].start()
        processes.wait_until(
            lambda: self.c.call("POST", f"/bunkers/{row['id']}/exec", {"command": "true"}).status_code == 200,
            "the bunker answers", 60)
        after = self.logs(row["id"], source="console")
        self.assertEqual(after["data"][:len(before["data"])], before["data"])
        self.assertEqual(self.c.error("GET", f"/bunkers/{row['id']}/logs?source=console&offset=99999999")[:2],
                         (422, "VALIDATION_ERROR"))
        # A flood is bounded, and the agent lives.
        self.c.sh(row["id"], "yes flood | head -c 3000000 > /dev/console", user="0", timeout_s=60)
        self.assertLessEqual(len(self.logs(row["id"], source="console")["data"]), 512 << 10)
        self.end(row)

    def test_wrong_input(self):
        for body, field in (({"main": {"restart": "sometimes"}}, "main.restart"),
                            ({"main": {"args": "sh"}}, "main.args"),
                            ({"main": {"args": ["a\0b"]}}, "main.args[0]"),
                            ({"main": {"env": {"A=B": "x"}}}, "main.env"),
                            ({"main": {"user": "root"}}, "main.user"),
                            ({"main": {"args": ["x" * 70000]}}, "main.args")):
            answer = self.c.call("POST", "/bunkers", {"image": "bare", **body}, expect=422).json()["error"]
            self.assertTrue(any(x["field"].startswith(field) for x in answer["details"]), (body, answer))


if __name__ == "__main__":
    unittest.main(verbosity=2)
