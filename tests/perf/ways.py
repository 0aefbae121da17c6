"""The ways from an OCI layout to an ext4 file that are compared, and how one run is measured.

Each starts from the layout in page cache and ends with the file synced and closed. CPU-seconds are
those of the way's processes, children included.
"""

import json
import os
import shutil
import subprocess
import time

COPY_BYTES = 1 << 20


class Failed(Exception):
    """A way did not end well; the text is what it said."""


def blobs_of(layout, name):
    """Paths and kinds of the layers of an image, base first."""
    def document(digest):
        with open(blob_path(layout, digest), encoding="utf-8") as source:
            return json.load(source)
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as source:
        entries = json.load(source)["manifests"]
    named = [x for x in entries if x.get("annotations", {}).get("org.opencontainers.image.ref.name") == name]
    manifest = document(named[0]["digest"])
    layers = []
    for layer in manifest["layers"]:
        media = layer["mediaType"]
        kind = "gzip" if media.endswith("gzip") else "zstd" if media.endswith("zstd") else "none"
        layers.append((kind, blob_path(layout, layer["digest"])))
    return layers


def blob_path(layout, digest):
    return os.path.join(layout, "blobs", *digest.split(":"))


def into_page_cache(layers):
    for _, path in layers:
        with open(path, "rb", buffering=0) as source:
            while source.read(COPY_BYTES):
                pass


def sync_file(path):
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def call(command, **more):
    """Runs a command; returns (standard output, CPU-seconds)."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, **more)
    out, err = process.communicate()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit {process.returncode}\n{err.decode(errors='replace')[-2000:]}")
    return out.decode(errors="replace")


def measured(work):
    """(wall, CPU) seconds of what `work` starts and waits for."""
    before, begun = os.times(), time.monotonic()
    result = work()
    wall, after = time.monotonic() - begun, os.times()
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return {"wall": wall, "cpu": cpu}, result


def bake(agent, layout, name, out, size_mib, tree=None):
    """Ours: digest, diff ids and confinement included."""
    command = [agent, "bake", "--source", f"oci-layout:{layout}:{name}", "--size-mib", str(size_mib),
               "--out", out, "--json", "--quiet"]
    if tree:
        command += ["--tree", tree]
    figures, text = measured(lambda: call(command))
    figures["summary"] = json.loads(text)
    return figures


def umoci_mkfs(layout, name, folder, out, size_mib, inodes):
    """umoci unpack, then mkfs.ext4 -d."""
    bundle = os.path.join(folder, "bundle")

    def work():
        call(["umoci", "unpack", "--image", f"{layout}:{name}", bundle])
        call(["mkfs.ext4", "-q", "-F", "-N", str(inodes), "-d", os.path.join(bundle, "rootfs"), out,
              f"{size_mib}M"])
        sync_file(out)
    try:
        return measured(work)[0]
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def loop_mount(layout, name, folder, out, size_mib, inodes):
    """An empty file system, mounted, into which umoci unpacks: no folder in between."""
    mount = os.path.join(folder, "mount")
    os.makedirs(mount, exist_ok=True)

    def work():
        call(["mkfs.ext4", "-q", "-F", "-N", str(inodes), "-E", "lazy_itable_init=0", out, f"{size_mib}M"])
        call(["mount", "-o", "loop", out, mount])
        try:
            call(["umoci", "raw", "unpack", "--image", f"{layout}:{name}", os.path.join(mount, "rootfs")])
        finally:
            call(["umount", mount])
        sync_file(out)
    return measured(work)[0]


def bound(program, layers, write_bytes, scratch):
    command = [program, "--write-bytes", str(write_bytes), "--scratch", scratch]
    return json.loads(call(command + [f"{kind}:{path}" for kind, path in layers]))
