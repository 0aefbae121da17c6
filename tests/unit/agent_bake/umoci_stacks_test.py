#!/usr/bin/python3
"""Random stacks of layers through umoci's unpack and through the bake, path by path.

    umoci_stacks_test.py BAKE_TOOL COMPARE_ROOTFS [STACKS [FIRST_SEED]]

Two stacks of three hold only members that have a meaning where they stand, so that umoci takes most
of them; the rest are anything at all: where umoci refuses one the bake may refuse it, too, or give
it a meaning, but not fail in another way. BUNKER_UMOCI_STACKS is another way to say STACKS. Needs
root.
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


class Model:
    """Which paths there are: enough to know whether a member can be placed. Slow and obvious."""

    def __init__(self):
        self.paths = {"": ("dir", "")}
        self.touched = set()

    def resolve(self, path):
        real, todo, followed = [], path.split("/"), 0
        while todo:
            part = todo.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                real = real[:-1]
                continue
            kind, target = self.paths.get("/".join(real + [part]), (None, None))
            if kind != "symlink":
                real.append(part)
                continue
            followed += 1
            if followed > 200:
                return None
            if target.startswith("/"):
                real = []
            todo = target.split("/") + todo
        return "/".join(real)

    def remove(self, path):
        for known in [x for x in self.paths if x == path or x.startswith(path + "/")]:
            del self.paths[known]

    def hide(self, top, itself):
        for known in [x for x in self.paths if x and (itself and x == top or not top or x.startswith(top + "/"))]:
            if known not in self.touched and known in self.paths:
                self.remove(known)

    def place(self, name, kind, link):
        """False where the member has no meaning."""
        parts = os.path.normpath("/" + name).strip("/").split("/")
        folder, last = self.resolve("/".join(parts[:-1])), parts[-1]
        if folder is None or not last:
            return False
        at = (folder + "/" + last).strip("/")
        if last.startswith(".wh."):
            opaque = last == ".wh..wh..opq"
            self.hide(folder if opaque else (folder + "/" + last[4:]).strip("/"), not opaque)
            return True
        if kind == "link":
            target = os.path.normpath("/" + link).strip("/")
            target_folder = self.resolve(os.path.dirname(target))
            if target_folder is None:
                return False
            target = (target_folder + "/" + os.path.basename(target)).strip("/")
            if target == at or self.paths.get(target, ("dir",))[0] == "dir":
                return False
        for depth in range(1, folder.count("/") + 2 if folder else 1):
            above = "/".join(folder.split("/")[:depth])
            if self.paths.setdefault(above, ("dir", ""))[0] != "dir":
                return False
        if not (kind == "dir" and self.paths.get(at, ("", ""))[0] == "dir"):
            self.remove(at)
        self.paths[at] = self.paths[target] if kind == "link" else (kind, link)
        while at not in self.touched:
            self.touched.add(at)
            at = os.path.dirname(at)
        return True


def path(rng, links=()):
    lead = rng.choice([""] * 10 + ["./", "/", "../"])
    if links and rng.random() < 0.3:
        return lead + rng.choice(links) + "/" + rng.choice("abc")
    return lead + "/".join(rng.choice("abc") for _ in range(rng.randint(1, 3)))


def member(rng, links):
    info = tarfile.TarInfo(path(rng, links))
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
        info.type, info.linkname = tarfile.LNKTYPE, path(rng, links)
    elif kind == "fifo":
        info.type = tarfile.FIFOTYPE
    elif kind == "device":
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, rng.choice([1, 300]), 70000
    else:
        name = ".wh..wh..opq" if kind == "opaque" else ".wh." + rng.choice("abc")
        info.name = rng.choice(["", path(rng, links) + "/"]) + name
    if kind in ("file", "dir") and rng.random() < 0.3:
        info.pax_headers = {"SCHILY.xattr.user.note": "n" * rng.choice([3, 200]),
                            "SCHILY.xattr.trusted.more": "m" * rng.choice([1, 90, 1000])}
    info.size = len(data)
    return kind, info, data


def burst(rng):
    """Enough names for an index, in one folder."""
    folder = path(rng)
    found = []
    for number in range(rng.randint(150, 300)):
        info = tarfile.TarInfo(f"{folder}/name-{number:03}-{'x' * rng.randint(0, 40)}")
        info.mtime = number
        found.append(("file", info, b""))
    return found


def make_stack(rng, meaningful):
    model, links, stack = Model(), [], []
    for _ in range(rng.randint(2, 4)):
        model.touched = set()
        stack.append([])
        for _ in range(rng.randint(1, 10 if meaningful else 6)):
            for kind, info, data in burst(rng) if rng.random() < 0.02 else [member(rng, links)]:
                before = dict(model.paths)
                if meaningful and not model.place(info.name, kind, info.linkname):
                    model.paths = before
                    continue
                if kind == "symlink":
                    links.append(info.name.strip("./"))
                stack[-1].append((info, data))
    return stack


def write_blob(layout, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{layout}/blobs/sha256/{digest}", "wb") as out:
        out.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def write_layout(layout, stack):
    os.makedirs(layout + "/blobs/sha256")
    layers, diff_ids = [], []
    for members in stack:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info, data in members:
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
        write_layout(layout, make_stack(random.Random(seed), seed % 3 != 0))
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
    stacks = int(sys.argv[3] if len(sys.argv) > 3 else os.environ.get("BUNKER_UMOCI_STACKS", "30"))
    first = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    verdicts = [check(seed, bake_tool, compare) for seed in range(first, first + stacks)]
    print(f"{verdicts.count(True)} stacks agree, {verdicts.count(False)} differ, "
          f"{verdicts.count(None)} umoci refuses")
    return 0 if not verdicts.count(False) and verdicts.count(True) >= stacks // 3 else 1


if __name__ == "__main__":
    sys.exit(main())
