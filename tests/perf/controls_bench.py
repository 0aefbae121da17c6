#!/usr/bin/python3
"""What a bunker that already runs answers in, and how many a worker starts a second.

usage: controls_bench.py [--rounds 500] [--controls 50] [--creates 60] [--bin DIR] [--json FILE]

Real controller, agent and microVMs, one kept-alive connection, one call at a time. `exec` is POST of `true`
until its whole answer; `row` is GET of the bunker, which costs all of that but the guest. A pause and a resume
are timed until the row says so, `resumed` is a resume and a command after it. How long a snapshot made its
bunker stand still is what the agent's log says. Idle costs are CPU time of the VMM over ten seconds.
Creates of a second: from the first POST until the last of them runs, by as many clients as the host has cores.
"""

import argparse
import concurrent.futures
import json
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))
sys.path.insert(0, os.path.join(HERE, "../support"))

from start_bench import Client, quantile  # noqa: E402

# At most this, of the median.
GOALS = {"snapshot of the disk, ms still": 60, "snapshot with memory, ms still": 60, "idle, % of a core": 0.5,
         "paused, % of a core": 0.05}
CREATES_A_SECOND = 4


def timed(call):
    begun = time.monotonic()
    call()
    return (time.monotonic() - begun) * 1000


def command(client, bunker):
    _, result = client.call("POST", f"/bunkers/{bunker}/exec", {"command": ["/bin/true"]})
    if result["exit_code"] != 0:
        raise AssertionError(result)


def control(client, bunker, verb, status):
    _, row = client.call("POST", f"/bunkers/{bunker}/{verb}")
    while row["status"] != status:
        _, row = client.call("GET", f"/bunkers/{bunker}?wait_status={status}&wait_s=30")


def summary(values):
    return {"n": len(values), "p50": quantile(values, .5), "p95": quantile(values, .95), "p99": quantile(values, .99)}


def round_trips(client, bunker, rounds):
    """In turns, so that what the machine does besides is in both."""
    figures = {"row": [], "exec": []}
    for _ in range(rounds):
        figures["row"].append(timed(lambda: client.call("GET", f"/bunkers/{bunker}")))
        figures["exec"].append(timed(lambda: command(client, bunker)))
    return {name: summary(x) for name, x in figures.items()}


def pauses(client, bunker, rounds):
    figures = {"pause": [], "resume": [], "resumed": []}
    for _ in range(rounds):
        figures["pause"].append(timed(lambda: control(client, bunker, "pause", "paused")))
        begun = time.monotonic()
        figures["resume"].append(timed(lambda: control(client, bunker, "resume", "running")))
        command(client, bunker)
        figures["resumed"].append((time.monotonic() - begun) * 1000)
    return {name: summary(x) for name, x in figures.items()}


def settled(client, snapshot):
    _, row = client.call("GET", f"/snapshots/{snapshot}")
    return row if row["status"] != "creating" else None


def stood_still(cluster, client, bunker, rounds, memory):
    """ms, as the agent measured them."""
    def told():
        return re.findall(r"snapshot\.bunker_stood_still .*?\bms=([0-9.]+)", cluster.agents[0].daemon.log())
    from harness import processes
    before = len(told())
    for _ in range(rounds):
        _, row = client.call("POST", f"/bunkers/{bunker}/snapshot", {"memory": memory})
        row = processes.wait_until(lambda made=row["id"]: settled(client, made), "the snapshot is made", 60, 0.02)
        if row["status"] != "ready":
            raise AssertionError(row)
        client.call("DELETE", f"/snapshots/{row['id']}")
    return summary([float(x) for x in told()[before:]])


def cpu_share(pid, seconds=10):
    clock = (~pid << 3) | 2  # clock_getcpuclockid(3) of a process: of its ended threads, too
    before = time.clock_gettime(clock)
    time.sleep(seconds)  # the measure itself, not a wait for something
    return 100 * (time.clock_gettime(clock) - before) / seconds


def creates_a_second(cluster, image, count):
    workers = os.cpu_count()

    def some(number):
        client, rows = Client(cluster), []
        for _ in range(number):
            _, row = client.call("POST", "/bunkers?wait_s=30", {"image": image, "cpu_millicores": 50})
            while row["status"] in ("pending", "provisioning"):
                _, row = client.call("GET", f"/bunkers/{row['id']}?wait_status=running&wait_s=30")
            rows.append(row)
        return rows
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        rows = [x for part in pool.map(some, [count // workers] * workers) for x in part]
    took = time.monotonic() - begun
    kinds = {x["start_kind"] for x in rows}
    client = Client(cluster)
    for row in rows:
        client.call("DELETE", f"/bunkers/{row['id']}")
    return {"count": len(rows), "kinds": sorted(kinds), "a_second": len(rows) / took}


def measure(cluster, options):
    cluster.ready_image()
    cluster.agents[0].wait_templates(2)
    client = Client(cluster)
    bunker = cluster.bunker("tiny", memory_mb=256)["id"]
    (vmm,) = cluster.agents[0].vm_pids()
    for _ in range(20):
        command(client, bunker)
    figures = {**round_trips(client, bunker, options.rounds), **pauses(client, bunker, options.controls),
               "snapshot of the disk, ms still": stood_still(cluster, client, bunker, 10, False),
               "snapshot with memory, ms still": stood_still(cluster, client, bunker, 10, True),
               "idle, % of a core": cpu_share(vmm)}
    control(client, bunker, "pause", "paused")
    figures["paused, % of a core"] = cpu_share(vmm)
    client.call("DELETE", f"/bunkers/{bunker}")
    figures["creates"] = creates_a_second(cluster, "tiny", options.creates)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--controls", type=int, default=50)
    parser.add_argument("--creates", type=int, default=60)
    parser.add_argument("--bin")
    parser.add_argument("--json")
    options = parser.parse_args()
    if options.bin:
        os.environ["BUNKER_BIN"] = os.path.abspath(options.bin)
    from harness.cluster import Cluster
    load = [os.getloadavg()[0]]
    with Cluster(controller={"placement": {"cpu_overcommit": 20.0}}, agent={"worker": {"memory_mb": 40960}}) as cluster:
        figures = measure(cluster, options)
    load.append(os.getloadavg()[0])
    missed = []
    for name, got in figures.items():
        value = got["p50"] if isinstance(got, dict) and "p50" in got else got
        if name in GOALS and value > GOALS[name]:
            missed.append(name)
        if isinstance(got, float):
            print(f"{name:32} {got:.3f}")
        elif "p50" in got:
            print(f"{name:32} n={got['n']:<4} p50 {got['p50']:6.2f}  p95 {got['p95']:6.2f}  p99 {got['p99']:6.2f} ms")
    print(f"exec over row, p50: {figures['exec']['p50'] / figures['row']['p50']:.1f} ×")
    print(f"creates: {figures['creates']['a_second']:.1f} a second {figures['creates']['kinds']}")
    if figures["creates"]["a_second"] < CREATES_A_SECOND:
        missed.append("creates")
    print(f"load {load[0]:.1f} to {load[1]:.1f}")
    print(f"MISSED: {missed}" if missed else "all goals met")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump({**figures, "load": load}, out, indent=1)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
