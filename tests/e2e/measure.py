#!/usr/bin/python3
"""The table: where the time goes from register to ready and from create to the first answer.

usage: measure.py [--runs 10] [--image tiny|debian]      (prints medians; fails on no figure)
"""

import argparse
import statistics
import sys
import time

from harness import images
from harness.cluster import Cluster


def stages_of(cluster, image_id, start):
    """Seconds at which each stage was first seen, from polling the cache view."""
    seen = {}
    while True:
        rows = cluster.cache(image_id)
        now = time.monotonic() - start
        for row in rows:
            seen.setdefault(row["stage"] if row["status"] == "building" else row["status"], now)
        if rows and rows[0]["status"] in ("ready", "failed"):
            return seen
        time.sleep(0.01)


def one_run(cluster, kind):
    """One image and one bunker on a platform with empty caches."""
    group = cluster.group("measure")
    name = "measured"
    ref = cluster.registry.push(images.tiny(), name) if kind == "tiny" else images.push_debian(cluster.registry, name)
    start = time.monotonic()
    row = cluster.register(name, ref, size_mib=1024)
    cluster.attach(group, row["id"])
    seen = stages_of(cluster, row["id"], start)
    figures = {"register→ready": seen["ready"]}
    if "baking" in seen:
        figures["  register→baking (resolve, pull)"] = seen["baking"]
        figures["  baking→ready (bake, verify, publish)"] = seen["ready"] - seen["baking"]
    start = time.monotonic()
    bunker = cluster.bunker(name)
    figures["create→running"] = time.monotonic() - start
    for part, spent in bunker["timings"].items():
        if spent is not None:
            figures["  " + part.removesuffix("_ms")] = spent / 1000
    for label in ("first exec", "second exec"):
        start = time.monotonic()
        cluster.sh(bunker["id"], "true")
        figures[label + " (round trip)"] = time.monotonic() - start
    cluster.call("DELETE", f"/bunkers/{bunker['id']}", expect=200)
    return figures, bunker["isolation"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--image", choices=("tiny", "debian"), default="tiny")
    arguments = parser.parse_args()
    columns = {}
    for number in range(arguments.runs):
        with Cluster(agents=1) as cluster:
            figures, isolation = one_run(cluster, arguments.image)
        for name, value in figures.items():
            columns.setdefault(name, []).append(value)
        print(f"run {number + 1}: " + ", ".join(f"{k.strip()} {v:.3f}" for k, v in figures.items()), file=sys.stderr)
    print(f"{arguments.runs} runs, image {arguments.image}, guests on {isolation}; seconds")
    for name, values in columns.items():
        print(f"{name:40} median {statistics.median(values):8.3f}   min {min(values):8.3f}   max {max(values):8.3f}")


if __name__ == "__main__":
    main()
