#!/usr/bin/python3
"""Writes an OCI layout whose image has every case that a bake can get wrong, the same bytes always.

    torture_image.py DIR [--big]

Tags: "torture" (gzip and plain layers); "torture-zstd" (the same layers, one of them by zstd: the
same diff ids, so the same baked file); "torture-tar" and "torture-umoci", with what only one of the
two other unpackers can judge. With --big also "big": 200,000 files and 65,100
folders in one folder each, 65,000 names of one file, files beyond 4 GiB.

The tar streams are written here byte by byte, in the v7, ustar, GNU and pax forms, so that nothing
depends on a tar program's version.
"""
import argparse
import gzip
import hashlib
import json
import os
import subprocess

OCI = "application/vnd.oci.image."
MAX_TIME = (3 << 32) + (1 << 31) - 1  # what 34 bits of ext4's seconds reach, in the year 2446
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")

# Paths of sparse files, with the most bytes that each may take on disk.
SPARSE = {"sparse/pax00": 16384, "sparse/pax01": 16384, "sparse/pax10": 16384, "sparse/all-hole": 0}
GNU_SPARSE = {"sparse/gnu": 16384, "sparse/gnu-long": 131072}
BIG_SPARSE = {"large/hole": 16384}


def pattern(size, seed):
    """Bytes that do not compress and never change."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def record(key, value):
    key, value = (x.encode() if isinstance(x, str) else x for x in (key, value))
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def base256(value, width):
    lead = b"\x80" if value >= 0 else b"\xff"
    return lead + value.to_bytes(width - 1, "big", signed=True)


def number(value, width, form):
    if form == "gnu256" or (form == "gnu" and not 0 <= value < 8 ** (width - 1)):
        return base256(value, width)
    return octal(value if 0 <= value < 8 ** (width - 1) else 0, width)


class Tar:
    """A tar stream, written to a file object. Names may be str or bytes."""

    def __init__(self, out):
        self.out = out

    def block(self, name, kind, size, form, link=b"", mode=0o644, uid=0, gid=0, mtime=1600000000, major=0,
              minor=0, prefix=b"", tail=b""):
        head = (name[:100].ljust(100, b"\0") + octal(mode, 8) + number(uid, 8, form) + number(gid, 8, form) +
                number(size, 12, form) + number(mtime, 12, form) + b" " * 8 + kind + link[:100].ljust(100, b"\0"))
        if form == "v7":
            rest = b""
        else:
            magic = b"ustar  \0" if form.startswith("gnu") else b"ustar\00000"
            rest = magic + b"root".ljust(32, b"\0") + b"root".ljust(32, b"\0") + octal(major, 8) + octal(minor, 8)
            rest += tail if tail else prefix
        head = (head + rest).ljust(512, b"\0")
        return head[:148] + b"%06o\0 " % sum(head) + head[156:]

    def payload(self, data):
        self.out.write(data)
        self.out.write(b"\0" * (-len(data) % 512))

    def add(self, name, kind="0", data=b"", link="", form="pax", pax=(), xattrs=None, mtime=1600000000, **fields):
        name, link, kind = (x.encode() if isinstance(x, str) else x for x in (name, link, kind))
        records = list(pax)
        prefix = b""
        seconds = mtime
        if isinstance(mtime, str):
            records.append(("mtime", mtime))
            seconds = 0
        if form == "pax":
            for key, value, width in (("uid", fields.get("uid", 0), 8), ("gid", fields.get("gid", 0), 8),
                                      ("mtime", seconds, 12), ("size", len(data), 12)):
                if not 0 <= value < 8 ** (width - 1):
                    records.append((key, str(value)))
            if len(name) > 100:
                records.append(("path", name))
            if len(link) > 100:
                records.append(("linkpath", link))
        elif form == "ustar" and len(name) > 100:
            cut = name.rindex(b"/", 0, 156)
            prefix, name = name[:cut], name[cut + 1:]
        elif form.startswith("gnu"):
            for long, letter in ((name, b"L"), (link, b"K")):
                if len(long) > 100:
                    self.out.write(self.block(b"././@LongLink", letter, len(long) + 1, "gnu", mtime=0))
                    self.payload(long + b"\0")
        for key, value in (xattrs or {}).items():
            records.append(("SCHILY.xattr." + key, value))
        if records:
            body = b"".join(record(k, v) for k, v in records)
            self.out.write(self.block(b"PaxHeaders/x", b"x", len(body), "ustar", mtime=0))
            self.payload(body)
        self.out.write(self.block(name, kind, len(data), form, link=link, mtime=seconds, prefix=prefix, **fields))
        self.payload(data)

    def file(self, name, data=b"", **fields):
        self.add(name, data=data.encode() if isinstance(data, str) else data, **fields)

    def dir(self, name, **fields):
        self.add(name, kind="5", **{"mode": 0o755, **fields})

    def symlink(self, name, target, **fields):
        self.add(name, kind="2", link=target, mode=0o777, **fields)

    def link(self, name, target, **fields):
        self.add(name, kind="1", link=target, **fields)

    def whiteout(self, name):
        folder, _, last = name.rpartition("/")
        self.file((folder + "/" if folder else "") + ".wh." + last)

    def opaque(self, folder):
        self.file((folder + "/" if folder else "") + ".wh..wh..opq")

    def sparse_gnu(self, name, pieces, size):
        """The old GNU form: four pieces in the header, 21 in each block that follows."""
        maps = [octal(at, 12) + octal(len(data), 12) for at, data in pieces]
        stored = b"".join(data for _, data in pieces)
        more = len(maps) > 4
        tail = (octal(0, 12) * 2 + octal(0, 12) + b"\0" * 5 + b"".join(maps[:4]).ljust(96, b"\0") +
                (b"\1" if more else b"\0") + octal(size, 12))
        name = name.encode()
        self.out.write(self.block(name, b"S", len(stored), "gnu", tail=tail))
        rest = maps[4:]
        while rest:
            here, rest = rest[:21], rest[21:]
            self.out.write((b"".join(here).ljust(504, b"\0") + (b"\1" if rest else b"\0")).ljust(512, b"\0"))
        self.payload(stored)

    def sparse_pax(self, name, pieces, size, version):
        stored = b"".join(data for _, data in pieces)
        if version == "1.0":
            text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % (at, len(data)) for at, data in pieces)
            stored = text + b"\0" * (-len(text) % 512) + stored
            pax = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name),
                   ("GNU.sparse.realsize", str(size))]
        elif version == "0.1":
            pax = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pieces))),
                   ("GNU.sparse.name", name),
                   ("GNU.sparse.map", ",".join(f"{at},{len(data)}" for at, data in pieces))]
        else:
            pax = [("GNU.sparse.size", str(size)), ("GNU.sparse.numblocks", str(len(pieces)))]
            for at, data in pieces:
                pax += [("GNU.sparse.offset", str(at)), ("GNU.sparse.numbytes", str(len(data)))]
        self.add(name if version == "0.0" else "GNUSparseFile.0/" + os.path.basename(name), data=stored, pax=pax)

    def end(self):
        self.out.write(b"\0" * 1024)


def acl(*entries):
    """The getxattr(2) form of an access control list: (tag, permissions, id)."""
    out = (2).to_bytes(4, "little")
    for tag, permissions, who in entries:
        out += tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + who.to_bytes(4, "little")
    return out


NOBODY = 0xffffffff
ACL = acl((1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 4, NOBODY), (32, 4, NOBODY))
LONG_ACL = acl((1, 6, NOBODY), *((2, 4, 70000 + i) for i in range(700)), (4, 4, NOBODY), (16, 4, NOBODY),
               (32, 4, NOBODY))


def names(tar):
    tar.dir("names")
    tar.file("names/" + "n" * 255, "255")
    tar.file("names/" + "g" * 255, "255 gnu", form="gnu")
    tar.file(b"names/" + b"\xe9\xff\x80" * 85, "255 bytes in no charset")
    tar.file(b"names/" + b"\xfe" * 255, "the same, gnu", form="gnu")
    tar.file(b"names/" + "é".encode() * 127 + b"x", "255 bytes of UTF-8")
    tar.file(b"names/caf\xe9", "latin", form="ustar")
    tar.file(b"names/caf\xc3\xa9", "composed", form="ustar")
    tar.file(b"names/cafe\xcc\x81", "decomposed", form="ustar")
    tar.file(b"names/caf\xe9-pax", "by record", pax=[("path", b"names/caf\xe9-by-record")])
    for odd in (b" lead", b"trail ", b"tab\there", b"new\nline", b"back\\slash", b"-dash", b"quote\"'", b"...",
                b".whx", b".w", b"\x01\x7f", b"*?[]", b"\xe2\x80\xae", b"a:b", b"@LongLink"):
        tar.file(b"names/" + odd, odd)
    tar.dir("ustar-prefix/" + "p" * 90)
    tar.file("ustar-prefix/" + "p" * 90 + "/" + "q" * 95, "prefix and name", form="ustar")
    tar.file("v7", "the oldest form", form="v7")
    tar.dir("v7-dir/", form="v7")
    deep = "deep" + "/d" * 400
    tar.file(deep + "/end", "the end")
    tar.symlink("deep-link", "deep/d/d/d")


def metadata(tar):
    tar.dir("meta", mode=0o1777, uid=65536, gid=100000)
    for mode in (0, 0o1, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777):
        tar.file("meta/mode-%04o" % mode, "m", mode=mode)
    tar.dir("meta/setgid", mode=0o2775, gid=7)
    tar.file("meta/id-65536", uid=65536, gid=65537)
    tar.file("meta/id-gnu", uid=3000000000, gid=4294967294, form="gnu")
    tar.file("meta/id-pax", uid=4294967294, gid=3000000001)
    times = {"zero": 0, "ns": "1700000000.123456789", "one-ns": "5.000000001", "minus": "-1.5", "minus-quarter": "-0.25",
             "minus-whole": -86400, "y1901": -(1 << 31), "y2038": "2147483648.5", "y2106": 1 << 32, "y2255": 9000000000,
             "y2446": MAX_TIME, "long-fraction": "12.34567890123456789"}
    for name, value in times.items():
        tar.file("meta/time-" + name, mtime=value)
    tar.file("meta/time-gnu-minus", mtime=-1000000, form="gnu")
    tar.dir("meta/time-dir", mtime="-5.25")
    tar.symlink("meta/time-link", "nowhere", mtime="1234567890.987654321")
    tar.add("meta/null", kind="3", major=1, minor=3, mode=0o666)
    tar.add("meta/disk", kind="4", major=8, minor=17, uid=5)
    tar.add("meta/big-device", kind="3", major=300, minor=70000)
    tar.add("meta/biggest-device", kind="4", major=4095, minor=1048575)
    tar.add("meta/edge-device", kind="3", major=255, minor=256)
    tar.add("meta/pipe", kind="6", mode=0o640)
    for size in (1, 59, 60, 61, 255, 1000, 4095):
        tar.symlink("meta/link-%d" % size, ("t" * 50 + "/") * (size // 51) + "e" * (size % 51))
    tar.symlink("meta/link-gnu", "k" * 300, form="gnu")


def attributes(tar):
    tar.dir("xattr", xattrs={"user.on-a-folder": b"yes", "trusted.too": b"\0\1\2"})
    tar.file("xattr/capability", "ping", mode=0o755, xattrs={"security.capability": CAPABILITY})
    tar.file("xattr/empty", xattrs={"user.empty": b"", "user.one": b"1"})
    tar.file("xattr/inside", xattrs={"user.a": b"a" * 20})
    tar.file("xattr/block", xattrs={"user.b": pattern(3000, "b"), "user.a": b"a" * 20})
    tar.file("xattr/own-inode", "x", xattrs={"user.large": pattern(5001, "large")})
    tar.file("xattr/most", xattrs={"user.most": pattern(65536, "most"), "trusted.most": pattern(65535, "t")})
    tar.file("xattr/sum", xattrs={"user.%02d" % i: pattern(500, i) for i in range(20)})
    tar.file("xattr/many", xattrs={"user.%03d" % i: b"%d" % i for i in range(120)})
    tar.file("xattr/name", xattrs={"user." + "n" * 250: b"long name"})
    tar.file("xattr/acl", xattrs={"system.posix_acl_access": ACL})
    tar.file("xattr/acl-long", xattrs={"system.posix_acl_access": LONG_ACL})
    tar.dir("xattr/acl-default", xattrs={"system.posix_acl_default": acl((1, 7, NOBODY), (4, 5, NOBODY),
                                                                         (32, 5, NOBODY))})
    tar.file("xattr/acl-text", pax=[("SCHILY.acl.access", "user::rw-,user:1001:r--:1001,group::r--,mask::r--,other::r--")])
    tar.symlink("xattr/link", "acl", xattrs={"trusted.on-a-link": b"l"})
    tar.symlink("xattr/link-own-inode", "acl", xattrs={"trusted.large": pattern(9000, "on a link")})
    tar.add("xattr/pipe", kind="6", xattrs={"trusted.on-a-pipe": b"p"})
    tar.file("xattr/overlay", xattrs={"trusted.overlay.opaque": b"y", "user.overlay.redirect": b"/etc",
                                      "user.kept": b"k"})


PIECES = [(0, pattern(4096, "s0")), (1 << 20, pattern(512, "s1")), (50 << 20, b"")]


def for_tar_alone(tar):
    """Member types that umoci 0.4.7 does not know."""
    tar.dir("sparse")
    tar.sparse_gnu("sparse/gnu", PIECES, 50 << 20)
    tar.sparse_gnu("sparse/gnu-long", [(i << 16, pattern(512, i)) for i in range(30)] + [(40 << 16, b"")], 40 << 16)
    tar.add("contiguous", kind="7", data=b"type 7")
    tar.add("pax_global_header", kind="g", data=record("comment", "no member"), form="ustar")
    tar.file("after-the-global-header", "1")


def for_umoci_alone(tar):
    """A link to what the same layer hides: all whiteouts first, as the script around GNU tar has it,
    leaves no target."""
    tar.link("hard/from-above", "hard/only-here")
    tar.whiteout("hard/only-here")
    tar.link("hard/through-links", "lib64/linked")
    tar.whiteout("usr/lib/linked")


def sparse(tar):
    tar.dir("sparse")
    pieces = PIECES
    for version, name in (("0.0", "pax00"), ("0.1", "pax01"), ("1.0", "pax10")):
        tar.sparse_pax("sparse/" + name, pieces, 50 << 20, version)
    tar.sparse_pax("sparse/all-hole", [(10 << 20, b"")], 10 << 20, "1.0")
    tar.sparse_pax("sparse/odd-edges", [(512, pattern(512, 1)), (3584, pattern(1024, 2)), (7680, pattern(512, 3)),
                                           (100352, b"end")], 100355, "1.0")


def base(tar):
    tar.dir("./", mode=0o1751, uid=3, gid=4, mtime="1500000000.000000005", xattrs={"user.root": b"itself"})
    for folder in ("usr", "usr/bin", "usr/lib", "usr/share"):
        tar.dir(folder)
    tar.symlink("bin", "usr/bin")
    tar.symlink("lib", "usr/lib")
    tar.symlink("lib64", "lib")
    tar.symlink("share", "/usr/share")
    tar.symlink("up", "../../../usr/share")
    for name in ("keep", "old", "old2", "shadow", "linked"):
        tar.file("usr/lib/" + name, "lower " + name)
    for name in ("a", "b"):
        tar.file("usr/share/" + name, "lower " + name)
    tar.file("lib/in-one-layer", "through a link of the same layer")
    for folder in ("before", "after", "implied", "alone"):
        tar.dir("opaque-" + folder)
        tar.file("opaque-" + folder + "/old", "1")
        tar.dir("opaque-" + folder + "/sub")
        tar.file("opaque-" + folder + "/sub/old", "1")
    tar.dir("white")
    for name in ("gone", "back", "sibling-before", "sibling-after", "later"):
        tar.file("white/" + name, "lower")
    tar.dir("white/tree/")
    tar.dir("white/tree/sub/")
    tar.file("white/tree/sub/old", "1")
    tar.file("white/tree/old", "1")
    tar.dir("type")
    for name in ("file-dir", "file-link", "file-pipe"):
        tar.file("type/" + name, pattern(6000, name))
    for name in ("dir-file", "dir-link"):
        tar.dir("type/" + name)
        tar.file("type/" + name + "/child", "c")
    for name in ("link-file", "link-dir", "link-dir-deep"):
        tar.symlink("type/" + name, "../usr/share")
    tar.add("type/pipe-file", kind="6")
    tar.add("type/device-dir", kind="3", major=1, minor=5)
    tar.dir("hard", uid=9)
    tar.file("hard/a", "shared a", uid=12, mode=0o600, xattrs={"user.shared": b"1"})
    tar.link("hard/b", "hard/a")
    tar.link("hard/./c", "./hard/b")
    tar.symlink("hard/symlink", "a")
    tar.link("hard/symlink-too", "hard/symlink")
    tar.add("hard/pipe", kind="6")
    tar.link("hard/pipe-too", "/hard/pipe")
    tar.file("hard/only-here", pattern(9000, "only"))
    tar.file("hard/replaced-later", "the lower one lives on")
    tar.file("twice", "first")
    tar.file("./twice", "second, and longer")
    tar.file("twice-type", "a file")
    tar.dir("twice-type")
    tar.file("twice-type/child", "then a folder")
    tar.file("spelled//oddly/./file", "1")
    tar.dir("spelled/", mode=0o750)
    tar.file("/absolute", "1")
    tar.file("../../above", "1")
    tar.file("spelled/up/../side", "1")
    for i in range(400):
        tar.file("many/a-name-of-some-length-%03d" % i, "%d" % i, mtime=i)
    tar.dir("many", mode=0o711)


def contents(tar):
    tar.dir("data")
    for size in (0, 1, 4095, 4096, 4097, 1 << 20, 3 << 20):
        tar.file("data/size-%d" % size, pattern(size, size))
    tar.file("data/zeros", b"\0" * (5 << 20))
    tar.file("data/gnu", pattern(10000, "gnu"), form="gnu256")
    tar.add("data/type-nul", kind=b"\0", data=b"an old regular file", form="v7")


def second(tar):
    tar.file("lib/new", "through a link")
    tar.file("lib64/new2", "through two")
    tar.file("lib64/shadow", "upper shadow")
    tar.whiteout("lib/old")
    tar.whiteout("lib64/old2")
    tar.link("through-links", "lib64/linked")
    tar.link("lib/linked-inside", "lib64/keep")
    tar.opaque("share")
    tar.file("up/fresh", "through a link upwards")
    tar.opaque("opaque-before")
    tar.file("opaque-before/new", "2")
    tar.dir("opaque-after")
    tar.file("opaque-after/new", "2")
    tar.file("opaque-after/sub/new", "2")
    tar.opaque("opaque-after")
    tar.file("opaque-implied/new", "2")
    tar.opaque("opaque-implied")
    tar.opaque("opaque-alone")
    tar.whiteout("white/gone")
    tar.whiteout("white/back")
    tar.whiteout("white/sibling-before")
    tar.file("white/sibling-before", "upper")
    tar.file("white/sibling-after", "upper")
    tar.whiteout("white/sibling-after")
    tar.file("white/tree/sub/new", "2")
    tar.whiteout("white/tree")
    tar.whiteout("white/never-was")
    tar.whiteout("no/such/folder/x")
    tar.dir("type/file-dir")
    tar.file("type/file-dir/child", "2")
    tar.symlink("type/file-link", "../usr/lib/keep")
    tar.add("type/file-pipe", kind="6")
    tar.file("type/dir-file", "2")
    tar.symlink("type/dir-link", "../usr")
    tar.file("type/link-file", "2")
    tar.dir("type/link-dir")
    tar.file("type/link-dir/child", "2")
    tar.dir("type/link-dir-deep", mode=0o700)
    tar.file("type/pipe-file", "2")
    tar.dir("type/device-dir")
    tar.whiteout("hard/a")
    tar.link("hard/d", "hard/b")
    tar.link("hard/to-the-lower", "hard/replaced-later")
    tar.file("hard/replaced-later", "the upper one")
    tar.dir("hard", mode=0o700, uid=10, mtime="1600000001.5")
    tar.dir("xattr", xattrs={"user.from-above": b"2"})
    tar.file("data/size-4096", "smaller")
    tar.file("xattr/own-inode", "y", xattrs={"user.large": pattern(6002, "larger"), "user.small": b"s"})


def third(tar):
    tar.file("white/back", "came back")
    tar.whiteout("white/later")
    tar.file("opaque-before/old", "back, too")
    tar.opaque("opaque-before/sub")
    tar.dir("type/dir-link", mode=0o500)
    tar.file("type/dir-link/child", "3")
    tar.whiteout("type/file-link")
    tar.link("hard/e", "hard/d")
    tar.dir("./", mode=0o1755, uid=0, gid=0, mtime="1650000000.25")
    tar.file("lib64/third", "3")
    tar.whiteout("lib64/new2")
    tar.file("usr/share/a", "again", mtime="1650000000.125")


def big(tar):
    tar.dir("wide")
    for i in range(200_000):
        tar.file("wide/%06d-%s" % (i, hashlib.md5(b"%d" % i).hexdigest()[:i % 24]), b"%d" % i if i % 7 == 0 else b"")
    tar.dir("folders")
    for i in range(65_100):
        tar.dir("folders/%d" % i)
    tar.file("linked", "65,000 names")
    tar.dir("links")
    for i in range(64_999):
        tar.link("links/%d" % i, "linked")
    tar.dir("large")
    tar.sparse_pax("large/hole", [(0, pattern(512, "start")), (5 << 30, pattern(4096, "far")), ((6 << 30) - 1, b"!")], 6 << 30,
                   "1.0")
    size = (4 << 30) + (200 << 20) + 7
    tar.out.write(tar.block(b"large/data", b"0", size, "gnu"))
    piece = pattern(1 << 20, "large")
    for at in range(0, size, 1 << 20):
        tar.out.write((at.to_bytes(8, "big") + piece[8:])[:size - at])
    tar.out.write(b"\0" * (-size % 512))


def write_layer(layout, build, compression):
    path = os.path.join(layout, "layer.tmp")
    with open(path, "wb") as out:
        tar = Tar(out)
        for part in build:
            part(tar)
        tar.end()
    return add_blob(layout, path, compression)


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def add_blob(layout, path, compression):
    """(descriptor, diff id) of the tar stream at `path`, which moves away or is taken away."""
    diff_id = digest_of(path)
    packed = path
    if compression == "gzip":
        packed = path + ".gz"
        with open(path, "rb") as tar, open(packed, "wb") as out, gzip.GzipFile("", "wb", 6, out, mtime=0) as zipped:
            while block := tar.read(1 << 20):
                zipped.write(block)
    elif compression == "zstd":
        packed = path + ".zst"
        subprocess.run(["zstd", "-q", "-f", path, "-o", packed], check=True)
    digest = digest_of(packed)
    size = os.path.getsize(packed)
    os.rename(packed, os.path.join(layout, "blobs/sha256", digest))
    if packed != path:
        os.unlink(path)
    suffix = "+" + compression if compression else ""
    return {"mediaType": OCI + "layer.v1.tar" + suffix, "digest": "sha256:" + digest, "size": size}, "sha256:" + diff_id


def write_json(layout, value):
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(layout, "blobs/sha256", digest), "wb") as out:
        out.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def manifest_of(layout, tag, layers):
    config = {"architecture": "amd64", "os": "linux", "config": {},
              "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]}}
    manifest = {"schemaVersion": 2, "layers": [descriptor for descriptor, _ in layers],
                "config": {"mediaType": OCI + "config.v1+json", **write_json(layout, config)}}
    return {"mediaType": OCI + "manifest.v1+json", "annotations": {"org.opencontainers.image.ref.name": tag},
            **write_json(layout, manifest)}


def write(layout, with_big=False):
    os.makedirs(os.path.join(layout, "blobs/sha256"))
    lower = (base, contents, names, metadata, attributes, sparse)
    layers = [write_layer(layout, lower, "gzip"), write_layer(layout, [second], ""),
              write_layer(layout, [third], "gzip")]
    manifests = [manifest_of(layout, "torture", layers)]
    manifests.append(manifest_of(layout, "torture-tar", [write_layer(layout, [for_tar_alone], "gzip")]))
    manifests.append(manifest_of(layout, "torture-umoci",
                                 [layers[0], write_layer(layout, [for_umoci_alone], "gzip")]))
    zstd = write_layer(layout, lower, "zstd")
    manifests.append(manifest_of(layout, "torture-zstd", [zstd] + layers[1:]))
    if with_big:
        manifests.append(manifest_of(layout, "big", [write_layer(layout, [big], "")]))
    with open(os.path.join(layout, "index.json"), "w", encoding="ascii") as out:
        json.dump({"schemaVersion": 2, "manifests": manifests}, out)
    with open(os.path.join(layout, "oci-layout"), "w", encoding="ascii") as out:
        out.write('{"imageLayoutVersion": "1.0.0"}')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--big", action="store_true")
    arguments = parser.parse_args()
    write(arguments.dir, arguments.big)


if __name__ == "__main__":
    main()
