#!/usr/bin/python3
"""The tutorial's own code, run as it stands against a freshly initialised controller a language.

Changed: host and key (by the environment variables that the blocks read) and the image reference.
"""

import json
import os
import re
import unittest

from harness import case, images, paths, processes

SEED = os.path.join(paths.E2E, "seeds/register-custom-image.md")


def blocks(step, language):
    with open(SEED, encoding="utf-8") as source:
        text = source.read()
    section = re.search(rf"^## {step}\n(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)


class SeedCase(case.ClusterTest):
    AGENT = {"worker": {"memory_mb": 8192, "disk_mb": 65536, "cpu_millicores": 4000}}

    @classmethod
    def prepare(cls):
        cls.ref = cls.c.registry.push(images.tiny(), "r-base", "4.4")

    def adapted(self, block):
        self.assertTrue(block)
        return block.replace("docker.io/r-base:4.4", self.ref)

    def shell(self, block, **variables):
        """Runs a curl block as a reader would paste it; the answer's envelope."""
        environment = dict(self.c.shell_environment(), **variables)
        done = processes.run(["bash", "-euo", "pipefail", "-c", self.adapted(block)], env=environment)
        answer = json.loads(done.stdout)
        self.assertEqual(answer["status"], "ok", answer)
        return answer["data"]

    def attach_workers(self, group):
        for worker in self.c.workers().values():
            self.c.call("POST", f"/availability-groups/{group}/workers", {"ref": worker["id"]}, expect=200)

    def check_registered(self, image_id):
        row = self.c.get(f"/images/{image_id}")
        self.assertEqual(row["name"], "r-stats")
        self.assertEqual(row["size_mib"], 4096)
        self.assertEqual(row["preinstalled"], ["R", "tidyverse", "ggplot2", "dplyr"])
        self.assertEqual(row["scan_status"], "pending")


class CurlTest(SeedCase):
    def test_steps_2_3_6_7(self):
        image = self.shell(blocks(2, "bash")[0])
        self.assertEqual(set(image["warm"]), {"queued", "ready", "failed", "skipped"})
        self.check_registered(image["id"])
        group = self.c.post("/availability-groups", {"name": "curl"})["id"]
        self.c.attach(group, image["id"])
        self.attach_workers(group)
        look, warm = blocks(3, "bash")
        variables = {"IMAGE_ID": image["id"]}
        rows = processes.wait_until(
            lambda: [x for x in self.shell(look, **variables) if x["status"] == "ready"],
            "the worker has the image", 120, 0.2)
        self.assertTrue(rows[0]["rootfs_digest"].startswith("fsverity-sha256:"))
        self.assertEqual(self.shell(warm, **variables), {"queued": 0, "ready": 1, "failed": 0, "skipped": 0})
        bunker = self.shell(blocks(6, "bash")[0])
        self.assertEqual(bunker["network_profile"], "registry")
        self.assertEqual(bunker["lifecycle_mode"], "ephemeral")
        self.assertEqual((bunker["cpu_millicores"], bunker["memory_mb"], bunker["disk_mb"]), (2000, 4096, 8192))
        self.assertEqual(self.c.sh(bunker["id"], "cat /etc/marker"), "1")
        self.assert_nothing_reachable(bunker["id"])
        self.shell(blocks(7, "bash")[0], **variables)
        self.assertEqual(self.c.sh(bunker["id"], "echo still here"), "still here\n")
        status, code, message = self.c.error("POST", "/bunkers", {"image": "r-stats"})
        self.assertEqual((status, code), (409, "IMAGE_INACTIVE"), message)

    def assert_nothing_reachable(self, bunker):
        """Profile registry: what is on no list is not reached, not even the worker itself."""
        for address in ("192.0.2.77", "10.200.0.1", "127.0.0.53"):
            result = self.c.exec(bunker, f"busybox wget -q -T 5 -O - http://{address}/")
            self.assertNotEqual(result["exit_code"], 0, address)


class PythonTest(SeedCase):
    def test_steps_2_and_4_as_one_script(self):
        script = self.adapted(blocks(2, "python")[0]) + "\n" + self.adapted(blocks(4, "python")[0])
        done = processes.run(["/usr/bin/python3", "-c", script], env=self.c.shell_environment())
        image = re.search(r"^(img_[0-9a-f]{32}) warm queued:", done.stdout, re.M).group(1)
        group = re.search(r"^group: (ag_[0-9a-f]{32})$", done.stdout, re.M).group(1)
        self.check_registered(image)
        row = self.c.get(f"/availability-groups/{group}")
        self.assertEqual(row["image_ids"], [image])
        self.attach_workers(group)
        self.c.wait_cache(image)


class JavaScriptTest(SeedCase):
    def test_step_2(self):
        script = os.path.join(self.c.folder, "seed.mjs")
        with open(script, "w", encoding="utf-8") as out:
            out.write(self.adapted(blocks(2, "javascript")[0]))
        done = processes.run(["node", script], env=self.c.shell_environment())
        image = re.search(r"^(img_[0-9a-f]{32}) warm queued:", done.stdout, re.M).group(1)
        self.check_registered(image)


if __name__ == "__main__":
    unittest.main(verbosity=2)
