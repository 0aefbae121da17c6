#!/usr/bin/python3
"""From the POST that creates a bunker to the first byte of its first command, every way of starting.

usage: start_bench.py [--creates 200] [--cold 10] [--crowd 20] [--accelerator auto|kvm] [--bin DIR]
                      [--json FILE]

Real controller, agent and microVMs. A create is POST /bunkers that answers once it runs, and a
POST of `echo` whose answer's first byte is waited for; one at a time, each bunker deleted before
the next.
Ways: restored from a template, without and with a network card, taken from the pool, once a clone waits
there, booted, and `podman run` of the same image, where podman is there. A crowd of clones tells what each costs in memory.
With --accelerator kvm nothing is restored (the agent does not, there), and boots have KVM's goals.
"""

import argparse
import collections
import http.client
import json
import os
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../support"))

GOALS = {"isolated": (250, 500), "registry": (250, 500), "pool": (60, 120)}
WAYS = {"isolated": "restore", "registry": "restore", "pool": "pool"}
KVM_GOALS = {"isolated": (300, 500), "registry": (300, 500), "cold": (300, 500)}
GOAL_PSS_MB = 30
GOAL_RESTORED = 0.98


def load():
    return os.getloadavg()[0]


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class Client:
    """One kept-alive connection, as a client of the API has; answers are read to their end."""

    def __init__(self, cluster):
        self.key = cluster.controller.key
        self.connection = http.client.HTTPConnection("127.0.0.1", cluster.controller.rest_port, timeout=120)

    def call(self, method, path, body=None):
        """(status, seconds at which the answer's first byte was there, the answer's data)."""
        self.connection.request(method, "/v1/modules/scaibunker" + path, json.dumps(body) if body else None,
                                {"Authorization": "Bearer " + self.key, "Content-Type": "application/json"})
        answer = self.connection.getresponse()
        first = time.monotonic()
        text = answer.read()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {text[:300]}")
        return first, json.loads(text)["data"] if text else None


def start_one(client, image, **more):
    """(row once it runs, ms to running, ms to the command's first byte)"""
    begun = time.monotonic()
    running, row = client.call("POST", "/bunkers?wait_s=30", {"image": image, **more})
    while row["status"] in ("pending", "provisioning"):
        running, row = client.call("GET", f"/bunkers/{row['id']}?wait_status=running&wait_s=30")
    if row["status"] != "running":
        raise AssertionError(f"{row['status']}: {row['status_reason']}")
    first, result = client.call("POST", f"/bunkers/{row['id']}/exec", {"command": ["echo", "x"]})
    if result["stdout"] != "x\n":
        raise AssertionError(result)
    return row, (running - begun) * 1000, (first - begun) * 1000


def lane(client, image, count, before=lambda: None, **more):
    rows, running, first = [], [], []
    for _ in range(count):
        before()
        row, to_running, to_first = start_one(client, image, **more)
        rows.append(row)
        running.append(to_running)
        first.append(to_first)
        client.call("DELETE", f"/bunkers/{row['id']}")
    kinds = collections.Counter(x["start_kind"] for x in rows)
    timings = {name: statistics.median(x["timings"][name] or 0 for x in rows) for name in rows[0]["timings"]}
    return {"count": count, "kinds": dict(kinds), "timings": timings,
            "p50": quantile(first, .5), "p95": quantile(first, .95), "p99": quantile(first, .99),
            "running_p50": quantile(running, .5),
            "fallbacks": sorted({x["fallback_reason"] for x in rows if x["fallback_reason"]})}


def show(name, figures):
    print(f"{name:10} n={figures['count']:<4} p50 {figures['p50']:7.0f}  p95 {figures['p95']:7.0f}  "
          f"p99 {figures['p99']:7.0f} ms to the first byte (running at {figures['running_p50']:.0f})  "
          f"{figures['kinds']}  load {load():.1f}", flush=True)
    print("           medians of the rows:", {k: round(v, 1) for k, v in figures["timings"].items()},
          figures["fallbacks"] or "", flush=True)


def pss_mb(pids):
    sizes = []
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
            sizes += [int(x.split()[1]) / 1024 for x in rollup if x.startswith("Pss:")]
    return sizes


def crowd(cluster, client, image, count):
    begun = time.monotonic()
    rows = [client.call("POST", "/bunkers", {"image": image, "cpu_millicores": 100})[1] for _ in range(count)]
    for i, row in enumerate(rows):
        while row["status"] in ("pending", "provisioning"):
            _, row = client.call("GET", f"/bunkers/{row['id']}?wait_status=running&wait_s=30")
        rows[i] = row
    took = time.monotonic() - begun
    sizes = pss_mb(cluster.agents[0].vm_pids())
    for row in rows:
        client.call("DELETE", f"/bunkers/{row['id']}")
    return {"count": count, "seconds": took, "kinds": dict(collections.Counter(x["start_kind"] for x in rows)),
            "pss_mb": {"median": statistics.median(sizes), "max": max(sizes)}}


