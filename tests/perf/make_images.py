#!/usr/bin/python3
"""Makes the images that the performance lane bakes, from this machine's own package sources.

  r       five gzip layers: a minimal Debian, + Python, + R and a compiler, + CRAN packages, and a
          clean-up that removes the compiler and documents again. Each layer's image has a name of
          its own (base, python, r, cran, cleaned): the pairs for the sharing of chunks.
  many    a minimal Debian and three layers of small files, headers, icons, documents: nearly
          200,000 paths
  small   the same with fewer icons: some 60,000 files; made and measured by name only
  wide    200,000 files in one directory (name `one`) and over 200 directories (name `many`)

usage: make_images.py r|many|small|wide|all [--folder build/perf/images] [--no-zstd]     (as root)

Each becomes FOLDER/NAME, an OCI layout, and FOLDER/NAME-zstd, the same layers under zstd. What is
there already is kept. `r` and `many` need some 8 GiB of disk while they are made.
"""

import argparse
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
sys.path.insert(0, os.path.join(ROOT, "deploy/image"))
import oci  # noqa: E402

APT = ("APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" DEBIAN_FRONTEND=noninteractive apt-get -q -y "
       "-o DPkg::Chroot-Directory=\"$1\" -o DPkg::Options::=--force-unsafe-io ")
PYTHON = "python3 python3-numpy"
R = "r-base r-recommended r-base-dev"
CRAN = ("r-cran-tidyverse r-cran-sf r-cran-bh r-cran-rcpparmadillo r-cran-shiny r-cran-plotly "
        "r-cran-data.table r-cran-caret")
# (name, what changes the root file system at "$1")
R_STAGES = [
    ("base", ""),
    ("python", f"{APT} install --no-install-recommends {PYTHON}"),
    ("r", f"{APT} install --no-install-recommends {R}"),
    ("cran", f"{APT} install --no-install-recommends {CRAN}"),
    ("cleaned",
     f"{APT} -o APT::AutoRemove::RecommendsImportant=0 "
     f"-o APT::AutoRemove::SuggestsImportant=0 purge --auto-remove r-base-dev build-essential; "
     "rm -rf \"$1\"/usr/include/* \"$1\"/usr/share/doc/* \"$1\"/usr/share/man/* \"$1\"/usr/share/info/*; "
     "find \"$1\"/usr/share/locale -mindepth 1 -maxdepth 1 ! -name 'en*' -exec rm -rf {} +; "
     "echo 'R, without its compiler.' > \"$1\"/etc/motd"),
]
# Unpacked, not installed: what counts are the files.
SMALL_LAYERS = [
    ("headers", ["libboost1.74-dev", "linux-headers-common", "libqt5svg5-dev", "qtbase5-dev"]),
    ("icons", ["breeze-icon-theme", "oxygen-icon-theme", "gnome-icon-theme"]),
    ("documents", ["openjdk-17-doc", "python3.11-doc", "r-doc-html"]),
]
MANY_ICONS = ["papirus-icon-theme"]
CONFIG = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
          "Cmd": ["/bin/sh"], "WorkingDir": "/"}
WIDE_FILES, WIDE_FOLDERS = 200_000, 200


def load_debian():
    """deploy/image/make-debian-image as a module: package sources, and what is part of an image."""
    path = os.path.join(ROOT, "deploy/image/make-debian-image")
    loader = importlib.machinery.SourceFileLoader("make_debian_image", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


debian = load_debian()


class LayerFile:
    """A compressed layer on disk, as oci.Image takes it."""

    def __init__(self, path, diff_id):
        self.path, self.diff_id, self.media_type = path, diff_id, oci.LAYER_GZIP
        self.digest = oci.digest_of(self.blob)

    @property
    def blob(self):
        with open(self.path, "rb") as source:
            return source.read()


class LayerWriter:
    """A tar stream on its way through gzip -6 into a file, hashed before it gets there."""

    def __init__(self, path):
        self._path = path
        self._out = open(path, "wb")
        self._gzip = subprocess.Popen(["gzip", "-6", "-n"], stdin=subprocess.PIPE, stdout=self._out)
        self._hash = hashlib.sha256()
        self.tar = tarfile.open(fileobj=self, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20)

    def write(self, data):
        self._hash.update(data)
        self._gzip.stdin.write(data)
        return len(data)

    def add(self, member, data):
        member.uname = member.gname = ""
        member.mtime = min(int(member.mtime), int(debian.EPOCH))
        self.tar.addfile(member, io.BytesIO(data) if member.isreg() else None)

    def finish(self):
        self.tar.close()
        self._gzip.stdin.close()
        if self._gzip.wait() != 0:
            sys.exit("error: gzip failed")
        self._out.close()
        return LayerFile(self._path, "sha256:" + self._hash.hexdigest())


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, **more)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace")[-4000:])
        sys.exit(f"error: {command[0]} failed (above)")
    return done.stdout.decode(errors="replace")


