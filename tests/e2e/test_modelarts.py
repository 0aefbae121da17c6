#!/usr/bin/python3
"""The example request of ModelArts' RegisterImage, as its page has it: the path's host is a loopback
registry by way of the agent's mirrors; size and digest are computed here, from what was pushed."""

import os
import unittest

import httpx

from harness import images, processes
from harness.cluster import Cluster

REQUEST = {
    "description": "",
    "resource_category": ["CPU"],
    "arch": "X86_64",
    "swr_path": "swr.xxx.com/op_svc_modelarts_container2/pytorch_1_8:train-pytorch_1.8.0-cuda_10.2-py_3.7",
}
# Field → type, as the page's response table has them.
FIELDS = {
    "arch": str, "create_at": int, "description": str, "dev_services": list, "id": str, "name": str,
    "namespace": str, "origin": str, "resource_categories": list, "service_type": str, "size": int, "status": str,
    "support_res_categories": list, "swr_path": str, "tag": str, "type": str, "update_at": int, "visibility": str,
    "workspace_id": str,
}
REPOSITORY, TAG = "op_svc_modelarts_container2/pytorch_1_8", "train-pytorch_1.8.0-cuda_10.2-py_3.7"


class ModelArtsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(agents=0)
        cls.c = cls.cluster.__enter__()
        cls.addClassCleanup(cls.cluster.__exit__, None)
        cls.pushed = images.tiny(marker="modelarts")
        cls.c.registry.push(cls.pushed, REPOSITORY, TAG)
        mirrors = {"images": {"mirrors": {"swr.xxx.com": "http://" + cls.c.registry.host}}}
        registry = [{"host": "swr.xxx.com", "insecure_http": True, "allow_address": True}]
        cls.c.add_agent("w1", mirrors, {"images.registry": registry})
        cls.c.wait_online(1)
        cls.project = cls.ask("GET", "/v1/whoami")[1]["data"]["tenant"]["id"]
        group = cls.c.post("/availability-groups", {"name": "all", "auto_images": True})["id"]
        cls.c.call("POST", f"/availability-groups/{group}/workers", {"ref": "w1"}, expect=200)

    @classmethod
    def ask(cls, method, path, body=None):
        answer = httpx.request(method, cls.c.controller.host + path, json=body, timeout=60,
                               headers={"Authorization": "Bearer " + cls.c.controller.key})
        return answer.status_code, answer.json()

    def test_the_example_request(self):
        base = f"/v1/{self.project}/images"
        status, made = self.ask("POST", base, REQUEST)
        self.assertEqual(status, 200, made)
        self.assertEqual({k: type(v) for k, v in made.items() if k != "status_message"}, FIELDS)
        self.assertIn(made["status"], ("INIT", "ACTIVE"))
        # The page's example, but for what differs by nature.
        self.assertEqual(made["name"], "pytorch_1_8")
        self.assertEqual(made["namespace"], "op_svc_modelarts_container2")
        self.assertEqual(made["tag"], TAG)
        self.assertEqual(made["swr_path"], REQUEST["swr_path"])
        self.assertEqual(made["dev_services"], ["NOTEBOOK", "SSH"])
        self.assertEqual((made["origin"], made["service_type"], made["type"], made["visibility"], made["workspace_id"]),
                         ("CUSTOMIZE", "UNKNOWN", "DEDICATED", "PRIVATE", "0"))
        one = f"{base}/{made['id']}"
        row = processes.wait_until(lambda: (lambda x: x if x["status"] != "INIT" else None)(self.ask("GET", one)[1]),
                                   "the path resolves", 60)
        self.assertEqual(row["status"], "ACTIVE", row)
        self.c.wait_cache(made["id"])
        # Both worlds show one image: the digest is the pushed manifest's, the size the baked file's.
        ours = self.c.get(f"/images/{made['id']}")
        self.assertEqual(ours["resolved_digest"], self.pushed.digest)
        self.assertEqual(ours["url"], f"swr.xxx.com/{REPOSITORY}@{self.pushed.digest}")
        file = next(iter(self.c.agents[0].image_files().values()))
        allocated = os.stat(file).st_blocks * 512
        self.assertEqual(ours["size_in_bytes"], allocated)
        self.assertEqual(self.ask("GET", one)[1]["size"], -(-allocated // 1024))
        self.assertIn(made["id"], [x["id"] for x in self.ask("GET", base)[1]["data"]])
        self.assertEqual(self.ask("POST", base, REQUEST)[0], 409)
        self.c.call("DELETE", f"/images/{made['id']}", expect=200)
        self.assertEqual(self.ask("GET", one)[1]["status"], "DELETED")

    def test_a_path_that_is_not_there(self):
        status, made = self.ask("POST", f"/v1/{self.project}/images", {"swr_path": "swr.xxx.com/none/such:1"})
        self.assertEqual(status, 200, made)
        one = f"/v1/{self.project}/images/{made['id']}"
        row = processes.wait_until(lambda: (lambda x: x if x["status"] == "ERROR" else None)(self.ask("GET", one)[1]),
                                   "the path turns out not to be there", 60)
        self.assertRegex(row["status_message"], "^IMAGE_NOT_FOUND: ")

    def test_errors_are_flat(self):
        for method, path, body, expected in (
                ("GET", "/v1/tnt_none/images", None, (404, "NOT_FOUND")),
                ("POST", f"/v1/{self.project}/images", {}, (422, "VALIDATION_ERROR")),
                ("GET", f"/v1/{self.project}/images/none", None, (404, "NOT_FOUND"))):
            status, error = self.ask(method, path, body)
            self.assertEqual((status, error["error_code"]), expected)
            self.assertEqual(set(error), {"error_code", "error_msg"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