def podman(cluster, count):
    """The same image, from the local store, to the first byte of its output."""
    reference = cluster.registry.ref("tiny", "latest")
    base = ["podman", "--runtime", "runc"]
    pulled = subprocess.run([*base, "pull", "-q", "--tls-verify=false", reference], capture_output=True, check=False)
    if pulled.returncode != 0:
        return {"error": pulled.stderr.decode(errors="replace")[-300:]}
    times = []
    for _ in range(count):
        begun = time.monotonic()
        with subprocess.Popen([*base, "run", "--rm", "--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit",
                               "nproc=1000:1000", reference, "echo", "x"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as run:
            byte = run.stdout.read(1)
            times.append((time.monotonic() - begun) * 1000)
            errors = run.stderr.read()
        if byte != b"x":
            return {"error": errors.decode(errors="replace")[-300:]}
    return {"count": count, "p50": quantile(times, .5), "p95": quantile(times, .95), "p99": quantile(times, .99)}


def pool_lane(cluster_type, size, count):
    """Each create once the agent says that a clone waits."""
    from harness import processes
    with cluster_type(agent={**size, "vm": {"pool_max": 2}}) as cluster:
        cluster.ready_image()
        agent, client = cluster.agents[0], Client(cluster)
        agent.wait_templates(2)
        taken = [-1]  # the first create, which tells the pool that there is demand

        def wait():
            taken[0] += 1
            processes.wait_until(lambda: agent.daemon.log().count("pool.ready") >= taken[0], "a clone waits", 60, 0.02)
        lane(client, "tiny", 1, wait)
        return lane(client, "tiny", count, wait)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--creates", type=int, default=200)
    parser.add_argument("--cold", type=int, default=10)
    parser.add_argument("--crowd", type=int, default=20)
    parser.add_argument("--podman", type=int, default=20)
    parser.add_argument("--accelerator", choices=("auto", "kvm"), default="auto")
    parser.add_argument("--bin")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.bin:
        os.environ["BUNKER_BIN"] = os.path.abspath(arguments.bin)
    from harness.cluster import Cluster
    figures = {"load_before": load()}
    on_kvm = arguments.accelerator == "kvm"
    size = {"worker": {"memory_mb": 40960}}
    # The crowd's CPUs are more than a worker may tell of, which is no more than the host has.
    many = {"placement": {"cpu_overcommit": 20.0}}
    print(f"load at the begin {load():.1f}; {os.cpu_count()} cores", flush=True)
    with Cluster(controller=many, agent={**size, "vm": {"accelerator": arguments.accelerator}}) as cluster:
        cluster.ready_image()
        client = Client(cluster)
        if not on_kvm:
            cluster.agents[0].wait_templates(2)
        for profile in ("isolated", "registry"):
            lane(client, "tiny", 3, network_profile=profile)
            figures[profile] = lane(client, "tiny", arguments.creates, network_profile=profile)
            show(profile, figures[profile])
        figures["crowd"] = crowd(cluster, client, "tiny", arguments.crowd)
        print("crowd     ", figures["crowd"], flush=True)
        if subprocess.run(["which", "podman"], capture_output=True, check=False).returncode == 0:
            figures["podman"] = podman(cluster, arguments.podman)
            print("podman    ", figures["podman"], flush=True)
        else:
            print("SKIPPED: podman run, since podman is not installed (apt-get install podman runc)", flush=True)
    if not on_kvm:
        figures["pool"] = pool_lane(Cluster, size, arguments.creates)
        show("pool", figures["pool"])
    with Cluster(agent={**size, "vm": {"template_max": 0, "accelerator": arguments.accelerator}}) as cluster:
        cluster.ready_image()
        client = Client(cluster)
        figures["cold"] = lane(client, "tiny", arguments.cold)
        show("cold", figures["cold"])
    return verdict(figures, on_kvm, arguments.json)


def verdict(figures, on_kvm, path):
    met = []
    for name, (p50, p95) in (KVM_GOALS if on_kvm else GOALS).items():
        got = figures[name]
        met.append((f"{name}: p50 ≤ {p50}, p95 ≤ {p95} ms", got["p50"] <= p50 and got["p95"] <= p95))
        if on_kvm:
            continue
        met.append((f"{name}: at least {GOAL_RESTORED:.0%} that way",
                    got["kinds"].get(WAYS[name], 0) >= GOAL_RESTORED * got["count"]))
    met.append((f"PSS of an idle clone ≤ {GOAL_PSS_MB} MB", figures["crowd"]["pss_mb"]["median"] <= GOAL_PSS_MB))
    for goal, ok in met:
        print(("met     " if ok else "MISSED  ") + goal)
    figures["load_after"] = load()
    if path:
        with open(path, "w", encoding="utf-8") as out:
            json.dump(figures, out, indent=1)
    return 0 if all(ok for _, ok in met) else 1


if __name__ == "__main__":
    sys.exit(main())
