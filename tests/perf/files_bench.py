#!/usr/bin/python3
"""How fast files go into a bunker and out of it, against what the guest's channel itself can do.

usage: files_bench.py [--mib 256] [--runs 5] [--bin DIR] [--json FILE]

The channel's own speed is that of a command's bytes, from the agent's side, in a VM that nothing else
uses (agent_exec_guest_test says it: `cat >/dev/null`, `dd if=/dev/zero`). A put and a get go from curl
over REST, controller, link, agent and channel: to a file in the guest's memory, and to one on its
disk, which is synced before the put is answered. Ways take turns; medians are what counts.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))
sys.path.insert(0, os.path.join(HERE, "../support"))

# Of the channel's own speed, in memory.
GOAL = 0.8
PLACES = {"memory": "/dev/shm/file", "disk": "/root/file"}


def channel(binaries, folder):
    """MB/s that the channel takes and gives."""
    test = os.path.join(os.path.dirname(binaries), "tests/agent_exec_guest_test")
    done = subprocess.run([os.path.join(HERE, "../support/guest_images"), os.path.join(binaries, "bunker-guest"), folder,
                           test, "--gtest_filter=GuestTest.StdinThroughput*"],
                          capture_output=True, text=True, check=False)
    told = dict(re.findall(r"^FIGURE ([a-z ]+): ([0-9.]+) MB/s$", done.stdout, re.MULTILINE))
    if done.returncode != 0 or not {"stdin", "output forwarded"} <= set(told):
        raise AssertionError(done.stdout + done.stderr)
    return {"put": float(told["stdin"]), "get": float(told["output forwarded"])}


def transfer(cluster, bunker, arguments):
    """MB/s of one request; curl's own start is not counted."""
    url = f"{cluster.controller.host}/v1/modules/scaibunker/bunkers/{bunker}/files"
    done = subprocess.run(["curl", "-fsS", "-H", f"Authorization: Bearer {cluster.controller.key}", "-o", "/dev/null",
                           "-w", "%{time_total} %{size_upload} %{size_download}", *arguments[:-1],
                           f"{url}?path={arguments[-1]}"], capture_output=True, text=True, check=True)
    seconds, sent, received = map(float, done.stdout.split())
    return max(sent, received) / seconds / 1e6


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def measure(cluster, mib, runs):
    cluster.ready_image()
    # A whole CPU, as the channel's VM has it: not the bunker's quota is to be measured.
    memory_mb = max(512, 3 * mib)  # a file is there whole beside the one it replaces
    bunker = cluster.bunker("tiny", disk_mb=2 * mib + 256, memory_mb=memory_mb, cpu_millicores=1000)["id"]
    cluster.sh(bunker, f"mount -o remount,size={2 * mib + 64}m /dev/shm")
    daemons = [cluster.controller.daemon.pid, cluster.agents[0].daemon.pid]
    figures = {f"{way} {place}": [] for place in PLACES for way in ("put", "get")}
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as source:
        block = os.urandom(1 << 20)
        for number in range(mib):
            source.write(number.to_bytes(8, "little") + block[8:])
        source.flush()
        cpu, began = cpu_seconds(daemons), time.monotonic()
        for _ in range(runs):
            for place, path in PLACES.items():
                figures[f"put {place}"].append(transfer(cluster, bunker, ["-T", source.name, path]))
                figures[f"get {place}"].append(transfer(cluster, bunker, [path]))
        spent = cpu_seconds(daemons) - cpu
    moved_gb = runs * len(figures) * mib * (1 << 20) / 1e9
    return {"mb_per_s": {name: {"median": statistics.median(x), "all": x} for name, x in figures.items()},
            "daemons_cpu_s_per_gb": spent / moved_gb, "seconds": time.monotonic() - began}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--bin", default="build/release/bin")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    binaries = os.path.abspath(arguments.bin)
    os.environ["BUNKER_BIN"] = binaries
    from harness.cluster import Cluster
    figures = {"load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        figures["channel"] = channel(binaries, folder)
    with Cluster() as cluster:
        figures.update(measure(cluster, arguments.mib, arguments.runs))
    figures["load_after"] = os.getloadavg()[0]
    met = True
    for name, got in figures["mb_per_s"].items():
        bound = figures["channel"][name.split()[0]]
        share = got["median"] / bound
        good = "disk" in name or share >= GOAL
        met = met and good
        print(f"{'' if good else 'MISSED '}{name:10} {got['median']:6.0f} MB/s  {share:4.0%} of the channel's "
              f"{bound:.0f} MB/s   ({', '.join(f'{x:.0f}' for x in got['all'])})")
    print(f"controller and agent: {figures['daemons_cpu_s_per_gb']:.2f} CPU s a GB; load {figures['load_before']:.1f} "
          f"to {figures['load_after']:.1f}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump(figures, out, indent=1)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
