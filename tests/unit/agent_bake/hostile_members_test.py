#!/usr/bin/python3
"""Every kind of hostile layer, one confined bake each: verdict, time, memory, and nothing outside.

    hostile_members_test.py BAKE_TOOL [ROW-PREFIX]

Prints a table; BUNKER_HOSTILE_ALL=1 adds what takes more than a second or two. Expected of a refusal:
its reason code, at most 5 s and 256 MiB (CPU seconds, for a busy machine's clock says little; three
times as many for debug builds), no file left. Expected of what is taken: e2fsck is clean, and the
paths lie inside the image. A folder outside, which many vectors aim at, stays as it was. One vector
of each row, with BUNKER_HOSTILE_STRACE=1 every one, also runs under strace: once it is confined, no
system call that takes a path succeeds. Needs root.
"""
import gzip
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
from torture_image import Tar, base256, octal, record

UNSUPPORTED, CORRUPT, MISMATCH, TOO_LARGE = "LAYER_UNSUPPORTED", "LAYER_CORRUPT", "DIGEST_MISMATCH", "SIZE_CAP_EXCEEDED"
MAX_SECONDS, MAX_MIB, SIZE_MIB = 5.0, 256, 512
PATIENCE = 3
VECTORS = []
OUTSIDE = ""  # a folder on this host; set by main


def vector(row, name, expected, build, inside=(), absent=(), compression="", slow=False):
    """`build` fills a Tar, or returns the blob; `expected` is a reason code or "baked", or None for
    either of the two refusals."""
    if not slow or os.environ.get("BUNKER_HOSTILE_ALL") == "1":
        VECTORS.append((row, name, expected, build, inside, absent, compression))


def tar_bytes(build):
    out = io.BytesIO()
    tar = Tar(out)
    build(tar)
    tar.end()
    return out.getvalue()


def chain(*steps):
    def build(tar):
        for method, *arguments in steps:
            getattr(tar, method)(*arguments)
    return build


def many(count, step, *before):
    """`before`, then `count` steps, made when they are needed."""
    def build(tar):
        for method, *arguments in [*before, *(step(i) for i in range(count))]:
            getattr(tar, method)(*arguments)
    return build


def field(offset, data):
    """A member whose header has these bytes at this offset, its checksum right."""
    def build(tar):
        head = bytearray(tar.block(b"member", b"0", 0, "ustar"))
        head[offset:offset + len(data)] = data
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        tar.out.write(head)
    return build


def pax(*records):
    def build(tar):
        tar.add("member", pax=records)
    return build


def names():
    for name, spelling, inside in (("parent", "../escaped", "escaped"), ("parents", "../../../../etc/escaped", "etc/escaped"),
                                   ("absolute", "/etc/escaped", "etc/escaped"), ("slashes", "///x//y", "x/y"),
                                   ("inner", "a/../../../b", "b"), ("dots", "./././c", "c"),
                                   ("outside", "/OUTSIDE/new", "OUTSIDE/new"), ("colons", "c:..:d", "c:..:d"),
                                   ("tilde", "~/e", "~/e"), ("proc", "/proc/self/root/f", "proc/self/root/f")):
        vector("T1", name, "baked", chain(("file", spelling, "1")), (inside,))
    for name, spelling in (("dotdot", ".."), ("dotdot-slash", "../"), ("ends-in-dotdot", "a/.."), ("dotdots", "../..")):
        vector("T1", name, UNSUPPORTED, chain(("dir", spelling)))
    vector("T1", "empty", UNSUPPORTED, chain(("file", "")))
    vector("T1", "root-as-device", UNSUPPORTED, chain(("add", "/", "3")))
    vector("T1", "file-with-a-slash", UNSUPPORTED, chain(("file", "d/"), ("file", "d/x", "1")))
    vector("T1", "dot-as-file", UNSUPPORTED, chain(("file", ".")))
    vector("T1", "only-slashes", "baked", chain(("dir", "///"), ("file", "x", "1")), ("x",))


