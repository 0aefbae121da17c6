#!/usr/bin/python3
"""What ext4 features cost or save in a baked file: size, and CPU and wall time to look at all of it.

    measure_features.py IMAGE.ext4 [RUNS]

Copies of the file get a feature taken away or added by tune2fs; two more are made by mke2fs of what
the file holds, with and without inline data. Each is mounted anew for every run (loop, read-only),
walked with lstat of every path, and read in full; medians are printed. Needs root and loop mounts.
"""
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import compare_rootfs


def must(*command):
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        raise RuntimeError(f"{command}: {done.stdout[-500:]}")


def walk(root):
    files = []
    pending = [root]
    while pending:
        folder = pending.pop()
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if mode & 0o170000 == 0o040000:
                pending.append(path)
            elif mode & 0o170000 == 0o100000:
                files.append(path)
    return files


def read(files):
    buffer = bytearray(1 << 20)
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        while os.readv(fd, [buffer]):
            pass
        os.close(fd)


def timed(function, *arguments):
    wall, cpu = time.monotonic(), time.process_time()
    result = function(*arguments)
    return result, time.monotonic() - wall, time.process_time() - cpu


def measure(images, runs):
    """{name: medians}; the variants take turns, so that a busy moment hits all of them."""
    columns = {name: [[], [], [], []] for name in images}
    for run in range(runs + 1):
        for name, image in images.items():
            with compare_rootfs.mounted(image) as mount:
                files, *walked = timed(walk, os.fsencode(mount))
                _, *done = timed(read, files)
            for column, value in zip(columns[name], walked + done):
                if run > 0:  # the first one fills the host's cache
                    column.append(value)
    return {name: [statistics.median(x) for x in values] for name, values in columns.items()}


def tuned(image, folder, name, options):
    copy = os.path.join(folder, name)
    must("cp", "--sparse=always", image, copy)
    must("tune2fs", *options, copy)
    must("e2fsck", "-fn", copy)
    return copy


def made(source, size, folder, name, features):
    image = os.path.join(folder, name)
    with compare_rootfs.mounted(source) as mount:
        must("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-N", "300000", "-O",
             "^has_journal,^resize_inode," + features, "-d", mount, image, f"{size >> 10}k")
    return image


def main():
    image = sys.argv[1]
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        size = os.path.getsize(image) * 5 // 4 + (256 << 20)
        variants = [("as baked", lambda: tuned(image, folder, "same", ["-r", "0"])),
                    ("without metadata_csum", lambda: tuned(image, folder, "csum", ["-O", "^metadata_csum"])),
                    ("without dir_index", lambda: tuned(image, folder, "index", ["-O", "^dir_index"])),
                    ("mke2fs -d", lambda: made(image, size, folder, "plain", "dir_index")),
                    ("mke2fs -d, inline_data", lambda: made(image, size, folder, "inline", "inline_data"))]
        images = {name: make() for name, make in variants}
        print("| variant | MiB on disk | lstat all: wall, CPU s | read all: wall, CPU s |\n|---|---|---|---|")
        for name, (stat_wall, stat_cpu, read_wall, read_cpu) in measure(images, runs).items():
            disk = os.stat(images[name]).st_blocks * 512 / (1 << 20)
            print(f"| {name} | {disk:.1f} | {stat_wall:.2f}, {stat_cpu:.2f} | {read_wall:.2f}, {read_cpu:.2f} |")


if __name__ == "__main__":
    main()
