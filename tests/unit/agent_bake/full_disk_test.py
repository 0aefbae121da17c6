#!/usr/bin/python3
"""A disk that fills up at every point of a bake: a typed error, nothing left, the next bake works.

    full_disk_test.py BAKE_TOOL

The torture image is baked on a tmpfs, and on a loop-mounted ext4 (direct writes, late allocation),
that has room for only a part of what it takes; the parts are spread evenly from nothing to just too
little. BUNKER_FULL_DISK_POINTS=50 sets how many. Needs root.
"""
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
import torture_image

PAGE = 4096
ROOM = 64 << 20


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def must(*command):
    done = run(*command)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout}")


class Tmpfs:
    name = "tmpfs"

    def __init__(self, folder):
        self.mount = os.path.join(folder, "tmpfs")
        os.mkdir(self.mount)
        must("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "full-disk-test", self.mount)

    def leave(self, free):
        must("mount", "-o", f"remount,size={max(free, PAGE) // PAGE * PAGE}", self.mount)

    def make_room(self):
        must("mount", "-o", f"remount,size={ROOM}", self.mount)


class Ext4:
    name = "ext4"

    def __init__(self, folder):
        image, self.mount = os.path.join(folder, "ext4.img"), os.path.join(folder, "ext4")
        os.mkdir(self.mount)
        with open(image, "wb") as file:
            file.truncate(ROOM)
        must("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", image)
        must("mount", "-o", "loop", image, self.mount)
        os.rmdir(self.mount + "/lost+found")
        self.ballast = self.mount + "/.ballast"

    def leave(self, free):
        must("sync", "-f", self.mount)
        have = os.statvfs(self.mount)
        must("fallocate", "-l", str(have.f_bavail * have.f_frsize - max(free, PAGE)), self.ballast)

    def make_room(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.ballast)


def left_in(disk):
    return [x for x in os.listdir(disk.mount) if x != ".ballast"]


class Sweep:
    def __init__(self, tool, layout, disk):
        self.tool, self.layout, self.disk = tool, layout, disk
        self.failures = []

    def bake(self):
        out = self.disk.mount + "/image"
        done = run(self.tool, "layout", self.layout, "torture", out, "1024", out + ".tree")
        # What it says of its progress comes first.
        return done.returncode, "\n".join(x for x in done.stdout.splitlines() if not x.endswith(" bytes"))

    def clear(self):
        for name in left_in(self.disk):
            os.unlink(os.path.join(self.disk.mount, name))

    def at(self, free):
        self.disk.leave(free)
        code, output = self.bake()
        if code == 0 or not output.startswith("DISK_FULL:"):
            self.failures.append(f"{self.disk.name}, {free} bytes free: exit {code}, {output[:300]}")
        if left_in(self.disk):
            self.failures.append(f"{self.disk.name}, {free} bytes free: left behind {left_in(self.disk)}")
        self.clear()
        self.disk.make_room()
        code, output = self.bake()
        if code != 0 or json.loads(output)["rootfs_digest"] != self.digest:
            self.failures.append(f"{self.disk.name}, after {free} bytes free: exit {code}, {output[:300]}")
        self.clear()

    def run(self, points):
        code, output = self.bake()
        if code != 0:
            raise RuntimeError(output)
        self.digest = json.loads(output)["rootfs_digest"]
        needed = sum(os.stat(os.path.join(self.disk.mount, x)).st_blocks * 512 for x in left_in(self.disk))
        self.clear()
        start = time.monotonic()
        most = needed - 2 * PAGE
        for point in range(points):
            self.at(most * point // max(points - 1, 1))
        print(f"{self.disk.name}: {points} points from 0 to {most} of {needed} bytes, {len(self.failures)} wrong, "
              f"{time.monotonic() - start:.1f} s", flush=True)
        return self.failures


def main():
    points = int(os.environ.get("BUNKER_FULL_DISK_POINTS", "4"))
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        layout = os.path.join(folder, "oci")
        torture_image.write(layout)
        for kind in (Tmpfs, Ext4):
            try:
                disk = kind(folder)
            except RuntimeError as why:
                print(f"SKIPPED: no {kind.name} can be mounted here: {why}")
                continue
            try:
                failures += Sweep(sys.argv[1], layout, disk).run(points)
            finally:
                must("umount", disk.mount)
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
