#!/usr/bin/python3
"""gRPC by a client that learns everything from reflection."""

import unittest

import grpc

from harness import case, images
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

    def test_health(self):
        answer = self.client().call("grpc.health.v1.Health", "Check", {})
        self.assertEqual(answer["status"], "SERVING")


if __name__ == "__main__":
    unittest.main(verbosity=2)
