#!/usr/bin/python3
"""Writes the fuzz targets' seeds: small, valid, one for each thing that a target knows.

    make_seeds.py FOLDER     FOLDER/{bake,registry,archive,scan,network,files,exec}/*

With them go the inputs that fuzzing found worth keeping, from corpus/TARGET.tar.xz (keep_corpus).
"""
import gzip
import hashlib
import io
import json
import os
import sqlite3
import struct
import sys
import tarfile
import tempfile

TIME = 1_600_000_000


def member(name, kind=tarfile.REGTYPE, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    info.mtime = TIME
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(members, fmt=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    # Without the padding to a record: a fuzzer spends its time where something is said.
    content = out.getvalue().rstrip(b"\0")
    return content + b"\0" * (-len(content) % 512 + 1024)


def layers():
    """name -> tar"""
    yield "plain", tar([member("d", tarfile.DIRTYPE), member("d/f", data=b"x" * 700)])
    yield "links", tar([member("f", data=b"1"), member("g", tarfile.LNKTYPE, linkname="f"),
                        member("s", tarfile.SYMTYPE, linkname="d/../f")])
    yield "whiteouts", tar([member("d/.wh.f"), member("e/.wh..wh..opq"), member("lib/x", data=b"2"),
                            member("lib", tarfile.SYMTYPE, linkname="usr/lib")])
    yield "devices", tar([member("c", tarfile.CHRTYPE, devmajor=1, devminor=3),
                          member("b", tarfile.BLKTYPE, devmajor=300, devminor=70000),
                          member("p", tarfile.FIFOTYPE)])
    yield "pax", tar([member("n" * 200, data=b"y", uid=3_000_000, mtime=-5.25,
                             pax_headers={"SCHILY.xattr.user.a": "b",
                                          "SCHILY.xattr.security.capability": "\1" * 20})])
    yield "gnu", tar([member("n" * 200, tarfile.SYMTYPE, linkname="m" * 200)], tarfile.GNU_FORMAT)
    yield "ustar", tar([member("a/" * 60 + "f", data=b"z", mode=0o4755)], tarfile.USTAR_FORMAT)
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
              "GNU.sparse.realsize": "1048576"}
    data = b"1\n524288\n4\n".ljust(512, b"\0") + b"data"
    yield "sparse", tar([member("GNUSparseFile.0/s", data=data, pax_headers=sparse)])
    yield "acl", tar([member("f", pax_headers={
        "SCHILY.acl.access": "user::rw-,user:7:r--,group::r--,mask::r--,other::---"})])


def bake_seeds():
    found = dict(layers())
    for name, content in found.items():
        yield name, b"\0" + content
        yield name + "-raw", b"\x08" + content
    for low, high in (("plain", "whiteouts"), ("links", "links"), ("whiteouts", "plain")):
        half = max(len(found[low]), len(found[high]))
        both = found[low].ljust(half, b"\0") + found[high].ljust(half, b"\0")
        for choice in (1, 3, 7):
            yield f"{low}-{high}-{choice}", bytes([choice]) + both
    yield "gzip", b"\x13" + gzip.compress(found["plain"], mtime=0)


def digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image():
    layer = tar([member("f", data=b"1")])
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {
        "Env": ["A=b"], "Cmd": ["/bin/sh"], "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": digest(layer), "size": len(layer)}]}).encode()
    index = json.dumps({
        "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest),
            "size": len(manifest), "platform": {"architecture": "amd64", "os": "linux"}}]}).encode()
    return layer, config, manifest, index


def registry_seeds():
    _, config, manifest, index = image()
    yield "config", b"\0" + config
    for number, text in enumerate(("debian", "docker.io/r-base:4.4", "127.0.0.1:5000/a/b:c",
                                   "[::1]:5000/x@sha256:" + "a" * 64)):
        yield f"ref{number}", b"\1" + text.encode()
    yield "bearer", b'\2Bearer realm="https://a/t",service="s",scope="repository:x:pull"'
    yield "basic", b'\2Basic realm="x", Bearer realm=y'
    docker = manifest.replace(b"oci.image.manifest.v1", b"docker.distribution.manifest.v2")
    yield "manifest", bytes([3 + 8]) + manifest
    yield "index", bytes([3 + 16]) + index
    yield "docker", bytes([3 + 24]) + docker
    yield "any", b"\3" + manifest


