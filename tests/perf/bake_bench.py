#!/usr/bin/python3
"""The bake against its peers and against the machine's own bound, on real images.

usage: bake_bench.py [--images r,many,wide] [--runs 5] [--bin DIR] [--json FILE] [--peers umoci,loop]

Images are made once (make_images.py) and kept below build/perf. Ways take turns, so that what else
the machine does hits all of them. Verdicts are ratios of medians; the exit code is 1 where a goal
is missed. Needs root, and bunker-agent and bake_bound of a release build (tests/perf/run builds
them).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile

import make_images
import ways

ROOT = make_images.ROOT
# (image, its name in the layout, size_mib, inodes for mkfs, goal: wall of umoci + mkfs / ours)
IMAGES = {"r": ("cleaned", 4096, 300_000, 8), "small": ("latest", 4096, 300_000, 30),
          "many": ("latest", 4096, 600_000, 30)}
OVER_BOUND, WIDE_RATIO = 1.25, 2.0


class Table:
    """Rows of figures and verdicts; what a reader, and a program, get."""

    def __init__(self):
        self.verdicts, self.rows = [], []

    def row(self, image, way, runs, **more):
        figures = {"image": image, "way": way, "runs": len(runs),
                   "wall": statistics.median(x["wall"] for x in runs),
                   "cpu": statistics.median(x["cpu"] for x in runs),
                   "wall_all": [round(x["wall"], 3) for x in runs],
                   "cpu_all": [round(x["cpu"], 3) for x in runs], **more}
        self.rows.append(figures)
        print(f"{image:8} {way:14} wall {figures['wall']:8.2f} s (min {min(figures['wall_all']):.2f}, "
              f"max {max(figures['wall_all']):.2f})   CPU {figures['cpu']:8.2f} s", flush=True)
        return figures

    def verdict(self, what, value, goal, at_least):
        met = value >= goal if at_least else value <= goal
        self.verdicts.append({"what": what, "value": value, "goal": goal, "met": met})
        print(f"   {'met   ' if met else 'MISSED'} {what}: {value:.2f} ({'at least' if at_least else 'at most'} {goal:g})",
              flush=True)


def where_it_goes(table, image, runs):
    """The stages of the run in the middle, and speeds."""
    middle = sorted(runs, key=lambda x: x["wall"])[len(runs) // 2]
    summary = middle["summary"]
    stages = summary["bake"]["stage_cpu_seconds"]
    wall = middle["wall"]
    print("   stages, CPU s: " + "  ".join(f"{k} {v:.2f}" for k, v in stages.items())
          + f"  (child {summary['bake']['cpu_seconds']:.2f}, all {summary['cpu_seconds']:.2f})")
    print("   steps, wall s: " + "  ".join(f"{k} {v['wall_seconds']:.3f}" for k, v in summary["steps"].items())
          + f"  (child {summary['bake']['wall_seconds']:.3f}, process {wall:.3f})")
    print(f"   {summary['entries'] / wall:,.0f} entries/s, {summary['bytes_in'] / wall / 1e6:,.0f} MB/s in, "
          f"{summary['bytes_unpacked'] / wall / 1e6:,.0f} MB/s unpacked, {summary['bytes_out']['allocated'] / 1e6:,.0f} MB out, "
          f"{summary['reread_layers']} layers reread, peak RSS {summary['bake']['peak_rss_bytes'] / 2**20:.0f} MiB")
    table.rows[-1]["summary"] = summary
    return summary


def bench_image(table, image, arguments, agent, program, folder):
    name, size_mib, inodes, goal = IMAGES[image]
    layout = make_images.ensure(image, arguments.images_folder)
    runs = {"ours": [], "ours-zstd": [], "umoci+mkfs": [], "umoci in loop": [], "bound": [], "bound-zstd": []}
    out = os.path.join(folder, "out.ext4")
    variants = {"": layout, "-zstd": layout + "-zstd"}
    for number in range(arguments.runs):
        for suffix, source in variants.items():
            layers = ways.blobs_of(source, name)
            ways.into_page_cache(layers)
            run = ways.bake(agent, source, name, out, size_mib)
            os.unlink(out)
            runs["ours" + suffix].append(run)
            runs["bound" + suffix].append(ways.bound(program, layers, run["summary"]["bytes_out"]["allocated"], out))
        if number < arguments.peer_runs:
            ways.into_page_cache(ways.blobs_of(layout, name))
            for peer, way in (("umoci", ("umoci+mkfs", ways.umoci_mkfs)), ("loop", ("umoci in loop", ways.loop_mount))):
                if peer in arguments.peers.split(","):
                    runs[way[0]].append(way[1](layout, name, folder, out, size_mib, inodes))
                    os.unlink(out)
        print(f"   run {number + 1} of {arguments.runs} done", file=sys.stderr, flush=True)
    report_image(table, image, runs, goal)


def report_image(table, image, runs, goal):
    ours = table.row(image, "ours", runs["ours"])
    summary = where_it_goes(table, image, runs["ours"])
    judge_bound(table, image, ours, runs["bound"])
    zstd = table.row(image, "ours, zstd", runs["ours-zstd"])
    where_it_goes(table, image, runs["ours-zstd"])
    judge_bound(table, image + " zstd", zstd, runs["bound-zstd"])
    digests = {x["summary"]["rootfs_digest"] for x in runs["ours"] + runs["ours-zstd"]}
    table.verdict(f"{image}: digests over all runs, gzip and zstd ({summary['rootfs_digest'][:28]}…)", len(digests), 1, False)
    for peer in ("umoci+mkfs", "umoci in loop"):
        if runs[peer]:
            other = table.row(image, peer, runs[peer])
            if peer == "umoci+mkfs":
                table.verdict(f"{image}: wall of umoci + mkfs.ext4 -d / ours", other["wall"] / ours["wall"], goal, True)
            else:
                print(f"   {other['wall'] / ours['wall']:.1f} times our wall, {other['cpu'] / ours['cpu']:.1f} times our CPU")


def judge_bound(table, image, ours, bounds):
    """Each against the median of the same run's bounds."""
    cpu = statistics.median(x["cpu_seconds"] for x in bounds)
    wall = statistics.median(x["wall_seconds"] for x in bounds)
    middle = sorted(bounds, key=lambda x: x["cpu_seconds"])[len(bounds) // 2]
    print("   bound: wall " + f"{wall:.2f}, CPU {cpu:.2f} = "
          + " + ".join(f"{k} {v:.2f}" for k, v in middle["parts"].items())
          + f"; raw write {middle['write_wall_seconds']:.2f} s; SHA {middle['sha_stream_bytes_per_s'] / 1e6:.0f}, "
          f"in blocks {middle['sha_block_bytes_per_s'] / 1e6:.0f} MB/s")
    table.rows[-1]["bound"] = middle
    table.verdict(f"{image}: wall / bound", ours["wall"] / wall, OVER_BOUND, False)
    table.verdict(f"{image}: CPU / sum of the parts", ours["cpu"] / cpu, OVER_BOUND, False)


def bench_wide(table, arguments, agent, folder):
    layout = make_images.ensure("wide", arguments.images_folder, zstd=False)
    out, runs = os.path.join(folder, "out.ext4"), {"one": [], "many": []}
    for _ in range(arguments.runs):
        for name, made in runs.items():
            ways.into_page_cache(ways.blobs_of(layout, name))
            made.append(ways.bake(agent, layout, name, out, 4096))
            os.unlink(out)
    many = table.row("wide", "200 folders", runs["many"])
    where_it_goes(table, "wide", runs["many"])
    one = table.row("wide", "one folder", runs["one"])
    where_it_goes(table, "wide", runs["one"])
    table.verdict("wide: 200,000 files in one folder / in 200", one["wall"] / many["wall"], WIDE_RATIO, False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="r,many,wide")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer-runs", type=int, help="default: as --runs")
    parser.add_argument("--peers", default="umoci,loop")
    parser.add_argument("--bin", default=os.path.join(ROOT, "build/release/bin"))
    parser.add_argument("--images-folder", default=os.path.join(ROOT, "build/perf/images"))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    arguments.peer_runs = arguments.runs if arguments.peer_runs is None else arguments.peer_runs
    agent = os.path.join(arguments.bin, "bunker-agent")
    program = os.path.join(arguments.bin, "../tests/bake_bound")
    for needed in (agent, program):
        if not os.access(needed, os.X_OK):
            sys.exit(f"error: {needed} is missing: tests/perf/run builds it")
    table = Table()
    with tempfile.TemporaryDirectory(prefix="bench.", dir=os.path.dirname(os.path.abspath(arguments.images_folder))) as folder:
        for image in arguments.images.split(","):
            if image == "wide":
                bench_wide(table, arguments, agent, folder)
            else:
                bench_image(table, image, arguments, agent, program, folder)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"cores": os.cpu_count(), "rows": table.rows, "verdicts": table.verdicts}, file, indent=1)
    missed = [x["what"] for x in table.verdicts if not x["met"]]
    print(f"{len(table.verdicts) - len(missed)} of {len(table.verdicts)} goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