def bootstrap(work, stages):
    """One bootstrap, and a tar of the whole root after each stage; their paths."""
    sources = os.path.join(work, "sources.list")
    with open(sources, "w", encoding="utf-8") as out:
        out.write("\n".join(debian.apt_sources()) + "\n")
    hooks, tars = [], []
    for name, change in stages:
        if change:
            hooks.append("--customize-hook=set -eu; test -d \"$1/etc/apt\"; "
                         "test -s \"$MMDEBSTRAP_APT_CONFIG\"; " + change)
        tars.append(os.path.join(work, name + ".tar"))
        hooks.append(f"--customize-hook=tar --one-file-system --sort=name --numeric-owner -C \"$1\" -cf {tars[-1]} .")
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=ca-certificates",
               "--aptopt=Acquire::Check-Valid-Until \"false\"", *hooks,
               debian.SUITE, "/dev/null"]
    if os.path.getsize(sources) > 1:
        command.append(sources)
    run(command, env=dict(os.environ, SOURCE_DATE_EPOCH=debian.EPOCH, LC_ALL="C.UTF-8"))
    return tars


def members_of(path):
    """Members with their data; a file of another's inode comes as a hard link."""
    with tarfile.open(path) as tar:
        for member in tar:
            if debian.wanted(member):
                yield member, tar.extractfile(member).read() if member.isreg() else b""


def layer_of_difference(before, path, out):
    """What the tar at `path` has other than `before`; returns the layer and the new state."""
    writer, after = LayerWriter(out), {}
    for member, data in members_of(path):
        identity = debian.identity(member, data)
        after[member.name] = identity
        if before.get(member.name) != identity:
            writer.add(member, data)
    for name in sorted(set(before) - set(after)):
        folder, last = os.path.split(name)
        if folder in after:  # a deleted folder needs one mark, not one a file
            writer.add(tarfile.TarInfo(os.path.join(folder, ".wh." + last)), b"")
    return writer.finish(), after


def write_layout(folder, images):
    """An OCI layout with several named images, written aside and renamed into place."""
    scratch = folder + ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    entries = []
    for name, image in images:
        oci.write_layout(scratch, image, name)
        with open(os.path.join(scratch, "index.json"), encoding="utf-8") as source:
            entries += json.load(source)["manifests"]
    with open(os.path.join(scratch, "index.json"), "w", encoding="utf-8") as out:
        json.dump({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries}, out)
    os.rename(scratch, folder)


def make_r(folder):
    with tempfile.TemporaryDirectory(prefix="images.", dir=os.path.dirname(folder)) as work:
        os.chmod(work, 0o755)
        tars = bootstrap(work, R_STAGES)
        say("  snapshots taken")
        state, layers, images = {}, [], []
        for (name, _), tar in zip(R_STAGES, tars):
            layer, state = layer_of_difference(state, tar, os.path.join(work, name + ".gz"))
            layers.append(layer)
            images.append((name, oci.Image(list(layers), CONFIG)))
            say(f"  {name}: {os.path.getsize(layer.path)} bytes of gzip, {len(state)} paths in the image")
            os.unlink(tar)
        write_layout(folder, images)


def package_named(name):
    """The newest installable version of a package, where the name leaves it open."""
    if name != "linux-headers-common":
        return name
    names = run(["apt-cache", "pkgnames", "linux-headers-6."]).split()
    names = [x for x in names if x.endswith("-common") and "+" not in x]
    return max(names, key=lambda x: [int(y) for y in x.replace("-", ".").split(".") if y.isdigit()])


