#!/usr/bin/python3
"""Shells over WebSockets, by a client that is not ours."""

import json
import time
import unittest

import httpx
import websocket

from harness import case, processes
from harness.cluster import MODULE


class Shell:
    """One shell; everything that came is in `text` and `said`."""

    def __init__(self, url, headers, origin=None):
        options = {"origin": origin} if origin else {"suppress_origin": True}
        self.socket = websocket.create_connection(url, header=headers, timeout=30, **options)
        self.text, self.said = "", []

    def type(self, text):
        self.socket.send_binary(text.encode())

    def resize(self, cols, rows):
        self.socket.send(json.dumps({"resize": {"cols": cols, "rows": rows}}))

    def step(self):
        code, data = self.socket.recv_data()
        if code == websocket.ABNF.OPCODE_BINARY:
            self.text += data.decode(errors="replace")
        elif code == websocket.ABNF.OPCODE_TEXT:
            self.said.append(json.loads(data))
        elif code == websocket.ABNF.OPCODE_CLOSE:
            return False
        return True

    def wait(self, text, seconds=30):
        """Until `text` has come; what lay before it is forgotten."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            if time.monotonic() > deadline or not self.step():
                raise AssertionError(f"{text!r} did not come: {self.text!r} {self.said}")
        before, self.text = self.text.split(text, 1)
        return before

    def finish(self):
        try:
            while self.step():
                pass
        except websocket.WebSocketConnectionClosedException:
            pass
        return self.said


class ShellTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.c.ready_image()
        cls.bunker = cls.c.bunker("tiny")["id"]

    def url(self, query="", bunker=None):
        return (f"ws://127.0.0.1:{self.c.controller.rest_port}{MODULE}/bunkers/{bunker or self.bunker}/shell"
                + (f"?{query}" if query else ""))

    def shell(self, query="", key=None, **more):
        return Shell(self.url(query), [f"Authorization: Bearer {key or self.c.controller.key}"], **more)

    def refused(self, query="", headers=None, **more):
        if headers is None:
            headers = [f"Authorization: Bearer {self.c.controller.key}"]
        with self.assertRaises(websocket.WebSocketBadStatusException) as error:
            Shell(self.url(query, more.pop("bunker", None)), headers, **more)
        return error.exception.status_code

    def new_key(self, **more):
        return httpx.post(self.c.controller.host + "/v1/api-keys", json={"name": "s", **more}, headers={
            "Authorization": f"Bearer {self.c.controller.key}"}).json()["data"]

    def ticket(self, **more):
        return self.c.post(f"/bunkers/{self.bunker}/shell-tickets", {}, **more)["ticket"]

    def test_a_script_drives_a_shell(self):
        shell = self.shell("cols=93&rows=31")
        shell.type("PS1='$ '; echo a$((40+2))b; tty; stty size\n")
        shell.wait("a42b\r\n")
        shell.wait("/dev/pts/")
        shell.wait("31 93")
        shell.resize(120, 40)
        shell.type("stty size; echo z$((1+1))z\n")
        self.assertIn("40 120", shell.wait("z2z"))
        shell.type("sleep 60\n")
        time.sleep(0.5)
        shell.type("\x03")  # the terminal makes a signal of it
        shell.type("echo back$((2+2))\n")
        shell.wait("back4")
        shell.type("exit 7\n")
        self.assertEqual(shell.finish(), [{"exit": 7}])

    def test_a_command_in_place_of_a_shell(self):
        self.assertEqual(self.shell("command=exit%204").finish(), [{"exit": 4}])
        self.assertEqual(self.shell("command=kill%20-9%20%24%24").finish(), [{"exit": 137}])
        shell = self.shell("user=alice&command=id%20-u")
        shell.wait("1234")

    def test_refusals_have_their_status(self):
        self.assertEqual(self.refused(headers=[]), 401)
        self.assertEqual(self.refused("cols=0"), 422)
        self.assertEqual(self.refused("user=nobody-knows"), 422)
        self.assertEqual(self.refused(bunker="bnk_" + "0" * 32), 404)
        bare = self.new_key(permissions=["scaibunker:create", "scaibunker:execute"])["key"]
        self.assertEqual(self.refused(headers=[f"Authorization: Bearer {bare}"]), 403)
        no_root = self.new_key(permissions=["scaibunker:create", "scaibunker:shell"])["key"]
        self.assertEqual(self.refused("user=0", headers=[f"Authorization: Bearer {no_root}"]), 403)
        self.assertEqual(self.c.error("GET", f"/bunkers/{self.bunker}/shell")[:2], (422, "VALIDATION_ERROR"))

    def test_the_origin_is_checked(self):
        self.assertEqual(self.refused(origin="https://evil.example"), 403)
        self.assertEqual(self.refused("ticket=" + self.ticket(), headers=[], origin="https://evil.example"), 403)
        shell = self.shell("command=echo%20hello", origin=self.c.controller.host)
        shell.wait("hello")

    def test_a_ticket_is_good_once_for_one_bunker(self):
        ticket = self.ticket()
        shell = Shell(self.url("command=id%20-u&ticket=" + ticket), [])
        shell.wait("0\r\n")
        self.assertEqual(self.refused("ticket=" + ticket, headers=[]), 401)
        self.assertEqual(self.refused("ticket=skt_" + "A" * 43, headers=[]), 401)
        other = self.c.bunker("tiny")["id"]
        self.assertEqual(self.refused("ticket=" + self.ticket(), headers=[], bunker=other), 401)
        self.c.call("DELETE", f"/bunkers/{other}", expect=200)

    def test_a_revoked_key_ends_it(self):
        made = self.new_key()
        shell = self.shell("command=echo%20up%3B%20sleep%207474", key=made["key"])
        shell.wait("up")
        ticket = self.ticket(key=made["key"])
        httpx.delete(f"{self.c.controller.host}/v1/api-keys/{made['id']}",
                     headers={"Authorization": f"Bearer {self.c.controller.key}"}).raise_for_status()
        started = time.monotonic()
        said = shell.finish()
        took = time.monotonic() - started
        self.assertEqual(said[-1]["error"]["code"], "AUTH_TOKEN_INVALID")
        print(f"the shell ended {took:.2f} s after the key", flush=True)
        self.assertEqual(self.refused("ticket=" + ticket, headers=[]), 401)
        self.gone("sleep 7474")

    def gone(self, what):
        processes.wait_until(lambda: self.c.exec(self.bunker, f"ps | grep -c '[{what[0]}]{what[1:]}'")["stdout"]
                             == "0\n", f"{what} is gone", 20)

    def test_who_goes_away_ends_it(self):
        shell = self.shell("command=echo%20up%3B%20sleep%207575")
        shell.wait("up")
        shell.socket.shutdown()
        self.gone("sleep 7575")

    def test_much_output_through_a_slow_reader(self):
        shell = self.shell("command=stty%20raw%3B%20head%20-c%205000000%20/dev/zero%20%7C%20tr%20%27%5C0%27%20x")
        time.sleep(2)
        got = 0
        while shell.step():
            got += len(shell.text)
            shell.text = ""
            if shell.said:
                break
        self.assertEqual((got, shell.said), (5_000_000, [{"exit": 0}]))

    def test_what_is_no_message_is_told_or_ends_it(self):
        shell = self.shell()
        for text in ("", "{", "[]", '{"resize":{"cols":0,"rows":5}}', '{"resize":{"cols":1e99,"rows":5}}',
                     '{"exit":0}', '{"resize":{"cols":80,"rows":24},"x":1}'):
            shell.socket.send(text)
        shell.type("echo still$((1+2))\n")
        shell.wait("still3")
        self.assertEqual(len(shell.said), 7)
        self.assertEqual(shell.said[0]["error"]["code"], "VALIDATION_ERROR")
        with self.assertRaises((websocket.WebSocketException, OSError)):
            shell.socket.send_binary(b"x" * (2 << 20))  # larger than a message may be
            while shell.step():
                pass
            raise websocket.WebSocketConnectionClosedException("closed")
        self.assertEqual(self.c.sh(self.bunker, "echo alive"), "alive\n")

    def test_a_start_is_audited(self):
        self.shell("command=true").finish()
        rows = self.c.get("/audit?action=Shells.OpenShell&limit=200")
        self.assertIn((self.bunker, "ok"), [(x["target"], x["outcome"]) for x in rows])

    def test_a_dead_agent_ends_it(self):
        shell = self.shell("command=echo%20up%3B%20sleep%20600")
        shell.wait("up")
        self.c.agents[0].daemon.kill9()
        self.assertEqual(shell.finish()[-1]["error"]["code"], "UNAVAILABLE")
        self.c.agents[0].start()
        self.c.wait_online(1)
        processes.wait_until(lambda: self.c.call("POST", f"/bunkers/{self.bunker}/exec",
                                                 {"command": "true"}).status_code == 200, "it answers", 40)


if __name__ == "__main__":
    unittest.main(verbosity=2)
