#!/usr/bin/env python3
"""Compares a baked ext4 file with a folder into which another tool unpacked the same image.

    compare_rootfs.py IMAGE.ext4 FOLDER [--implied PATH]... [--unpacked-since SECONDS]

Path by path: type, mode, owner, size, time of modification, link target, groups of hard links,
device numbers, extended attributes, content. Prints each difference and exits 1 where there is one.
The image is loop-mounted read-only, which only a test may do: it has just been baked here. Needs
root. Directories that no layer describes have no time of their own; name them with --implied, or say
with --unpacked-since when the unpack began: what time the unpacker gave to a directory by working in
it says nothing of the image.
"""
import argparse
import contextlib
import hashlib
import os
import stat
import subprocess
import sys
import tempfile

MAX_SHOWN = 50
WORK_NS = 3600 * 10**9


def content(path):
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def xattrs(path):
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def describe(root, implied):
    """{path: {what: value}} of everything beneath root, the root included."""
    found = {}
    groups = {}
    pending = [b""]
    while pending:
        relative = pending.pop()
        path = os.path.join(os.fsencode(root), relative)
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        entry = {
            "type": kind,
            "mode": stat.S_IMODE(info.st_mode),
            "owner": (info.st_uid, info.st_gid),
            "mtime": None if relative in implied else info.st_mtime_ns,
            "xattrs": xattrs(path),
        }
        if kind == stat.S_IFREG:
            entry["size"] = info.st_size
            entry["content"] = content(path)
        elif kind == stat.S_IFLNK:
            entry["target"] = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry["device"] = info.st_rdev
        elif kind == stat.S_IFDIR:
            pending += [os.path.join(relative, name) for name in os.listdir(path)]
        if kind != stat.S_IFDIR:
            entry["link count"] = info.st_nlink
            groups.setdefault(info.st_ino, []).append(relative)
        found[relative] = entry
    for members in groups.values():
        together = frozenset(members)
        for member in members:
            found[member]["links"] = together
    return found


def compare(image, folder):
    """[(path, what, ours, theirs)]; what is "missing" or "extra" where one side has no such path."""
    differences = []
    for path in sorted(set(image) | set(folder)):
        if path not in folder:
            differences.append((path, "extra", True, None))
        elif path not in image:
            differences.append((path, "missing", None, True))
        else:
            for what in sorted(set(image[path]) | set(folder[path])):
                ours, theirs = image[path].get(what), folder[path].get(what)
                if ours != theirs:
                    differences.append((path, what, ours, theirs))
    return differences


def show(difference):
    path, what, ours, theirs = difference
    path = "/" + os.fsdecode(path)
    if what in ("extra", "missing"):
        return f"{path}: {'only' if what == 'extra' else 'missing'} in the image"
    return f"{path}: {what}: image {ours!r:.300}, folder {theirs!r:.300}"


@contextlib.contextmanager
def mounted(image):
    """The folder at which the image, baked here a moment ago, is mounted read-only."""
    with tempfile.TemporaryDirectory() as mount:
        subprocess.run(["mount", "-t", "ext4", "-o", "loop,ro,noload", image, mount], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", mount], check=True)


def forget_work_times(image, folder, since_seconds):
    """Takes out the times that folders got because an unpacker, begun then, worked in them."""
    since = since_seconds * 10**9
    for path, entry in folder.items():
        if (entry["type"] == stat.S_IFDIR and entry["mtime"] is not None and path in image
                and since <= entry["mtime"] < since + WORK_NS):
            entry["mtime"] = image[path]["mtime"] = None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("folder")
    parser.add_argument("--implied", action="append", default=[])
    parser.add_argument("--unpacked-since", type=int)
    arguments = parser.parse_args()
    implied = {os.fsencode(path.strip("/")) for path in arguments.implied}
    with mounted(arguments.image) as mount:
        image = describe(mount, implied)
    folder = describe(arguments.folder, implied)
    if arguments.unpacked_since:
        forget_work_times(image, folder, arguments.unpacked_since)
    differences = compare(image, folder)
    for difference in differences[:MAX_SHOWN]:
        print(show(difference))
    print(f"{len(image)} paths compared, {len(differences)} differences")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