def archive_seeds():
    layer, config, manifest, index = image()
    blobs = {digest(content)[7:]: content for content in (layer, config, manifest)}
    layout = [member("oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
              member("index.json", data=index)]
    layout += [member("blobs/sha256/" + name, data=content) for name, content in blobs.items()]
    yield "layout", tar(layout)
    saved = json.dumps([{"Config": "c.json", "RepoTags": ["a:b"], "Layers": ["l/layer.tar"]}])
    yield "docker", tar([member("c.json", data=config), member("l/layer.tar", data=layer),
                         member("manifest.json", data=saved.encode())])
    yield "rootfs", layer
    yield "rootfs-gz", gzip.compress(layer, mtime=0)


def rpm_header():
    entries, data = b"", b""
    for tag, kind, count, content in ((1000, 6, 1, b"bash\0"), (1001, 6, 1, b"5.1\0"), (1002, 6, 1, b"6.el9\0"),
                                      (1003, 4, 1, b"\0\0\0\2"), (1044, 6, 1, b"bash-5.1-6.el9.src.rpm\0"),
                                      (1116, 4, 1, b"\0\0\0\0"), (1117, 8, 1, b"METADATA\0"),
                                      (1118, 8, 1, b"/x.dist-info/\0")):
        entries += struct.pack(">IIII", tag, kind, len(data), count)
        data += content
    return struct.pack(">II", 8, len(data)) + entries + data


def rpm_database():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "rpmdb.sqlite")
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA page_size=512")
            database.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
            database.execute("INSERT INTO Packages (blob) VALUES (?)", (rpm_header(),))
        with open(path, "rb") as file:
            return file.read()


def scan_seeds():
    def osv(ecosystem, events):
        return json.dumps({"id": "A", "modified": "2024", "aliases": ["B"], "severity": [
            {"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}], "affected": [{
                "package": {"ecosystem": ecosystem, "name": "x"}, "versions": ["1.0.0"],
                "ranges": [{"type": "ECOSYSTEM", "events": events}]}]}).encode()
    yield "dpkg", (b"\0Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36)\n"
                   b"Version: 2.36-9\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n")
    yield "distroless", b"\x0bPackage: tzdata\nVersion: 1\n"
    yield "apk", b"\1P:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nF:lib\nR:x\n\nP:b\nV:1\n"
    yield "rpm-header", b"\2" + rpm_header()
    yield "rpm-database", b"\3" + rpm_database()
    yield "python", b"\4Metadata-Version: 2.1\nName: Six\nVersion: 1.16\n\ntext"
    yield "npm", b'\5{"name":"@a/b","version":"1.0.0","x":[{"y":null}]}'
    yield "os-release", b"\6ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n"
    yield "osv-debian", b"\7" + osv("Debian:12", [{"introduced": "0"}, {"fixed": "2-1"}])
    yield "osv-npm", b"\7" + osv("npm", [{"introduced": "1.0.0"}, {"last_affected": "2.0.0"}, {"limit": "*"}])
    yield "osv-pypi", b"\7" + osv("PyPI", [{"introduced": "0.9rc1"}, {"fixed": "1.1.post2"}])
    yield "cvss3", b"\x08CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:L/A:N"
    yield "cvss2", b"\x08AV:N/AC:L/Au:N/C:P/I:P/A:C"
    for number, pair in enumerate((b"1:1.0~rc1-2+b1\t1.0-1", b"1:1.0~rc1^git-1.el9\t1.0-1", b"1!1.0rc1.post2.dev3+a.1\t1",
                                   b"v1.0.0-alpha.1+b\t1.0.0", b"1.2.03a_rc1_p2~ab-r3\t1.2")):
        yield f"versions{number}", bytes([9 + 11 * number]) + pair
    yield "trivy", (b'\x0a{"SchemaVersion":2,"Results":[{"Type":"debian","Vulnerabilities":[{"VulnerabilityID":"C",'
                    b'"PkgName":"x","InstalledVersion":"1","Severity":"HIGH"}]}]}')
    yield "grype", (b'\x15{"matches":[{"vulnerability":{"id":"C","severity":"Low","fix":{"versions":["2"]}},'
                    b'"artifact":{"name":"x","version":"1","purl":"pkg:npm/x@1"}}]}')
    yield "debsecan", b"\x20CVE-1 x (fixed, low urgency)\nCVE-2 x\n"