def breakouts():
    out = "/OUTSIDE"
    up = "../../../../../../../.." + out
    for name, target in (("absolute", out), ("upwards", up), ("proc-root", "/proc/self/root" + out), ("root", "/"),
                         ("dot", "/."), ("proc-fd", "/proc/self/fd")):
        inside = {"absolute": "OUTSIDE/new", "upwards": "OUTSIDE/new", "proc-root": "proc/self/root/OUTSIDE/new",
                  "root": "new", "dot": "new", "proc-fd": "proc/self/fd/new"}[name]
        vector("T2", "file-through-" + name, "baked", chain(("symlink", "l", target), ("file", "l/new", "1")), (inside,))
    through = (("symlink", "l", out), ("symlink", "m", "l"))
    vector("T2", "link-to-link", "baked", chain(*through, ("file", "m/new", "1")), ("OUTSIDE/new",))
    vector("T2", "folder-through", "baked", chain(*through, ("dir", "m/new")), ("OUTSIDE/new",))
    vector("T2", "device-through", "baked", chain(*through, ("add", "m/new", "3")), ("OUTSIDE/new",))
    vector("T2", "pipe-through", "baked", chain(*through, ("add", "m/new", "6")), ("OUTSIDE/new",))
    vector("T2", "symlink-through", "baked", chain(*through, ("symlink", "m/new", "/etc")), ("OUTSIDE/new",))
    vector("T2", "overwrite-through", "baked", chain(*through, ("file", "m/canary", "1")), ("OUTSIDE/canary",))
    vector("T2", "hardlink-out", UNSUPPORTED, chain(("link", "h", up + "/canary")))
    vector("T2", "hardlink-absolute", UNSUPPORTED, chain(("link", "h", out + "/canary")))
    vector("T2", "hardlink-through", UNSUPPORTED, chain(*through, ("link", "h", "m/canary")))
    vector("T2", "hardlink-placed-through", "baked", chain(*through, ("file", "f", "1"), ("link", "m/h", "f")), ("OUTSIDE/h",))
    vector("T2", "hardlink-to-symlink-then-write", "baked",
           chain(("symlink", "l", out + "/canary"), ("link", "h", "l"), ("file", "h", "1")), ("h", "l"))
    vector("T2", "symlink-then-file-of-its-name", "baked", chain(("symlink", "l", out + "/canary"), ("file", "l", "1")),
           ("l",), ("OUTSIDE",))
    vector("T2", "symlink-then-folder-of-its-name", "baked", chain(("symlink", "l", out), ("dir", "l"), ("file", "l/x", "1")),
           ("l/x",), ("OUTSIDE",))
    vector("T2", "folder-then-symlink-then-file", "baked",
           chain(("dir", "d"), ("file", "d/a", "1"), ("symlink", "d", out), ("file", "d/new", "1")), ("OUTSIDE/new",))
    vector("T2", "swap-back-and-forth", "baked",
           chain(("symlink", "d", out), ("dir", "d"), ("symlink", "d", out), ("file", "d/new", "1")), ("OUTSIDE/new",))
    vector("T2", "mode-through", "baked", chain(("symlink", "l", out), ("dir", "l/.")), ("l",), ("OUTSIDE",))
    vector("T2", "dot-symlink", UNSUPPORTED, chain(("symlink", "/.", out)))
    vector("T2", "dot-slash-symlink", UNSUPPORTED, chain(("symlink", "./", out)))
    vector("T2", "dotdot-symlink", UNSUPPORTED, chain(("symlink", "..", out)))
    vector("T2", "loop", UNSUPPORTED, chain(("symlink", "a", "b"), ("symlink", "b", "a"), ("file", "a/x", "1")))
    vector("T2", "self", UNSUPPORTED, chain(("symlink", "a", "a"), ("file", "a/x", "1")))
    vector("T2", "growing-loop", UNSUPPORTED, chain(("symlink", "a", "a/a/a"), ("file", "a/x", "1")))
    vector("T2", "long-chain", UNSUPPORTED,
           many(301, lambda i: ("symlink", "l%d" % i, "l%d" % (i + 1)) if i < 300 else ("file", "l0/x", "1")))
    vector("T2", "whiteout-through", "baked", chain(*through, ("whiteout", "m/canary")), ("l", "m"))
    vector("T2", "opaque-through", "baked", chain(("symlink", "l", "/"), ("opaque", "l")), ("l",))
    vector("T2", "sibling-prefix", "baked", chain(("symlink", "l", "../root-sibling"), ("file", "l/x", "1")), ("root-sibling/x",))
    vector("T2", "middle-of-the-path", "baked", chain(("dir", "a"), ("symlink", "a/b", out), ("file", "a/b/c/d", "1")),
           ("OUTSIDE/c/d",))
    vector("T2", "dotdot-after-link", "baked", chain(("symlink", "l", out), ("file", "l/../x", "1")), ("x",))
    vector("T2", "link-with-dotdots-inside", "baked", chain(("dir", "a"), ("symlink", "a/l", "../../../" + out[1:]), ("file", "a/l/x", "1")),
           ("OUTSIDE/x",))
    vector("T2", "file-below-file", UNSUPPORTED, chain(("file", "f", "1"), ("file", "f/x", "1")))
    vector("T2", "file-below-device", UNSUPPORTED, chain(("add", "n", "3"), ("file", "n/x", "1")))
    vector("T2", "empty-target", UNSUPPORTED, chain(("symlink", "l", "")))
    vector("T2", "overlong-target", UNSUPPORTED, chain(("symlink", "l", "t" * 4096)))
    vector("T2", "nul-in-target", UNSUPPORTED, lambda tar: tar.add("l", "2", pax=[("linkpath", b"/etc\0/x")]))


