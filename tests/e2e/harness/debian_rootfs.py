"""Debian root file systems that differ from the real image in one package, made with dpkg itself."""

import functools
import io
import os
import shutil
import subprocess
import tarfile

from . import images, processes

import oci


def unpack(folder):
    """The real Debian image, unpacked; returns its root folder."""
    bundle = os.path.join(folder, "bundle")
    processes.run(["umoci", "unpack", "--image", f"{images.debian_layout()}:v1", bundle], seconds=300)
    return os.path.join(bundle, "rootfs")


def versions(package):
    """Versions of this machine's package sources, newest first as apt lists them."""
    done = processes.run(["apt-cache", "madison", package])
    found = []
    for line in done.stdout.splitlines():
        version = line.split("|")[1].strip()
        if version not in found:
            found.append(version)
    return found


@functools.lru_cache(maxsize=None)
def is_older(a, b):
    return subprocess.run(["dpkg", "--compare-versions", a, "lt", b], check=False).returncode == 0


def install(rootfs, package, version, folder):
    """Installs that version with dpkg inside the root."""
    downloads = os.path.join(folder, "debs")
    os.makedirs(downloads, exist_ok=True)
    processes.run(["apt-get", "download", "-q", f"{package}={version}"], seconds=120, cwd=downloads)
    [deb] = [x for x in os.listdir(downloads) if x.startswith(package + "_")]
    shutil.copy(os.path.join(downloads, deb), os.path.join(rootfs, "tmp", deb))
    processes.run(["chroot", rootfs, "dpkg", "--force-downgrade", "--force-depends", "-i", "/tmp/" + deb],
                  seconds=120, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                    "DEBIAN_FRONTEND": "noninteractive"})
    os.unlink(os.path.join(rootfs, "tmp", deb))


def installed(rootfs):
    """{package: version}, by dpkg."""
    done = processes.run(["dpkg-query", f"--admindir={rootfs}/var/lib/dpkg", "-W", "-f",
                          "${Package} ${Version} ${db:Status-Status}\n"])
    rows = [x.split() for x in done.stdout.splitlines()]
    return {x[0]: x[1] for x in rows if x[2] == "installed"}


def image_of(rootfs):
    """One layer of the whole root."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(rootfs, arcname=".", filter=lambda x: None if x.name.startswith(("./proc/", "./sys/")) else x)
    return oci.Image([oci.layer_from_tar(data.getvalue(), level=1)],
                     {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"], "WorkingDir": "/"})
