#!/usr/bin/python3
"""The cache view live: server-sent events that go on where they were, across a restart of the
controller as well, and the same rows over gRPC."""

import unittest

import grpc

from harness import case, images, processes
from harness.events import CacheStream
from harness.reflection import GenericClient


class CacheWatchTest(case.ClusterTest):
    AGENTS = 2

    @classmethod
    def prepare(cls):
        cls.ref = cls.c.registry.push(images.tiny(marker="watched"), "watched")
        cls.c.register("watched", cls.ref)
        cls.group = cls.c.group("g", workers=[cls.c.workers()["w1"]], images=["watched"])

    def test_1_resumes_across_a_restart(self):
        with CacheStream(self.c, "watched") as stream:
            stream.wait(lambda e: any(x[1] == "row" and x[2]["status"] == "ready" for x in e), "w1 is ready")
            stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
            seen = stream.last_id()
            ids = [int(x[0]) for x in stream.events if x[0]]
            self.assertEqual(ids, sorted(ids))
        # Nothing happened since: nothing is told again.
        with CacheStream(self.c, "watched", seen) as stream:
            stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
            self.assertEqual([x[1] for x in stream.events], ["synced"])
        self.c.controller.daemon.kill9()
        self.c.controller.start()
        self.c.wait_online(2)
        w2 = self.c.workers()["w2"]["id"]
        self.c.call("POST", f"/availability-groups/{self.group}/workers", {"ref": "w2"}, expect=200)
        self.c.wait_cache("watched", rows=2)
        with CacheStream(self.c, "watched", seen) as stream:
            stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
            rows = [x[2]["worker_id"] for x in stream.events if x[1] == "row"]
            self.assertEqual(rows, [w2], "only what changed since, by a new process")
            self.assertNotIn("reset", [x[1] for x in stream.events])
            # And a removal that nobody watched.
            seen = stream.last_id()
        self.c.call("DELETE", f"/availability-groups/{self.group}/workers/w2", expect=200)
        with CacheStream(self.c, "watched", seen) as stream:
            stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
            self.c.call("POST", "/workers/w2/gc", {}, expect=200)
            stream.wait(lambda e: ("removed", {"worker_id": w2}) in [x[1:] for x in e], "w2's row is taken back")

    def test_2_an_id_that_is_not_known_says_so(self):
        for id_ in ("nonsense", str(2 ** 62), "-1"):
            with CacheStream(self.c, "watched", id_) as stream:
                stream.wait(lambda e: any(x[1] == "synced" for x in e), "synced")
                self.assertEqual(stream.events[0][1], "reset", id_)
                self.assertIn("all rows follow", stream.events[0][2]["reason"])
                self.assertEqual([x[2]["worker_name"] for x in stream.events if x[1] == "row"], ["w1"])

    def test_3_grpc_gives_the_same_rows(self):
        client = GenericClient(self.c.controller.grpc_port, self.c.controller.key)
        events = []
        for event, call in client.stream("bunker.v1.Images", "WatchImageCache", {"image": "watched"}):
            events.append(event)
            if "synced" in event:
                call.cancel()
                break
        self.assertEqual([x["row"]["worker_name"] for x in events if "row" in x], ["w1"])
        self.assertEqual(events[0]["row"]["rootfs_digest"], self.c.cache("watched")[0]["rootfs_digest"])
        last = events[-1]["id"]
        stream = client.stream("bunker.v1.Images", "WatchImageCache", {"image": "watched", "after_id": last})
        first, call = next(stream)
        self.assertIn("synced", first)
        self.c.call("POST", f"/availability-groups/{self.group}/workers", {"ref": "w2"}, expect=200)
        for event, call in stream:
            row = event.get("row", {})
            if row.get("worker_name") == "w2" and row["status"] == "CACHE_STATUS_READY":
                call.cancel()
                break
        with self.assertRaises(grpc.RpcError) as missing:
            next(client.stream("bunker.v1.Images", "WatchImageCache", {"image": "none"}))
        self.assertEqual(missing.exception.code(), grpc.StatusCode.NOT_FOUND)
        with self.assertRaises(grpc.RpcError) as stranger:
            next(GenericClient(self.c.controller.grpc_port, None).stream(
                "bunker.v1.Images", "WatchImageCache", {"image": "watched"}))
        self.assertEqual(stranger.exception.code(), grpc.StatusCode.UNAUTHENTICATED)
        # Watchers that went leave nothing behind.
        processes.wait_until(lambda: self.c.get("/images/watched")["cache_summary"]["ready"] == 2, "both ready")


if __name__ == "__main__":
    unittest.main(verbosity=2)
