"""The images that tests use: a tiny one of busybox, and the real Debian one, made once."""

import os
import shutil

from . import paths, processes

import oci

BUSYBOX_LINKS = ("sh ls cat echo id env printf head tail dd wc sleep kill true false stat df mount "
                 "touch rm mkdir ps uname hostname readlink sha256sum seq test chmod dmesg ip "
                 "setsid nohup yes tr find base64 grep od expr stty tty").split()


def busybox_binary():
    path = shutil.which("busybox") or "/bin/busybox"
    if not os.path.exists(path):
        raise SystemExit("busybox is missing: apt-get install busybox-static (tests/run does)")
    return path


def base_layer(extra=None):
    """A root file system of one static busybox; `extra(builder)` adds members."""
    with open(busybox_binary(), "rb") as source:
        program = source.read()
    layer = oci.TarBuilder()
    for folder in ("bin", "etc", "root", "tmp", "usr", "usr/bin", "var", "proc", "sys", "dev", "home"):
        layer.directory(folder, mode=0o1777 if folder == "tmp" else 0o755)
    layer.file("bin/busybox", program, mode=0o755)
    for name in BUSYBOX_LINKS:
        layer.symlink("bin/" + name, "busybox")
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1234:1235:Alice:/home/alice:/bin/sh\n")
    layer.file("etc/group", "root:x:0:\nalice:x:1235:\n")
    layer.directory("home/alice", uid=1234, gid=1235)
    if extra:
        extra(layer)
    return oci.layer_from_tar(layer.bytes(), level=1)


CONFIG = {"Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"], "Cmd": ["sh"], "WorkingDir": "/"}


def tiny(extra_layers=(), marker="1", config=None):
    """A small image. Two with different markers share no layer digest."""
    layers = [base_layer(lambda x: x.file("etc/marker", marker))]
    layers += [oci.layer_from_tar(x) for x in extra_layers]
    return oci.Image(layers, config or CONFIG)


# apk's database with two packages.
APK_INSTALLED = ("C:Q1abc=\nP:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nF:lib\nR:ld-musl.so\n\n"
                 "P:busybox-extras\nV:1.36.1-r5\no:busybox\n\n")


def alpine():
    """A small image with what a scan reads of an Alpine: its release and two packages."""
    def add(layer):
        layer.file("etc/os-release", 'ID=alpine\nVERSION_ID=3.18.4\n')
        for folder in ("lib", "lib/apk", "lib/apk/db"):
            layer.directory(folder)
        layer.file("lib/apk/db/installed", APK_INSTALLED)
    return oci.Image([base_layer(add)], CONFIG)


def padded(mib, marker):
    """A small image with a file of `mib` MiB that no compressor makes smaller."""
    layer = oci.TarBuilder()
    layer.file("padding", os.urandom(mib << 20))
    return oci.Image([base_layer(lambda x: x.file("etc/marker", marker)),
                      oci.layer_from_tar(layer.bytes(), level=1)], CONFIG)


def debian_layout():
    """The OCI layout of deploy/image/make-debian-image, made once and kept under build/."""
    folder = os.path.join(paths.CACHE, "debian")
    if not os.path.exists(os.path.join(folder, "index.json")):
        os.makedirs(paths.CACHE, exist_ok=True)
        scratch = folder + ".new"
        shutil.rmtree(scratch, ignore_errors=True)
        processes.run([os.path.join(paths.ROOT, "deploy/image/make-debian-image"), scratch, "v1"],
                      seconds=900)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(scratch, folder)
    return folder


def push_debian(registry, repository="debian-python", tag="v1"):
    scheme = ["--dest-tls-verify=false"]
    processes.run(["skopeo", "copy", "-q", *scheme, f"oci:{debian_layout()}:v1",
                   f"docker://{registry.ref(repository, tag)}"], seconds=300)
    return registry.ref(repository, tag)
