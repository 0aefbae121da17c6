"""Advisories made from the changelogs that Debian's packages bring along, in OSV's form and in the
one that debsecan reads."""

import gzip
import json
import os
import re
import tarfile
import zlib

from . import debian_rootfs

CVE = re.compile(r"CVE-\d{4}-\d{4,7}")
CHANGELOG = re.compile(r"usr/share/doc/[^/]+/changelog(\.Debian)?\.gz$")
HEAD = re.compile(r"^([a-z0-9][a-z0-9.+-]+) \(([^)]+)\) ")


def fixed_versions(layout):
    """{(source package, CVE): the first version whose entry names the CVE}, of all changelogs in the
    layers of an OCI layout; the image itself may have removed them again."""
    found = {}
    blobs = os.path.join(layout, "blobs/sha256")
    for name in sorted(os.listdir(blobs)):
        path = os.path.join(blobs, name)
        if not tarfile.is_tarfile(path):
            continue
        with tarfile.open(path) as layer:
            for member in layer:
                if member.isfile() and CHANGELOG.search(member.name):
                    read_changelog(gzip.decompress(layer.extractfile(member).read()), found)
    return found


def read_changelog(data, found):
    source = version = newest = None
    for line in data.decode("utf-8", "replace").splitlines():
        head = HEAD.match(line)
        if head:
            source, version = head.groups()
            newest = newest or version
            # An upload to another release may have brought it under a newer number.
            fixed = newest if debian_rootfs.is_older(newest, version) else version
        elif source and line.startswith(" "):
            for cve in CVE.findall(line):
                found[(source, cve)] = fixed  # entries come newest first: the oldest wins


def osv(identifier, source, fixed, severity=None, ecosystem="Debian:12"):
    """One record: everything before `fixed` is affected."""
    record = {"schema_version": "1.6.0", "id": identifier, "modified": "2024-01-01T00:00:00Z",
              "summary": f"{identifier} in {source}",
              "affected": [{"package": {"ecosystem": ecosystem, "name": source},
                            "ranges": [{"type": "ECOSYSTEM",
                                        "events": [{"introduced": "0"}, {"fixed": fixed}]}]}]}
    if severity:
        record["severity"] = [{"type": "CVSS_V3", "score": severity}]
    return record


def write_osv(folder, record, name=None):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, (name or f"{record['id']}-{record['affected'][0]['package']['name']}") + ".json")
    with open(path + ".new", "w", encoding="utf-8") as out:
        json.dump(record, out)
    os.rename(path + ".new", path)


def write_all(folder, fixed):
    for (source, cve), version in fixed.items():
        write_osv(folder, osv(cve, source, version))


def write_debsecan(folder, fixed, suite="bookworm"):
    """The same for debsecan: names, then one line a vulnerability, then sources and binaries."""
    os.makedirs(folder, exist_ok=True)
    cves = sorted({cve for _, cve in fixed})
    number = {cve: i for i, cve in enumerate(cves)}
    lines = ["VERSION 1"] + [f"{cve},,{cve}" for cve in cves] + [""]
    lines += [f"{source},{number[cve]},S  F,{version}," for (source, cve), version in sorted(fixed.items())]
    lines += ["", ""]
    with open(os.path.join(folder, suite), "wb") as out:
        out.write(zlib.compress("\n".join(lines).encode() + b"\n"))
