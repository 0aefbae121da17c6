#!/usr/bin/python3
"""From register to ready, out of a registry behind a line of 50 MB/s, against the bare transfer.

usage: registry_bench.py [--runs 5] [--mb-per-s 50] [--bin DIR] [--image r] [--json FILE]

A real docker-registry, a proxy that holds the line's rate, the real controller, and a new agent for
each run, so that its caches are empty. The transfer is the same blobs through the same line by curl,
two at a time, in the same run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import make_images
import throttle
import ways

GOAL = 1.15
NAMES = {"r": "cleaned", "many": "latest", "small": "latest"}


def transfer(registry, layers):
    """Seconds that the blobs take through the line."""
    urls = []
    for _, path in layers:
        urls += ["-o", os.devnull, f"http://{registry}/v2/measured/blobs/sha256:{os.path.basename(path)}"]
    begun = time.monotonic()
    subprocess.run(["curl", "-fL", "--no-progress-meter", "--parallel", "--parallel-max", "2", "--parallel-immediate", *urls], check=True)
    return time.monotonic() - begun


def register_to_ready(cluster, agent_name, ref, number):
    """One worker, one new image row: (when it began, seconds, the row's own stages)."""
    worker = cluster.workers()[agent_name]
    group = cluster.group(f"group-{number}", workers=[worker])
    begun = time.monotonic()
    row = cluster.register(f"measured-{number}", ref, size_mib=4096)
    cluster.attach(group, row["id"])
    seen = {}
    while True:
        now = time.monotonic() - begun
        for cached in cluster.cache(row["id"]):
            seen.setdefault(cached["stage"] if cached["status"] == "building" else cached["status"], now)
            if cached["status"] == "failed":
                raise AssertionError(f"the image failed: {cached}")
        if "ready" in seen:
            return begun, seen["ready"], seen
        time.sleep(0.02)


def one_run(cluster, line, layers, number):
    moved = transfer(line.host, layers)
    name = f"p{number}"
    agent = cluster.add_agent(name, arrays={"images.registry": [
        {"host": line.host, "insecure_http": True, "allow_address": True}]})
    from harness import processes
    processes.wait_until(lambda: cluster.workers().get(name, {}).get("status") == "online", "the agent is online")
    line.begin()
    begun, ready, seen = register_to_ready(cluster, name, f"{line.host}/measured:latest", number)
    # Out of the way before the next one registers what this one has.
    agent.stop()
    cluster.agents.remove(agent)
    return {"transfer": moved, "ready": ready, "ratio": ready / moved, "bytes": line.bytes_down, "stages": seen,
            "line_idle": line.idle_s, "after_last_byte": begun + ready - line.last_byte_at()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--mb-per-s", type=float, default=50)
    parser.add_argument("--image", choices=sorted(NAMES), default="r")
    parser.add_argument("--bin", default=os.path.join(make_images.ROOT, "build/release/bin"))
    parser.add_argument("--images-folder", default=os.path.join(make_images.ROOT, "build/perf/images"))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ["BUNKER_BIN"] = os.path.abspath(arguments.bin)
    sys.path.insert(0, os.path.join(make_images.ROOT, "tests/e2e"))
    from harness.cluster import Cluster
    layout = make_images.ensure(arguments.image, arguments.images_folder)
    name = NAMES[arguments.image]
    layers = ways.blobs_of(layout, name)
    total = sum(os.path.getsize(path) for _, path in layers)
    runs = []
    with Cluster(agents=0) as cluster:
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:{name}",
                        "docker://" + cluster.registry.ref("measured")], check=True)
        line = throttle.Throttle(cluster.registry.port, arguments.mb_per_s * 1e6)
        for number in range(arguments.runs):
            run = one_run(cluster, line, layers, number)
            runs.append(run)
            print(f"run {number + 1}: transfer {run['transfer']:.2f} s, register→ready {run['ready']:.2f} s, "
                  f"ratio {run['ratio']:.3f}, {run['bytes'] / total:.4f} × the layers' bytes on the wire, "
                  f"line idle {run['line_idle']:.2f} s, after the last byte {run['after_last_byte']:.2f} s, "
                  + ", ".join(f"{k} {v:.2f}" for k, v in run["stages"].items()), flush=True)
        line.close()
    ratio = statistics.median(x["ratio"] for x in runs)
    print(f"{total / 1e6:.0f} MB of layers at {arguments.mb_per_s:g} MB/s: median transfer "
          f"{statistics.median(x['transfer'] for x in runs):.2f} s, register→ready {statistics.median(x['ready'] for x in runs):.2f} s")
    print(f"   {'met   ' if ratio <= GOAL else 'MISSED'} register→ready / transfer: {ratio:.3f} (at most {GOAL})")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump({"bytes": total, "runs": runs, "ratio": ratio, "goal": GOAL}, out, indent=1)
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