def layer_of_packages(work, name, packages):
    debs = os.path.join(work, name)
    os.makedirs(os.path.join(debs, "root"))
    os.chmod(debs, 0o777)  # apt fetches as a user of its own
    run(["apt-get", "-q", "download", *[package_named(x) for x in packages]], cwd=debs)
    for deb in sorted(x for x in os.listdir(debs) if x.endswith(".deb")):
        run(["dpkg-deb", "-x", os.path.join(debs, deb), os.path.join(debs, "root")])
    tar = os.path.join(work, name + ".tar")
    run(["tar", "--sort=name", "--numeric-owner", "--owner=0", "--group=0", "-C",
         os.path.join(debs, "root"), "-cf", tar, "."])
    shutil.rmtree(debs)
    layer, state = layer_of_difference({}, tar, os.path.join(work, name + ".gz"))
    say(f"  {name}: {os.path.getsize(layer.path)} bytes of gzip, {len(state)} paths in the layer")
    return layer


def make_small(folder, more_icons=()):
    with tempfile.TemporaryDirectory(prefix="images.", dir=os.path.dirname(folder)) as work:
        os.chmod(work, 0o755)
        tars = bootstrap(work, R_STAGES[:1])
        layer, _ = layer_of_difference({}, tars[0], os.path.join(work, "base.gz"))
        layers = [layer] + [layer_of_packages(work, name, packages + list(more_icons if name == "icons" else ()))
                            for name, packages in SMALL_LAYERS]
        write_layout(folder, [("latest", oci.Image(layers, CONFIG))])


def make_many(folder):
    make_small(folder, MANY_ICONS)


def wide_layer(path, folders):
    """The same files, in the same order, below `folders` directories."""
    writer = LayerWriter(path)
    for number in range(folders):
        info = tarfile.TarInfo(f"d{number:03}")
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, int(debian.EPOCH)
        writer.add(info, b"")
    for number in range(WIDE_FILES):
        data = f"file {number}\n".encode() * 8
        info = tarfile.TarInfo(f"d{number * folders // WIDE_FILES:03}/file-{number:06}.txt")
        info.size, info.mode, info.mtime = len(data), 0o644, int(debian.EPOCH)
        writer.add(info, data)
    return writer.finish()


def make_wide(folder):
    with tempfile.TemporaryDirectory(prefix="images.", dir=os.path.dirname(folder)) as work:
        images = [(name, oci.Image([wide_layer(os.path.join(work, name), folders)], CONFIG))
                  for name, folders in (("one", 1), ("many", WIDE_FOLDERS))]
        write_layout(folder, images)


def names_in(layout):
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as source:
        index = json.load(source)
    return [x["annotations"]["org.opencontainers.image.ref.name"] for x in index["manifests"]]


def make_zstd(layout, folder):
    scratch = folder + ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    for name in names_in(layout):
        run(["skopeo", "copy", "-q", "--dest-compress-format", "zstd", f"oci:{layout}:{name}", f"oci:{scratch}:{name}"])
    os.rename(scratch, folder)


MAKERS = {"r": make_r, "small": make_small, "many": make_many, "wide": make_wide}


def ensure(name, folder, zstd=True):
    """Makes what is missing of one image; returns its layout's path."""
    os.makedirs(folder, exist_ok=True)
    for layout, make in ((os.path.join(folder, name), MAKERS[name]),
                         (os.path.join(folder, name + "-zstd"),
                          lambda target: make_zstd(os.path.join(folder, name), target))):
        if os.path.exists(os.path.join(layout, "index.json")) or (layout.endswith("-zstd") and not zstd):
            continue
        say(f"making {layout}")
        begun = time.monotonic()
        make(layout)
        say(f"  in {time.monotonic() - begun:.0f} s")
    return os.path.join(folder, name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", choices=[*MAKERS, "all"])
    parser.add_argument("--folder", default=os.path.join(ROOT, "build/perf/images"))
    parser.add_argument("--no-zstd", action="store_true")
    arguments = parser.parse_args()
    for name in ("r", "many", "wide") if arguments.image == "all" else [arguments.image]:
        print(ensure(name, os.path.abspath(arguments.folder), zstd=not arguments.no_zstd and name != "wide"))


if __name__ == "__main__":
    main()
