#!/usr/bin/python3
"""Random stacks of layers through umoci's unpack and through the bake, path by path.

    umoci_stacks_test.py BAKE_TOOL COMPARE_ROOTFS [STACKS [FIRST_SEED]]

Where umoci refuses a stack the bake may do as it likes. Needs root.
"""
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time

OCI = "application/vnd.oci.image."
KINDS = (["file"] * 6 + ["dir"] * 5 + ["symlink"] * 3 + ["link"] * 2 + ["whiteout"] * 3 +
         ["opaque", "fifo", "device"])


def path(rng):
    lead = rng.choice([""] * 10 + ["./", "/", "../"])
    return lead + "/".join(rng.choice("abc") for _ in range(rng.randint(1, 3)))


def member(rng):
    info = tarfile.TarInfo(path(rng))
    info.mode, info.mtime = rng.randint(0, 0o7777), rng.choice([1, 1600000000.25, -5.5, 5e9])
    info.uid, info.gid = rng.choice([0, 7, 70000]), rng.choice([0, 4000000000])
    data = b""
    kind = rng.choice(KINDS)
    if kind == "file":
        data = bytes(rng.choice(b"xyz") for _ in range(3)) * rng.choice([0, 1, 1500, 3000])
    elif kind == "dir":
        info.type = tarfile.DIRTYPE
        info.mode &= ~0o2000  # the kernel hands setgid on to folders that an unpack makes beneath
    elif kind == "symlink":
        info.type, info.linkname = tarfile.SYMTYPE, rng.choice(["", "/", "../"]) + path(rng)
    elif kind == "link":
        info.type, info.linkname = tarfile.LNKTYPE, path(rng)
    elif kind == "fifo":
        info.type = tarfile.FIFOTYPE
    elif kind == "device":
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, rng.choice([1, 300]), 70000
    else:
        name = ".wh..wh..opq" if kind == "opaque" else ".wh." + rng.choice("abc")
        info.name = rng.choice(["", path(rng) + "/"]) + name
    if kind in ("file", "dir") and rng.random() < 0.3:
        info.pax_headers = {"SCHILY.xattr.user.note": "n" * rng.choice([3, 200])}
    info.size = len(data)
    return info, data


def write_blob(layout, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{digest}", "wb") as out:
        out.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def write_layout(layout, rng):
    os.makedirs(layout + "/blobs/sha256")
    layers, diff_ids = [], []
    for _ in range(rng.randint(2, 4)):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for _ in range(rng.randint(1, 6)):
                info, data = member(rng)
                tar.addfile(info, io.BytesIO(data))
        diff_ids.append("sha256:" + hashlib.sha256(raw.getvalue()).hexdigest())
        layers.append({"mediaType": OCI + "layer.v1.tar+gzip",
                       **write_blob(layout, gzip.compress(raw.getvalue(), mtime=0))})
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "layers": layers,
                "config": {"mediaType": OCI + "config.v1+json",
                           **write_blob(layout, json.dumps(config).encode())}}
    entry = {"mediaType": OCI + "manifest.v1+json",
             "annotations": {"org.opencontainers.image.ref.name": "t"},
             **write_blob(layout, json.dumps(manifest).encode())}
    with open(layout + "/index.json", "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, out)
    with open(layout + "/oci-layout", "w") as out:
        out.write('{"imageLayoutVersion": "1.0.0"}')


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def check(seed, bake_tool, compare):
    """None where umoci refused, otherwise whether the two agree."""
    with tempfile.TemporaryDirectory() as folder:
        layout, image = folder + "/oci", folder + "/image"
        write_layout(layout, random.Random(seed))
        since = str(int(time.time()) - 1)
        unpacked = run("umoci", "unpack", "--image", layout + ":t", folder + "/bundle")
        baked = run(bake_tool, "layout", layout, "t", image, "64")
        if unpacked.returncode != 0:
            if baked.returncode != 0 and "LAYER_UNSUPPORTED" not in baked.stdout:
                print(f"seed {seed}: {baked.stdout}")
                return False
            return None
        if baked.returncode == 0:
            compared = run(compare, image, folder + "/bundle/rootfs", "--unpacked-since", since)
            checked = run("e2fsck", "-fn", image)
            if compared.returncode == 0 and checked.returncode == 0:
                return True
            print(f"seed {seed}:\n{compared.stdout}{checked.stdout}")
        else:
            print(f"seed {seed}: umoci unpacks it, the bake says {baked.stdout}")
        return False


def main():
    bake_tool, compare = sys.argv[1:3]
    stacks = int(sys.argv[3]) if len(sys.argv) > 3 else 60
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    verdicts = [check(seed, bake_tool, compare) for seed in range(first, first + stacks)]
    print(f"{verdicts.count(True)} stacks agree, {verdicts.count(False)} differ, "
          f"{verdicts.count(None)} umoci refuses")
    return 0 if not verdicts.count(False) and verdicts.count(True) >= stacks // 10 else 1


if __name__ == "__main__":
    sys.exit(main())
