#!/usr/bin/python3
"""gRPC by a client that learns everything from reflection."""

import os
import unittest

import grpc
import httpx

from harness import case, images, processes
from harness.reflection import GenericClient


class GrpcTest(case.ClusterTest):
    def client(self, key="ours"):
        return GenericClient(self.c.controller.grpc_port, self.c.controller.key if key == "ours" else key)

    def test_services_are_listed(self):
        services = self.client().services()
        for name in ("bunker.v1.Images", "bunker.v1.AvailabilityGroups", "bunker.v1.Workers",
                     "bunker.v1.Bunkers", "grpc.health.v1.Health"):
            self.assertIn(name, services)

    def test_the_same_rows_as_over_rest(self):
        ref = self.c.registry.push(images.tiny(), "generic")
        image = self.c.register("generic", ref)
        client = self.client()
        rows = client.call("bunker.v1.Images", "ListImages", {"limit": 10})["images"]
        self.assertEqual([x["id"] for x in rows], [image["id"]])
        one = client.call("bunker.v1.Images", "GetImage", {"image": "generic"})
        self.assertEqual(one["build_source"]["ref"], ref)
        created = client.call("bunker.v1.AvailabilityGroups", "CreateAvailabilityGroup", {"name": "by-grpc"})
        self.assertEqual(self.c.get(f"/availability-groups/{created['id']}")["name"], "by-grpc")
        self.assertEqual(client.call("bunker.v1.Workers", "ListWorkers")["workers"][0]["name"], "w1")

    def test_errors_have_their_code(self):
        with self.assertRaises(grpc.RpcError) as missing:
            self.client().call("bunker.v1.Images", "GetImage", {"image": "no-such"})
        self.assertEqual(missing.exception.code(), grpc.StatusCode.NOT_FOUND)
        with self.assertRaises(grpc.RpcError) as stranger:
            self.client("sgk_" + "A" * 43).call("bunker.v1.Images", "ListImages")
        self.assertEqual(stranger.exception.code(), grpc.StatusCode.UNAUTHENTICATED)

    def test_every_method_asks_for_a_key(self):
        """The same table as REST's: without a key, and with one that holds nothing."""
        open_to_all = {"bunker.v1.Health": {"GetHealth", "GetReady"}}
        open_to_keys = {"bunker.v1.Accounts": {"WhoAmI"}}
        key = httpx.post(self.c.controller.host + "/v1/api-keys", json={"name": "bare", "permissions": []}, headers={
            "Authorization": f"Bearer {self.c.controller.key}"}, timeout=30).json()["data"]["key"]
        asked = 0
        for name in self.client().services():
            if not name.startswith("bunker.v1."):
                continue
            for client, code in ((self.client(None), grpc.StatusCode.UNAUTHENTICATED),
                                 (self.client(key), grpc.StatusCode.PERMISSION_DENIED)):
                for method in client.methods(name):
                    is_open = method in open_to_all.get(name, ()) or (
                        client.metadata and method in open_to_keys.get(name, ()))
                    if is_open:
                        client.call(name, method)
                        continue
                    with self.assertRaises(grpc.RpcError) as refused:
                        client.call(name, method)
                    self.assertEqual(refused.exception.code(), code, (name, method))
                    asked += 1
        print(f"{asked} calls refused")
        self.assertGreater(asked, 100)

    def test_the_socket_is_for_root_and_our_own_user(self):
        """No key is asked for, so the mode is not all that keeps others out."""
        path = self.c.controller.admin_socket
        me = GenericClient(path, None).call("bunker.v1.Accounts", "WhoAmI")
        self.assertEqual(me["role"], "super_admin")
        self.assertIn("scaibunker:admin:platform", me["permissions"])
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        program = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]); "
                   "s.sendall(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + b'\\0\\0\\0\\4\\0\\0\\0\\0\\0'); "
                   "print(len(s.recv(100)))")
        stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", program, path]
        ours = ["/usr/bin/python3", "-c", program, path]
        refused = processes.run(stranger, check=False)
        self.assertIn("PermissionError", refused.stderr)  # by the mode
        folders = [self.c.controller.folder, path]
        modes = [os.stat(x).st_mode & 0o777 for x in folders]
        try:
            for x in folders:
                os.chmod(x, 0o777)
            refused = processes.run(stranger, check=False)
            self.assertTrue(refused.stdout.strip() == "0" or "ConnectionResetError" in refused.stderr
                            or "BrokenPipeError" in refused.stderr, (refused.stdout, refused.stderr))
        finally:
            for x, mode in zip(folders, modes):
                os.chmod(x, mode)
        self.assertGreater(int(processes.run(ours).stdout), 0)
        self.assertIn("admin.stranger", self.c.controller.daemon.log())

    def test_health(self):
        answer = self.client().call("grpc.health.v1.Health", "Check", {})
        self.assertEqual(answer["status"], "SERVING")


if __name__ == "__main__":
    unittest.main(verbosity=2)
