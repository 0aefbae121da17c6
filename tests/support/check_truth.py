#!/usr/bin/python3
"""Bakes an image and holds it against two unpackers, path by path.

    check_truth.py BAKE_TOOL CHROOT_PRELOAD LAYOUT TAG [SIZE_MIB]

umoci's unpack and GNU tar's (gnu_tar_oracle.py) go into a fresh ext4, loop-mounted because large
extended attributes need its ea_inode; the baked file is checked by e2fsck, then loop-mounted and
read in full by the kernel. Compared: type, mode, owner, size, time to the nanosecond, link target,
groups of hard links, device numbers, extended attributes, content.

Where an unpacker is known to be wrong a caller passes exceptions, {path: {what: why}} or, for a
whole kind of difference, {what: why} under the path "*"; one that does not occur is an error, too.
Needs root. Exits 1 where there is a difference, 77 where loop mounts are impossible.
"""
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare_rootfs
import gnu_tar_oracle

SKIPPED = 77
DROPPED = ("trusted.overlay.", "user.overlay.")
MAX_SHOWN = 40


class LoopMountsImpossible(Exception):
    pass


def run(*command, **options):
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@contextlib.contextmanager
def scratch_ext4(folder, gib=40, inodes=800_000):
    """A mounted empty ext4 below `folder` that takes extended attributes of any size."""
    image, mount = os.path.join(folder, "scratch.ext4"), os.path.join(folder, "scratch")
    with open(image, "wb") as file:
        file.truncate(gib << 30)
    made = run("mkfs.ext4", "-q", "-F", "-O", "ea_inode,^has_journal", "-I", "256", "-N", str(inodes), "-E",
               "lazy_itable_init=1", image)
    if made.returncode != 0:
        raise RuntimeError(made.stderr)
    os.mkdir(mount)
    mounted = run("mount", "-o", "loop", image, mount)
    if mounted.returncode != 0:
        raise LoopMountsImpossible(mounted.stderr.strip())
    try:
        yield mount
    finally:
        run("umount", mount)
        os.unlink(image)


def bake(tool, layout, tag, out, size_mib):
    done = run(tool, "layout", layout, tag, out, str(size_mib), out + ".tree")
    if done.returncode != 0:
        raise RuntimeError(f"the bake of {tag}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def split_exceptions(differences, exceptions):
    """(differences that nobody expected, exceptions that did not occur)."""
    unused = {(path, what) for path, kinds in exceptions.items() for what in kinds}
    left = []
    for difference in differences:
        keys = {(os.fsdecode(difference[0]), difference[1]), ("*", difference[1])}
        hit = keys & {(path, what) for path, kinds in exceptions.items() for what in kinds}
        unused -= hit
        if not hit:
            left.append(difference)
    return left, sorted(unused)


def without_dropped(folder):
    """Takes out what the bake drops on purpose and counts it."""
    count = 0
    for entry in folder.values():
        for name in [x for x in entry["xattrs"] if x.startswith(DROPPED)]:
            del entry["xattrs"][name]
            count += 1
    return count



class Check:
    def __init__(self, tool, preload, layout, tag, size_mib=16384):
        self.tool, self.preload, self.layout, self.tag, self.size_mib = tool, preload, layout, tag, size_mib
        self.failures = []
        self.image = None

    def say(self, text):
        print(f"{self.tag}: {text}", flush=True)

    def expect(self, good, text):
        self.say(("ok: " if good else "FAILED: ") + text)
        if not good:
            self.failures.append(text)

    def oracle(self, name, root, since, exceptions):
        folder = compare_rootfs.describe(root, set())
        image = {path: dict(entry) for path, entry in self.image.items()}
        dropped = without_dropped(folder)
        compare_rootfs.forget_work_times(image, folder, since)
        left, unused = split_exceptions(compare_rootfs.compare(image, folder), exceptions)
        for difference in left[:MAX_SHOWN]:
            print("  " + compare_rootfs.show(difference))
        self.expect(not left, f"{name}: {len(image)} paths compared, {len(left)} differences, "
                              f"{sum(map(len, exceptions.values()))} exceptions")
        self.expect(not unused, f"{name}: exceptions that did not occur: {unused}")
        return dropped

    def umoci(self, scratch, exceptions):
        since = int(time.time()) - 1
        done = run("umoci", "unpack", "--image", f"{self.layout}:{self.tag}", scratch + "/bundle")
        self.expect(done.returncode == 0, "umoci unpack" + (done.stderr[-1500:] if done.returncode else ""))
        if done.returncode == 0:
            self.oracle("umoci", scratch + "/bundle/rootfs", since, exceptions)
        run("rm", "-rf", scratch + "/bundle")

    def gnu_tar(self, scratch, exceptions, summary):
        since = int(time.time()) - 1
        gnu_tar_oracle.unpack(self.preload, self.layout, self.tag, scratch + "/tar")
        dropped = self.oracle("GNU tar", scratch + "/tar", since, exceptions)
        listed = summary["dropped_xattr_count"]
        self.expect(dropped == listed, f"GNU tar keeps {dropped} overlay attributes, the bake lists {listed} dropped")

    def bake(self, out):
        summary = bake(self.tool, self.layout, self.tag, out, self.size_mib)
        self.say(f"{summary['rootfs_digest']}, {summary['entries']} entries, {summary['allocated_bytes']} bytes, "
                 f"{summary['wall_seconds']:.2f} s, peak RSS {summary['peak_rss_bytes'] >> 20} MiB")
        digest = run("fsverity", "digest", "--compact", out).stdout.strip()
        self.expect(summary["rootfs_digest"] == "fsverity-sha256:" + digest, "the digest is fsverity's")
        run("fsverity", "digest", "--out-merkle-tree=" + out + ".expected", out)
        self.expect(run("cmp", out + ".tree", out + ".expected").returncode == 0, "the tree is fsverity's")
        checked = run("e2fsck", "-fn", out)
        self.expect(checked.returncode == 0, "e2fsck -fn" + (checked.stdout if checked.returncode else ""))
        return summary

    def run(self, umoci_wrong=None, tar_wrong=None, on_mount=None, oracles=("umoci", "tar")):
        umoci_wrong, tar_wrong = umoci_wrong or {}, tar_wrong or {}
        both = {(p, w) for p, k in umoci_wrong.items() for w in k} & {(p, w) for p, k in tar_wrong.items() for w in k}
        self.expect(not both, f"every path has an unpacker that decides {sorted(both)}")
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "image")
            summary = self.bake(out)
            with scratch_ext4(folder) as scratch:
                start = time.monotonic()
                with compare_rootfs.mounted(out) as mount:
                    self.image = compare_rootfs.describe(mount, set())
                    if on_mount:
                        on_mount(self, os.fsencode(mount))
                self.say(f"the kernel looked up and read all of it in {time.monotonic() - start:.1f} s")
                if "umoci" in oracles:
                    self.umoci(scratch, umoci_wrong)
                if "tar" in oracles:
                    self.gnu_tar(scratch, tar_wrong, summary)
        return summary


def main():
    tool, preload, layout, tag = sys.argv[1:5]
    check = Check(tool, preload, layout, tag, int(sys.argv[5]) if len(sys.argv) > 5 else 16384)
    try:
        check.run()
    except LoopMountsImpossible as why:
        print(f"SKIPPED: loop mounts are impossible here, nothing was compared: {why}")
        return SKIPPED
    return 1 if check.failures else 0


if __name__ == "__main__":
    sys.exit(main())
