#!/usr/bin/python3
"""Unpacks an image of an OCI layout with GNU tar, layer by layer, whiteouts applied by this script.

    gnu_tar_oracle.py CHROOT_PRELOAD LAYOUT TAG FOLDER

A second opinion beside umoci's on what an image holds; it shares no code with the bake. FOLDER must
not exist. Needs root. GNU tar runs inside FOLDER (CHROOT_PRELOAD is the library of
chroot_preload.cc), so that links lead where they should. Of what tar does not do for a stack of
layers this script does four things:
- whiteouts and opaque marks, before the layer's own files are extracted;
- what is not a folder takes the place of a lower layer's folder, full or not;
- a folder's time comes back after the upper layer worked in it, unless that layer says another;
- a folder that a layer describes anew loses the extended attributes it had.
"""
import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile

OPAQUE = b".wh..wh..opq"
MAX_LINKS = 255


def blob(layout, digest):
    return os.path.join(layout, "blobs", digest.replace(":", "/"))


def layers_of(layout, tag):
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        entries = json.load(file)["manifests"]
    chosen = [x for x in entries if x.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag]
    with open(blob(layout, chosen[0]["digest"]), encoding="utf-8") as file:
        return json.load(file)["layers"]


def decompress(layout, layer, out):
    path = blob(layout, layer["digest"])
    if layer["mediaType"].endswith("zstd"):
        subprocess.run(["zstd", "-q", "-d", "-f", path, "-o", out], check=True)
        return
    opened = gzip.open(path) if layer["mediaType"].endswith("gzip") else open(path, "rb")
    with opened as source, open(out, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def parts_of(path):
    parts = []
    for part in path.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


def resolve(root, parts):
    """The folder that the parts lead to within root, symbolic links followed; None where they loop."""
    real, todo, followed = [], list(parts), 0
    while todo:
        part = todo.pop(0)
        if part == b"..":
            real = real[:-1]
            continue
        if part in (b"", b"."):
            continue
        at = os.path.join(root, *real, part)
        if not os.path.islink(at):
            real.append(part)
            continue
        followed += 1
        if followed > MAX_LINKS:
            return None
        target = os.readlink(at)
        if target.startswith(b"/"):
            real = []
        todo = target.split(b"/") + todo
    return os.path.join(root, *real)


def remove(path):
    if not os.path.lexists(path):
        return
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def members(path):
    """(raw name, whether it is a folder) of each member, in order."""
    found = []
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            found.append((info.name.encode("utf-8", "surrogateescape"), info.isdir()))
            tar.members = []
    return found


def apply_whiteouts(root, listed):
    for name, _ in listed:
        parts = parts_of(name)
        if not parts or not parts[-1].startswith(b".wh."):
            continue
        folder = resolve(root, parts[:-1])
        if folder is None or not os.path.isdir(folder):
            continue
        if parts[-1] == OPAQUE:
            for child in os.listdir(folder):
                remove(os.path.join(folder, child))
        else:
            remove(os.path.join(folder, parts[-1][4:]))


def folder_times(root):
    times = {}
    pending = [root]
    while pending:
        folder = pending.pop()
        times[folder] = os.lstat(folder).st_mtime_ns
        pending += [x.path for x in os.scandir(folder) if x.is_dir(follow_symlinks=False)]
    return times


def extract(preload, tar_path, root):
    command = ["tar", "--extract", "--absolute-names", "--same-permissions", "--same-owner", "--numeric-owner",
               "--xattrs", "--xattrs-include=*", "--acls", "--exclude=.wh.*", "--file=-"]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "LD_PRELOAD": os.path.abspath(preload),
                   "BUNKER_TEST_ROOT": root}
    with open(tar_path, "rb") as source:
        done = subprocess.run(command, stdin=source, env=environment, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise RuntimeError("GNU tar: " + done.stderr.decode(errors="replace")[-2000:])


def unpack_layer(preload, tar_path, root):
    listed = members(tar_path)
    apply_whiteouts(root, listed)
    before = folder_times(root)
    named = set()
    for name, is_folder in listed:
        parts = parts_of(name)
        if parts and parts[-1].startswith(b".wh."):
            continue
        path = os.path.join(resolve(root, parts[:-1]), parts[-1]) if parts else root
        if not is_folder:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            continue
        named.add(path)
        if os.path.isdir(path) and not os.path.islink(path):
            for attribute in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, attribute)
    extract(preload, tar_path, os.fsdecode(root))
    for path, time in before.items():
        if path not in named and os.path.lexists(path) and stat.S_ISDIR(os.lstat(path).st_mode):
            os.utime(path, ns=(time, time))


def unpack(preload, layout, tag, folder):
    root = os.fsencode(os.path.abspath(folder))
    os.mkdir(root, 0o755)
    old_mask = os.umask(0o022)
    try:
        with tempfile.NamedTemporaryFile() as tar:
            for layer in layers_of(layout, tag):
                decompress(layout, layer, tar.name)
                unpack_layer(preload, tar.name, root)
    finally:
        os.umask(old_mask)


if __name__ == "__main__":
    unpack(*sys.argv[1:5])
