#!/usr/bin/python3
"""Commands whose output comes as they write it: SSE, back-pressure, ends of all kinds."""

import base64
import hashlib
import os
import subprocess
import time
import unittest

import grpc
import httpx

from harness import case, processes, sse
from harness.cluster import MODULE
from harness.reflection import GenericClient

SLOW_BYTES = int(os.environ.get("BUNKER_STREAM_BYTES", 20_000_000))


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as source:
        return int(source.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class StreamTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.bunker = cls.c.bunker("tiny")["id"]

    def open(self, command, key=None, bunker=None, **more):
        return httpx.stream("POST", f"{self.c.controller.host}{MODULE}/bunkers/{bunker or self.bunker}/exec",
                            json={"command": command, "stream": True, **more},
                            headers={"Authorization": f"Bearer {key or self.c.controller.key}"},
                            timeout=httpx.Timeout(20, read=120))

    def stream(self, command, **more):
        """All events of a command that was let in."""
        with self.open(command, **more) as answer:
            self.assertEqual(answer.status_code, 200, answer.read() if answer.status_code != 200 else "")
            self.assertEqual(answer.headers["content-type"], "text/event-stream")
            return list(sse.events(answer))

    def running(self, what):
        """How many such commands run in the guest; None while the worker is away."""
        answer = self.c.call("POST", f"/bunkers/{self.bunker}/exec",
                             {"command": f"ps | grep -c '[{what[0]}]{what[1:]}'"})
        return int(answer.json()["data"]["stdout"]) if answer.status_code == 200 else None

    def test_bytes_are_in_order_and_exit_is_last(self):
        seen = self.stream("for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done; exit 7")
        text = {name: "".join(data["data"] for _, event, data in seen if event == name)
                for name in ("stdout", "stderr")}
        self.assertEqual(text["stdout"], "".join(f"out{i}\n" for i in range(1, 6)))
        self.assertEqual(text["stderr"], "".join(f"err{i}\n" for i in range(1, 6)))
        _, event, last = seen[-1]
        self.assertEqual((event, last["exit_code"], last["signal"], last["stdout_bytes"], last["timed_out"]),
                         ("exit", 7, None, 25, False))
        self.assertEqual([x[1] for x in seen].count("exit"), 1)

    def test_output_comes_while_the_command_runs(self):
        with self.open("echo first; cat >/dev/null; sleep 600", timeout_s=60) as answer:
            reader = sse.events(answer)
            _, event, data = next(reader)
            self.assertEqual((event, data["data"]), ("stdout", "first\n"))

    def test_stdin_and_exact_bytes(self):
        text = "0123456789abcdef" * 65536
        seen = self.stream("sha256sum", stdin=text)
        self.assertIn(hashlib.sha256(text.encode()).hexdigest(), seen[0][2]["data"])
        seen = self.stream("head -c 300000 /dev/urandom > /tmp/r; cat /tmp/r; sha256sum < /tmp/r >&2",
                           output="base64")
        data = b"".join(base64.b64decode(x[2]["data"]) for x in seen if x[1] == "stdout")
        told = b"".join(base64.b64decode(x[2]["data"]) for x in seen if x[1] == "stderr")
        self.assertEqual(hashlib.sha256(data).hexdigest(), told.decode().split()[0])

    def test_characters_are_whole(self):
        seen = self.stream("i=0; while [ $i -lt 20 ]; do printf '\\303'; sleep 0.01; printf '\\251'; "
                           "i=$((i+1)); done; printf '\\377\\303'")
        text = "".join(x[2]["data"] for x in seen if x[1] == "stdout")
        self.assertEqual(text, "é" * 20 + "\ufffd\ufffd")

    def test_a_signal_and_a_timeout_are_told(self):
        self.assertIn("KILL", self.stream("kill -9 $$")[-1][2]["signal"])
        seen = self.stream("echo begun; sleep 600", timeout_s=2)
        self.assertEqual([x[1] for x in seen], ["stdout", "exit"])
        self.assertTrue(seen[-1][2]["timed_out"])

    def test_refusals_have_their_status(self):
        for command, more, status, code in (
                ("true", {"cwd": "/no/such"}, 404, "PATH_NOT_FOUND"),
                ("true", {"user": "no-such-user"}, 422, "VALIDATION_ERROR"),
                ("", {}, 422, "VALIDATION_ERROR"),
                ("true", {"bunker": "bnk-none"}, 404, "NOT_FOUND")):
            with self.open(command, **more) as answer:
                self.assertEqual((answer.status_code, answer.json()["error"]["code"] if answer.read() else ""),
                                 (status, code))

    def test_curl_reads_it(self):
        url = f"{self.c.controller.host}{MODULE}/bunkers/{self.bunker}/exec"
        done = subprocess.run(["curl", "-sN", "-m", "60", "-H", f"Authorization: Bearer {self.c.controller.key}",
                               "-H", "Content-Type: application/json", "-d",
                               '{"command": "echo hello", "stream": true}', url],
                              capture_output=True, text=True, check=True)
        blocks = done.stdout.strip().split("\n\n")
        self.assertEqual(blocks[0], 'event: stdout\ndata: {"data":"hello\\n"}')
        self.assertTrue(blocks[-1].startswith("event: exit\n"), blocks)

    def test_a_slow_reader_makes_the_command_wait(self):
        command = f"head -c {SLOW_BYTES} /dev/zero | tr '\\0' x; echo done > /tmp/slow-done"
        self.c.sh(self.bunker, "rm -f /tmp/slow-done")
        pids = [self.c.controller.daemon.process.pid, self.c.agents[0].daemon.process.pid]
        before = [resident_bytes(x) for x in pids]
        peaks, total = list(before), 0
        with self.open(command, timeout_s=300) as answer:
            reader = sse.events(answer)
            total += len(next(reader)[2]["data"])
            # Nothing is read now: everything between comes to a halt, bounded.
            halted = self.c.exec(self.bunker, "sleep 3; cat /tmp/slow-done")
            self.assertNotEqual(halted["exit_code"], 0, "the command was not held up")
            for _, event, data in reader:
                if event == "exit":
                    self.assertEqual(data["stdout_bytes"], SLOW_BYTES)
                    break
                total += len(data["data"])
                if total % (1 << 20) < 16384:
                    peaks = [max(a, resident_bytes(b)) for a, b in zip(peaks, pids)]
        self.assertEqual(total, SLOW_BYTES)
        grown = [(a - b) >> 20 for a, b in zip(peaks, before)]
        print(f"{SLOW_BYTES} bytes through a slow reader; controller and agent grew by {grown} MiB", flush=True)
        self.assertLess(max(grown), 16)

    def test_who_goes_away_ends_the_command(self):
        with self.open("echo up; sleep 7171", timeout_s=600) as answer:
            reader = sse.events(answer)  # whose end would close the answer
            next(reader)
            self.assertEqual(self.running("sleep 7171"), 1)
        processes.wait_until(lambda: self.running("sleep 7171") == 0, "the command is gone", 20)

    def test_a_revoked_key_ends_it(self):
        made = httpx.post(self.c.controller.host + "/v1/api-keys", json={"name": "s"},
                          headers={"Authorization": f"Bearer {self.c.controller.key}"}).json()["data"]
        with self.open("echo up; sleep 7272", key=made["key"], timeout_s=600) as answer:
            reader = sse.events(answer)
            next(reader)
            httpx.delete(f"{self.c.controller.host}/v1/api-keys/{made['id']}",
                         headers={"Authorization": f"Bearer {self.c.controller.key}"}).raise_for_status()
            started = time.monotonic()
            _, event, data = next(reader)
            self.assertEqual((event, data["code"]), ("error", "AUTH_TOKEN_INVALID"))
            print(f"the stream ended {time.monotonic() - started:.2f} s after the key", flush=True)
        processes.wait_until(lambda: self.running("sleep 7272") == 0, "the command is gone", 20)

    def test_a_dead_agent_is_told(self):
        with self.open("echo up; sleep 7373", timeout_s=600) as answer:
            reader = sse.events(answer)
            next(reader)
            self.c.agents[0].daemon.kill9()
            _, event, data = next(reader)
            self.assertEqual((event, data["code"]), ("error", "UNAVAILABLE"))
        self.c.agents[0].start()
        self.c.wait_online(1)
        processes.wait_until(lambda: self.running("sleep 7373") == 0, "the guest ended what nobody hears", 30)

    def test_the_start_is_in_the_audit(self):
        self.stream(["echo", "very-secret-word"])
        rows = self.c.get("/audit?action=Bunkers.ExecStream&limit=200")
        self.assertIn((self.bunker, "ok"), [(x["target"], x["outcome"]) for x in rows])
        self.assertNotIn("very-secret-word", str(rows))

    def test_grpc_streams_it(self):
        client = GenericClient(self.c.controller.grpc_port, self.c.controller.key)
        seen = [x for x, _ in client.stream(
            "bunker.v1.Bunkers", "ExecStream",
            {"bunker": self.bunker, "command": {"shell": "echo a; sleep 0.2; echo b >&2; exit 3"}})]
        data = [(name, base64.b64decode(x[name])) for x in seen for name in ("stdout", "stderr") if name in x]
        self.assertEqual(data, [("stdout", b"a\n"), ("stderr", b"b\n")])
        self.assertEqual(seen[-1]["exit"]["exit_code"], 3)
        with self.assertRaises(grpc.RpcError) as refused:
            list(client.stream("bunker.v1.Bunkers", "ExecStream",
                               {"bunker": self.bunker, "command": {"shell": ""}}))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == "__main__":
    unittest.main(verbosity=2)