def links():
    vector("T3", "missing", UNSUPPORTED, chain(("link", "a", "gone")))
    vector("T3", "later", "baked", chain(("link", "a", "z"), ("file", "z", "1")), ("a", "z"))
    vector("T3", "later-chain", "baked", chain(("link", "a", "b"), ("link", "b", "c"), ("file", "c", "1")), ("a", "b", "c"))
    vector("T3", "cycle", UNSUPPORTED, chain(("link", "a", "b"), ("link", "b", "a")))
    vector("T3", "itself", UNSUPPORTED, chain(("link", "a", "a")))
    vector("T3", "folder", UNSUPPORTED, chain(("dir", "d"), ("link", "a", "d")))
    vector("T3", "root", UNSUPPORTED, chain(("link", "a", "/")))
    vector("T3", "symlink", "baked", chain(("symlink", "s", "gone"), ("link", "a", "s")), ("a", "s"))
    vector("T3", "with-data", None, lambda tar: (tar.file("f", b"1"), tar.add("a", "1", data=b"2", link="f")))
    vector("T3", "most", "baked", many(64_999, lambda i: ("link", "l%d" % i, "f"), ("file", "f", "1")), ("l64998",), slow=True)
    vector("T3", "70,000", UNSUPPORTED, many(70_000, lambda i: ("link", "l%d" % i, "f"), ("file", "f", "1")), slow=True)
    vector("T3", "long-later-chain", UNSUPPORTED, many(3000, lambda i: ("link", "l%d" % i, "l%d" % (i + 1))))


def whiteouts():
    for name, spelling in (("of-nothing", ".wh."), ("of-dot", ".wh.."), ("of-dotdot", ".wh..."), ("in-folder", "d/.wh."),
                           ("as-folder", ".wh.d/x"), ("twice", ".wh.a/.wh.b")):
        vector("T4", name, UNSUPPORTED, chain(("file", spelling)))
    vector("T4", "opaque-first", "baked", chain(("opaque", "d"), ("file", "d/x", "1")), ("d/x",))
    vector("T4", "opaque-last", "baked", chain(("file", "d/x", "1"), ("opaque", "d")), ("d/x",))
    vector("T4", "opaque-root", "baked", chain(("file", "x", "1"), ("opaque", "")), ("x",))
    vector("T4", "never-was", "baked", chain(("whiteout", "a/b/c"), ("file", "x", "1")), ("x",), ("a",))
    vector("T4", "of-a-whiteout", "baked", chain(("file", ".wh..wh.x"), ("file", "y", "1")), ("y",))


def types():
    attributes = {"security.capability": bytes.fromhex("0100000200040000000000000000000000000000")}
    vector("T5", "device-and-setuid", "baked", lambda tar: (
        tar.add("null", "3", major=1, minor=3), tar.add("disk", "4", major=8, minor=0), tar.add("pipe", "6"),
        tar.file("suid", b"1", mode=0o6755), tar.file("cap", b"1", xattrs=attributes)), ("null", "disk", "pipe", "suid", "cap"))
    vector("T5", "overlay-attributes", "baked", lambda tar: tar.dir("d", xattrs={
        "trusted.overlay.opaque": b"y", "user.overlay.metacopy": b"", "trusted.overlay.redirect": b"/etc"}), ("d",))
    vector("T5", "unknown-type", UNSUPPORTED, lambda tar: tar.add("s", "s", data=b"?"))
    vector("T5", "device-number", UNSUPPORTED, pax_device)