def network_seeds():
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\1a\7example\0\0\1\0\1"
    yield "question", b"\0" + question
    yield "answer", (b"\0\x12\x34\x81\x80\0\1\0\2\0\0\0\0" + question[12:] +
                     b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\4\1b\xc0\x0e"
                     b"\1b\xc0\x0e\0\1\0\1\0\0\0\x3c\0\4\1\2\3\4")
    name = b"\0\0\0\x0e\0\x0c\0\0\x09a.example"
    body = b"\3\3" + bytes(32) + b"\0\0\2\x13\1\1\0" + struct.pack(">H", len(name)) + name
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    yield "hello", b"\1\x16\3\1" + struct.pack(">H", len(message)) + message
    yield "requests", (b"\2GET /a HTTP/1.1\r\nHost: good.example\r\n\r\nPOST http://good.example/b HTTP/1.1\r\n"
                       b"Host: good.example:80\r\nContent-Length: 2\r\n\r\nhiPUT / HTTP/1.1\r\nHost: good.example\r\n"
                       b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n")


def files_seeds():
    """The first byte says what of: the credit of a stream, an end, records, a tar."""
    def steps(*ops):
        return b"".join(op.encode() + struct.pack("<I", number) + extra for op, number, extra in ops)

    yield "credit", b"\0" + steps(("h", 2, b"\x10\1"), ("d", 32768, b""), ("d", 7, b""), ("a", 200000, b""),
                                  ("s", 1000, b""), ("c", 1000, b""), ("e", 0, b""))
    for kind in range(1, 14):
        yield f"end_{kind}", b"\1\x08" + bytes([kind]) + b"\x12\x05a\x1b[2J"
    yield "records", b"\2" + b"".join(struct.pack("<I", len(x)) + x for x in (b"\x08\1\x12\1a", b"\x08\x08", b""))
    for name, content in layers():
        yield f"tar_{name}", b"\3" + content


def exec_seeds():
    """Steps of callers and of the guest, as tests/fuzz/fuzz_exec.cc reads them."""
    def frame(kind, payload, caller=1):
        return bytes([14, kind]) + struct.pack("<H", len(payload)) + payload + bytes([caller])

    def data(kind, size, caller=1):
        return bytes([11, kind]) + struct.pack("<I", size) + bytes([caller])

    def credit(step, size, caller=1):
        return bytes([step]) + struct.pack("<I", size) + bytes([caller])

    command, question, reader, write, take = b"\0\1", b"\1\0", b"\2\0", b"\x09", b"\5\0" + b"\xff" * 4
    feed = b"\4\0" + struct.pack("<I", 200_000)
    exited = b"\x08\x89\1\x12\7SIGKILL\x18\5\x28\1\x30\x40"
    row = b"\x08\7\x12\3a\xffb\x1a\1c\x28\x40\x30\1\x38\x89\1\x42\7SIGKILL"
    yield "command", b"\0" + command + write + frame(37, b"\x08\5") + data(19, 900) + data(20, 7) + take + frame(21, exited)
    yield "stdin", b"\0" + command + feed + write + feed + credit(12, 131072) + write + frame(21, exited)
    yield "refused", b"\0" + command + frame(22, b"\x08\2\x12\x05a\x1b[2J")
    yield "question", b"\0" + question + write + frame(33, b"\n" + bytes([len(row)]) + row + b"\x10\5")
    yield "reader", b"\0" + reader + frame(35, b"\x08\x80\x80\4") + data(19, 32767) * 9 + take + frame(21, exited)
    yield "given-up", b"\0" + command + b"\6\0" + data(19, 900) + write + b"\7\0" + frame(21, exited)
    yield "log", b"\0" + reader + data(19, 700) + take + frame(38, b"\x08\x80\4")
    yield "no-log", b"\0" + command + frame(38, b"\x08\x80\4")
    yield "read-file", b"\0" + b"\3\0" + write + frame(52, b"\x10\1") + data(49, 32767) * 4 + take + frame(53, b"\x08\1")
    yield "write-file", (b"\0" + b"\3\1" + frame(52, b"") + feed + write + credit(140, 131072) + feed + write +
                         frame(53, b"\x08\x08\x12\4full"))
    yield "cut-off", b"\0" + command + question + reader + b"\3\2" + write + frame(99, b"x") + b"\x0a" + command
    yield "questions", b"\0" + b"\x08\x88" + write + frame(6, b"\n\1a", 0) + frame(4, b"\x08\1", 0)
    yield "wrong", b"\0" + command + b"\xce\x13\4\0abcd\1\x09\0\xff" + b"\x0a" + b"\x0d\4\0BKF1"
    yield "two-ends", b"\0" + command + frame(21, exited) + frame(21, exited)
    yield "no-head", b"\0" + b"\3\0" + data(49, 900)
    word = ("a" + "\u00e9" * 1024).encode()  # cut where a character is
    row = b"\x12" + bytes([len(word) % 128 + 128, len(word) // 128]) + word
    row = b"\n" + bytes([len(row) % 128 + 128, len(row) // 128]) + row
    yield "long-word", b"\0" + question + frame(33, row)
    yield "parser", b"\7" + b"\x40\5hello" + b"\0\4BKF1" + b"\xd0\x10" + b"y" * 16 + b"\x80\0" + b"\x41\x02hi"


def kept(target):
    """What keep_corpus has packed, if anything."""
    packed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", f"{target}.tar.xz")
    if not os.path.exists(packed):
        return
    with tarfile.open(packed) as archive:
        for entry in archive:
            if entry.isfile():
                yield os.path.basename(entry.name), archive.extractfile(entry).read()


def main():
    for target, seeds in (("bake", bake_seeds()), ("registry", registry_seeds()),
                          ("archive", archive_seeds()), ("scan", scan_seeds()), ("network", network_seeds()),
                          ("files", files_seeds()), ("exec", exec_seeds())):
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        for name, content in [*seeds, *kept(target)]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)


main()
