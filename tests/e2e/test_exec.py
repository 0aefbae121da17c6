#!/usr/bin/python3
"""Commands in a bunker: arguments, environment, users, streams, signals, time-outs."""

import base64
import hashlib
import unittest

from harness import case


class ExecTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.image = cls.c.ready_image()
        cls.bunker = cls.c.bunker("tiny")["id"]

    def exec(self, command, **more):
        return self.c.exec(self.bunker, command, **more)

    def test_argv_is_passed_untouched(self):
        arguments = ["two words", 'a "quote"', "it's", "", "$HOME;*", "\\n", "é"]
        result = self.exec(["printf", "%s|"] + arguments)
        self.assertEqual(result["stdout"], "".join(x + "|" for x in arguments))
        self.assertEqual((result["exit_code"], result["signal"], result["timed_out"]), (0, None, False))

    def test_string_goes_to_the_shell(self):
        result = self.exec("echo out; echo err >&2; exit 7")
        self.assertEqual((result["stdout"], result["stderr"], result["exit_code"]), ("out\n", "err\n", 7))

    def test_cwd_env_and_image_defaults(self):
        self.assertEqual(self.exec(["/bin/busybox", "pwd"], cwd="/home/alice")["stdout"], "/home/alice\n")
        env = self.exec(["env"], env={"A": "1=2 3", "FROM_IMAGE": "no"})["stdout"].splitlines()
        self.assertIn("A=1=2 3", env)
        self.assertIn("FROM_IMAGE=no", env)
        self.assertIn("FROM_IMAGE=yes", self.exec(["env"])["stdout"].splitlines())

    def test_users(self):
        self.assertEqual(self.exec("id -u; id -g")["stdout"], "0\n0\n")
        self.assertEqual(self.exec("id -u; id -g", user="alice")["stdout"], "1234\n1235\n")
        self.assertEqual(self.exec("id -u", user="4321")["stdout"], "4321\n")
        self.assertEqual(self.exec("id -u; id -g", user="7:8")["stdout"], "7\n8\n")

    def test_a_command_that_is_missing(self):
        result = self.c.call("POST", f"/bunkers/{self.bunker}/exec", {"command": ["/no/such"]})
        text = result.text
        self.assertTrue("/no/such" in text or result.json()["data"]["exit_code"] == 127, text)

    def test_one_mebibyte_of_stdin(self):
        text = ("0123456789abcdef" * 64 + "\n") * 1024
        text = text[:1 << 20]
        result = self.exec(["sha256sum"], stdin=text)
        self.assertEqual(result["stdout"].split()[0], hashlib.sha256(text.encode()).hexdigest())

    def test_a_hundred_megabytes_of_output(self):
        result = self.exec("head -c 100000000 /dev/zero | tr '\\0' x", timeout_s=120)
        self.assertEqual(result["stdout_bytes"], 100_000_000)
        self.assertEqual(result["stdout"], "x" * (1 << 20))
        self.assertEqual((result["truncated"], result["exit_code"]), (True, 0))

    def test_bytes_are_exact_as_base64(self):
        result = self.exec("printf '\\377\\000\\n'", output="base64")
        self.assertEqual(base64.b64decode(result["stdout"]), b"\xff\x00\n")
        self.assertEqual(self.exec("printf '\\377'")["stdout"], "\ufffd")

    def test_a_signal_is_named(self):
        result = self.exec("kill -9 $$")
        self.assertIsNone(result["exit_code"])
        self.assertIn("KILL", result["signal"])

    def test_a_timeout_kills_the_whole_tree(self):
        script = ("setsid sh -c 'setsid sleep 7777 & sleep 7777' & "
                  "(setsid sleep 7777 &) ; sleep 7777")
        result = self.exec(script, timeout_s=2)
        self.assertTrue(result["timed_out"], result)
        self.assertLess(result["duration_ms"], 20_000)
        left = self.exec("ps | grep -c '[s]leep 7777'")
        self.assertEqual(left["stdout"].strip(), "0", "a child survived its time-out")

    def test_a_background_child_does_not_hold_the_answer(self):
        result = self.exec("sleep 5 >/dev/null 2>&1 & echo started", timeout_s=20)
        self.assertEqual((result["stdout"], result["timed_out"]), ("started\n", False))

    def test_the_base_cannot_be_written(self):
        before = self._base_digests()
        result = self.exec("dd if=/dev/zero of=/dev/vda bs=4096 count=1 conv=fsync 2>&1; echo x > /etc/marker; "
                           "cat /etc/marker; cat /sys/block/vda/ro")
        self.assertIn("x\n1\n", result["stdout"])
        self.assertNotIn("1+0 records out", result["stdout"])
        self.assertEqual(self._base_digests(), before)

    def _base_digests(self):
        digests = {}
        for path in self.c.agents[0].image_files().values():
            with open(path, "rb") as source:
                digests[path] = hashlib.sha256(source.read()).hexdigest()
        self.assertTrue(digests)
        return digests

    def test_the_disk_is_private_and_as_large_as_asked(self):
        other = self.c.bunker("tiny", disk_mb=300)["id"]
        self.c.sh(self.bunker, "echo mine > /root/note")
        self.assertNotEqual(self.c.exec(other, "cat /root/note")["exit_code"], 0)
        blocks = int(self.c.sh(other, "df -k / | tail -n 1").split()[1])
        self.assertGreater(blocks, 250 * 1024)
        self.c.call("DELETE", f"/bunkers/{other}", expect=200)

    def test_bunkerctl_exec_has_the_commands_code(self):
        done = self.c.ctl("bunker", "exec", self.bunker, "--", "sh", "-c", "cat; exit 9", check=False)
        self.assertEqual((done.stdout, done.returncode), ("", 9))
        with open(__file__, "rb") as source:
            read = self.c.ctl("bunker", "exec", self.bunker, "-i", "--", "cat", stdin=source)
        with open(__file__, encoding="utf-8") as source:
            self.assertEqual(read.stdout, source.read())
        self.assertEqual(self.c.ctl("bunker", "exec", self.bunker, "--timeout-s", "1", "--", "sleep", "60",
                                    check=False).returncode, 124)


if __name__ == "__main__":
    unittest.main(verbosity=2)