def pax_device(tar):
    tar.add("n", "3", pax=[("SCHILY.devmajor", "4096"), ("SCHILY.devminor", "1048576")])


def zeros_gzip(mib):
    piece = gzip.compress(tar_file_head(mib << 20), 9)
    return piece + gzip.compress(b"\0" * (64 << 20), 9) * (mib // 64)


def tar_file_head(size):
    out = io.BytesIO()
    out.write(Tar(out).block(b"f", b"0", size, "gnu"))
    return out.getvalue()


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


def sparse_bomb(size):
    return lambda tar: tar.sparse_pax("f", [(0, b"x" * 512), (size, b"")], size, "1.0")


def many_members(count):
    tar = io.BytesIO()
    writer = Tar(tar)
    for i in range(50_000):
        writer.file("%x" % (i * 2654435761 % (1 << 32)))
    return gzip.compress(tar.getvalue(), 1) * (count // 50_000 + 1)


def bombs():
    vector("T6", "gzip-in-gzip", UNSUPPORTED, lambda _: gzip.compress(gzip.compress(b"\0" * (1 << 28), 9), 9), compression="gzip")
    vector("T6", "gzip-in-zstd", UNSUPPORTED, lambda _: zstd(gzip.compress(b"\0" * (1 << 24), 9)), compression="zstd")
    vector("T6", "gzip-1030:1", UNSUPPORTED, lambda _: zeros_gzip(16 << 10), compression="gzip")
    vector("T6", "zstd-ratio", UNSUPPORTED, lambda _: zstd(tar_file_head(8 << 30)) + zstd(b"\0" * (1 << 28)) * 32, compression="zstd")
    vector("T6", "zstd-window", UNSUPPORTED, lambda _: zstd(tar_file_head(1 << 20) + os.urandom(1 << 20), "--ultra", "--long=28", "-1"),
           compression="zstd")
    vector("T6", "sparse-2^50", UNSUPPORTED, sparse_bomb(1 << 50))
    vector("T6", "sparse-2^43", "baked", sparse_bomb(1 << 43), ("f",))
    vector("T6", "sparse-many-pieces", TOO_LARGE, lambda tar: tar.sparse_pax(
        "f", [(i << 20, b"x" * 512) for i in range(140_000)] + [(140_000 << 20, b"")], 140_000 << 20, "1.0"), slow=True)
    vector("T6", "over-the-cap", TOO_LARGE, lambda tar: tar.file("f", b"x" * ((SIZE_MIB + 1) << 20)), slow=True)
    vector("T6", "size-lies", CORRUPT, lambda tar: tar.out.write(tar.block(b"f", b"0", 1 << 40, "gnu")))
    vector("T6", "million-members", UNSUPPORTED, lambda _: many_members(1_000_001), compression="gzip", slow=True)


def numbers():
    for name, offset, data in (("negative-size", 124, base256(-1, 12)), ("huge-size", 124, base256(1 << 62, 12)),
                               ("size-2^63", 124, b"\x80" + b"\0" * 3 + b"\x80" + b"\0" * 7), ("size-not-octal", 124, b"99999999999\0"),
                               ("negative-uid", 108, base256(-1, 8)), ("huge-gid", 116, base256(1 << 40, 8))):
        vector("T7", name, None, field(offset, data))
    vector("T7", "negative-time", "baked", field(136, base256(-5, 12)), ("member",))
    vector("T7", "time-2^62", UNSUPPORTED, field(136, base256(1 << 62, 12)))
    for name, key, value in (("uid-2^32-1", "uid", "4294967295"), ("uid-2^32", "uid", "4294967296"), ("gid-2^32-1", "gid", "4294967295"),
                             ("uid-negative", "uid", "-1"), ("mtime-words", "mtime", "noon"), ("mtime-far", "mtime", "99999999999"),
                             ("path-with-nul", "path", b"foo\0bar"), ("link-with-nul", "linkpath", b"a\0b")):
        vector("T7", name, UNSUPPORTED, pax((key, value)))
    vector("T7", "pax-size-negative", None, pax(("size", "-1")))
    vector("T7", "pax-size-huge", None, pax(("size", str(1 << 62))))
    vector("T7", "checksum", None, lambda tar: tar.out.write(b"member".ljust(148, b"\0") + octal(1, 8).ljust(364, b"\0")))


def differentials():
    """What two programs read in two ways: refused, whichever of them is right."""
    vector("T8", "global-path", UNSUPPORTED, lambda tar: (
        tar.add("g", "g", data=record("path", "elsewhere"), form="ustar"), tar.file("f", "1")))
    vector("T8", "global-comment", "baked", lambda tar: (
        tar.add("g", "g", data=record("comment", "harmless"), form="ustar"), tar.file("f", "1")), ("f",))
    vector("T8", "gnu-prefix", UNSUPPORTED, lambda tar: tar.out.write(tar.block(b"f", b"0", 0, "gnu", tail=b"dir")))
    vector("T8", "long-name-beyond-its-size", UNSUPPORTED, lambda tar: (
        tar.out.write(tar.block(b"././@LongLink", b"L", 3, "gnu")), tar.payload(b"longer"), tar.file("f", "1", form="gnu")))
    vector("T8", "sparse-in-ustar", UNSUPPORTED, lambda tar: tar.out.write(tar.block(b"f", b"S", 0, "ustar")))
    vector("T8", "pipe-with-a-size", UNSUPPORTED, lambda tar: (
        tar.out.write(tar.block(b"p", b"6", 512, "ustar")), tar.file("hidden", b""), tar.file("f", b"1")))
    vector("T8", "symlink-with-a-pax-size", UNSUPPORTED, lambda tar: tar.add("l", "2", link="t", pax=[("size", "512")]))
    vector("T8", "sparse-odd-pieces", UNSUPPORTED, lambda tar: tar.sparse_pax("f", [(0, b"x"), (4096, b"y")], 4097, "1.0"))
    vector("T8", "hard-link-to-nothing-with-data", UNSUPPORTED, lambda tar: (
        tar.out.write(tar.block(b"f", b"1", 5, "ustar")), tar.payload(b"12345")))
    inner = tar_bytes(chain(("file", "inner", "1")))
    vector("T8", "archive-in-a-file", "baked", lambda tar: tar.file("f", inner), ("f",), ("inner",))
    vector("T8", "pax-size-hides-a-header", "baked", lambda tar: (
        tar.out.write(tar.block(b"x", b"x", len(record("size", str(len(inner)))), "ustar")), tar.payload(record("size", str(len(inner)))),
        tar.out.write(tar.block(b"f", b"0", 0, "ustar")), tar.payload(inner), tar.file("after", "1")), ("f", "after"), ("inner",))
    vector("T8", "attribute-twice", "baked", pax(("SCHILY.xattr.user.x", "first"), ("SCHILY.xattr.user.x", "second")), ("member",))


def sizes():
    vector("T9", "path-4097", UNSUPPORTED, pax(("path", "d/" * 2048 + "x")))
    vector("T9", "depth-2,000", "baked", pax(("path", "d/" * 2000 + "x")), ("d/" * 200 + "d",))
    vector("T9", "depth-10,000", UNSUPPORTED, pax(("path", "d/" * 10_000 + "x")))
    vector("T9", "component-256", UNSUPPORTED, pax(("path", "n" * 256)))
    vector("T9", "attribute-65,536", "baked", pax(("SCHILY.xattr.user.x", b"x" * 65_536)), ("member",))
    vector("T9", "attribute-65,537", UNSUPPORTED, pax(("SCHILY.xattr.user.x", b"x" * 65_537)))
    vector("T9", "attributes-1,001", UNSUPPORTED, pax(*(("SCHILY.xattr.user.%d" % i, b"x") for i in range(1001))))
    vector("T9", "pax-over-1-MiB", CORRUPT, pax(("comment", "c" * (3 << 20))))
    vector("T9", "longlink-over-1-MiB", None, lambda tar: (tar.out.write(tar.block(b"././@LongLink", b"L", 3 << 20, "gnu")),
                                                           tar.payload(b"n" * (3 << 20)), tar.file("x", b"1")))
    vector("T9", "pax-upon-pax", None, lambda tar: [
        (tar.out.write(tar.block(b"p", b"x", 20, "ustar")), tar.payload(record("comment", "x" * 8))) for _ in range(20_000)])
    vector("T9", "200,000-in-a-folder", "baked", many(200_000, lambda i: ("file", "d/%d" % i)), ("d/199999",), slow=True)


def formats():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("etc/passwd", "x" * 2000)
    blobs = {
        "mtree": b"#mtree\n/set type=file\n./f mode=0644 content=/etc/shadow\n", "zip": packed.getvalue(),
        "rar": b"Rar!\x1a\x07\x00" + b"\0" * 600, "rar5": b"Rar!\x1a\x07\x01\x00" + b"\0" * 600,
        "7z": b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 600, "iso": b"\0" * 32768 + b"\1CD001\1" + b"\0" * 2041,
        "cpio": b"070701" + b"0" * 104 + b"TRAILER!!!\0".ljust(512, b"\0"), "ar": b"!<arch>\n" + b"debian-binary   ".ljust(600),
        "xar": b"xar!\0\x1c\0\1" + b"\0" * 600, "cab": b"MSCF" + b"\0" * 600, "warc": b"WARC/1.0\r\nWARC-Type: x\r\n\r\n".ljust(600),
        "lha": b"\x20\x00-lh0-" + b"\0" * 600, "text": b"just words " * 100, "noise": bytes(range(1, 256)) * 4,
        "xz": b"\xfd7zXZ\0" + b"\0" * 600, "bzip2": b"BZh91AY&SY" + b"\0" * 600, "compress": b"\x1f\x9d\x90" + b"\0" * 600,
        "script": b"#!/bin/sh\ntouch /OUTSIDE/ran\n".ljust(600, b"#")}
    for name, blob in blobs.items():
        vector("T10", name, UNSUPPORTED, lambda _, blob=blob: blob)
        vector("T10", name + "-in-gzip", UNSUPPORTED, lambda _, blob=blob: gzip.compress(blob), compression="gzip")
    vector("T10", "zip-said-to-be-gzip", CORRUPT, lambda _: packed.getvalue(), compression="gzip")
    vector("T10", "tar-said-to-be-zstd", CORRUPT, lambda _: tar_bytes(chain(("file", "f", "1"))), compression="zstd")


def write_blob(build, path):
    """In a process of its own: what is forked from a large one is said to have been as large."""
    class Here(Tar):
        """Names outside the image become those of a folder that this host has."""
        def add(self, name, kind="0", data=b"", link="", **fields):
            change = (lambda x: x.replace("/OUTSIDE", OUTSIDE).replace("OUTSIDE", OUTSIDE[1:]) if isinstance(x, str) else x)
            super().add(change(name), kind, data, change(link), **fields)

    child = os.fork()
    if child != 0:
        if os.waitpid(child, 0)[1] != 0:
            raise RuntimeError("a vector cannot be built")
        return
    status = 1
    try:
        with open(path, "wb") as out:
            tar = Here(out)
            blob = build(tar)
            if isinstance(blob, bytes):
                out.write(blob)
            else:
                tar.end()
        status = 0
    finally:
        os._exit(status)


def bake(tool, folder, compression):
    """(code, output, seconds, CPU seconds, peak MiB), of the supervisor and its child."""
    command = [tool, "tar" + ("+" + compression if compression else ""), folder + "/blob", folder + "/out/image", str(SIZE_MIB)]
    start = time.monotonic()
    with open(folder + "/stdout", "w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - start
        output.seek(0)
        return process.returncode, output.read(), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def missing_paths(image, inside, absent):
    wrong = []
    for path, there in [(x, True) for x in inside] + [(x, False) for x in absent]:
        path = path.replace("OUTSIDE", OUTSIDE[1:]).replace("\\", "\\\\")
        shown = subprocess.run(["debugfs", "-R", f"stat \"/{path}\"", image], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True, check=False).stdout
        if ("Inode:" in shown) != there:
            wrong.append(("missing: " if there else "there: ") + path)
    return wrong


TAKES_A_PATH = "trace=%file,%network,execve,fork,vfork,ptrace,mount,bpf"


def opened_when_confined(tool, folder, compression):
    """System calls that the child got through after its filter was set; also how many it tried."""
    log = folder + "/strace"
    command = ["strace", "-f", "-qq", "-o", log, "-e", TAKES_A_PATH + ",seccomp", tool,
               "tar" + ("+" + compression if compression else ""), folder + "/blob", folder + "/out/image", str(SIZE_MIB)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    confined, tried, through, parent = False, 0, [], None
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            pid, _, call = line.partition(" ")
            parent = parent or pid
            if pid != parent and call.lstrip().startswith("seccomp(SECCOMP_SET_MODE_FILTER") and call.rstrip().endswith("= 0"):
                confined = True
            elif confined and pid != parent and re.match(r"\s*[a-z0-9_]+\(", call):
                tried += 1
                if not re.search(r"= -1 E|= \?|unfinished", call):
                    through.append(call.strip())
    return (through if confined else ["it was never confined"]), tried


def outside_state():
    return sorted((name, os.lstat(os.path.join(OUTSIDE, name)).st_mtime_ns, os.lstat(os.path.join(OUTSIDE, name)).st_mode)
                  for name in os.listdir(OUTSIDE)), os.stat(OUTSIDE).st_mtime_ns, os.stat(OUTSIDE).st_mode


def judge(tool, folder, case, strace):
    row, name, expected, build, inside, absent, compression = case
    write_blob(build, folder + "/blob")
    before = outside_state()
    code, output, seconds, cpu, mib = bake(tool, folder, compression)
    problems = []
    image = folder + "/out/image"
    if code == 0:
        verdict = "baked"
        json.loads(output)
        checked = subprocess.run(["e2fsck", "-fn", image], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if checked.returncode != 0:
            problems.append("e2fsck: " + checked.stdout[-300:])
        problems += missing_paths(image, inside, absent)
        os.unlink(image)
    else:
        verdict = output.split(":")[0]
        if cpu > MAX_SECONDS * PATIENCE:
            problems.append("too slow")
    if mib > MAX_MIB:
        problems.append("too much memory")
    if expected is None:
        expected = verdict if verdict in (UNSUPPORTED, CORRUPT) else UNSUPPORTED + " or " + CORRUPT
    if verdict != expected:
        problems.append(f"expected {expected}, got {output.strip()[:200]}")
    calls = ""
    if strace:
        through, tried = opened_when_confined(tool, folder, compression)
        calls = f"{len(through)} of {tried}"
        problems += through
        if os.path.exists(image):
            os.unlink(image)
    if os.listdir(folder + "/out"):
        problems.append(f"left behind: {os.listdir(folder + '/out')}")
    if outside_state() != before:
        problems.append("something outside changed")
    shown = f"| {row} | {name} | {os.path.getsize(folder + '/blob')} | {verdict} | {seconds:.2f} | {cpu:.2f} | {mib} | {calls} |"
    return shown + "".join(" **" + x + "**" for x in problems), bool(problems)


def judge_share(tool, folder, cases, results):
    """In a process of its own, so that all cores are used."""
    child = os.fork()
    if child != 0:
        return child
    status = 1
    try:
        os.makedirs(folder + "/out")
        with open(results, "w", encoding="utf-8") as out:
            for number, case, strace in cases:
                out.write(json.dumps([number, *judge(tool, folder, case, strace)]) + "\n")
        status = 0
    finally:
        os._exit(status)


def main():
    global OUTSIDE
    tool = sys.argv[1]
    rows = sys.argv[2] if len(sys.argv) > 2 else "T"
    for collect in (names, breakouts, links, whiteouts, types, bombs, numbers, differentials, sizes, formats):
        collect()
    everything = os.environ.get("BUNKER_HOSTILE_STRACE") == "1"
    chosen, traced = [], set()
    for case in VECTORS:
        if case[0].startswith(rows):
            chosen.append((len(chosen), case, everything or case[0] not in traced))
            traced.add(case[0])
    judged = []
    shares = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        OUTSIDE = folder + "/outside"
        os.mkdir(OUTSIDE)
        with open(OUTSIDE + "/canary", "w", encoding="ascii") as out:
            out.write("must stay")
        children = [judge_share(tool, f"{folder}/{x}", chosen[x::shares], f"{folder}/results-{x}") for x in range(shares)]
        broken = [x for x in children if os.waitpid(x, 0)[1] != 0]
        for share in range(shares):
            with open(f"{folder}/results-{share}", encoding="utf-8") as results:
                judged += [json.loads(x) for x in results]
    print("| row | vector | bytes | verdict | s | CPU s | peak MiB | calls with a path let through, confined |\n|---|---|---|---|---|---|---|---|")
    for _, shown, _ in sorted(judged):
        print(shown)
    wrong = [chosen[number][1][1] for number, _, bad in sorted(judged) if bad]
    print(f"{len(judged)} of {len(chosen)} vectors judged, {len(wrong)} wrong: {wrong}")
    return 1 if wrong or broken or len(judged) != len(chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
