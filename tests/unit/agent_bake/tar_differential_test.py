#!/usr/bin/python3
"""What the bake reads in an archive against what GNU tar, Python's tarfile and Go's archive/tar read.

    tar_differential_test.py BAKE_TOOL

The corpus: archives that GNU tar, bsdtar and Python write in every format, the layers of the torture
image, and mutations of all of them (bytes changed with the checksum made right again, blocks moved,
doubled or dropped, the tail cut). Where the bake takes an archive, each of the others that takes it,
too, must see the same members: name, type, size, link, owner, and time. That is how a layer would
show one thing to a scanner and another to us. Where the bake refuses there is nothing to compare.

Differences that cannot deceive are listed in `explained`, each with its reason, and counted.
BUNKER_MUTATIONS sets how many mutations, BUNKER_MUTATION_SEED where they start. Go is left out,
loudly, where there is no `go`.
"""
import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
import torture_image

Member = collections.namedtuple("Member", "name kind size link uid gid mtime")
KINDS = {0: "file", 1: "dir", 2: "symlink", 3: "link", 4: "char", 5: "block", 6: "fifo"}

GO_READER = r'''
package main

import (
	"archive/tar"
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

type member struct {
	Name, Link string
	Kind       string
	Size       int64
	Uid, Gid   int
	Mtime      int64
}

func list(path string) ([]member, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := tar.NewReader(bufio.NewReader(file))
	found := []member{}
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		size, err := io.Copy(io.Discard, reader)
		if err != nil {
			return nil, err
		}
		found = append(found, member{hex.EncodeToString([]byte(header.Name)), hex.EncodeToString([]byte(header.Linkname)),
			fmt.Sprintf("%c", header.Typeflag), size, header.Uid, header.Gid, header.ModTime.Unix()})
	}
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		found, err := list(input.Text())
		if err != nil {
			found = nil
		}
		output.Encode(found)
	}
}
'''


def run(*command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, **options)


def clean(name):
    parts = []
    for part in name.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def normal(name, kind, size, link, uid, gid, mtime):
    """Members as they are compared: names cleaned, nothing that the type does not have."""
    return Member(clean(name), kind, size if kind == "file" else 0,
                  clean(link) if kind == "link" else link if kind == "symlink" else b"",
                  0 if kind == "link" else uid, 0 if kind == "link" else gid, 0 if kind == "link" and mtime is not None else mtime)


class Bake:
    def __init__(self, tool):
        self.tool = tool

    def list(self, path):
        done = run(self.tool, "members", path)
        if done.returncode != 0:
            return None
        found = []
        for line in done.stdout.splitlines():
            row = json.loads(line)
            found.append(normal(bytes.fromhex(row["name"]), KINDS[row["type"]], row["size"], bytes.fromhex(row["link"]),
                                row["uid"], row["gid"], row["mtime"]))
        return found


class Python:
    name = "Python"
    kinds = {tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file", tarfile.GNUTYPE_SPARSE: "file",
             tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "link", tarfile.CHRTYPE: "char",
             tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo"}

    def list(self, path):
        found = []
        try:
            with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as tar:
                for info in tar:
                    size = info.size
                    if info.isreg():
                        size = len(tar.extractfile(info).read()) if info.size < 1 << 26 else info.size
                    found.append(normal(info.name.encode("utf-8", "surrogateescape"), self.kinds.get(info.type, "file"),
                                        size, info.linkname.encode("utf-8", "surrogateescape"), info.uid, info.gid,
                                        int(info.mtime // 1)))
        except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError, AttributeError, MemoryError):
            return None
        return found


class Go:
    name = "Go"
    kinds = {"0": "file", "\0": "file", "7": "file", "S": "file", "5": "dir", "2": "symlink", "1": "link", "3": "char",
             "4": "block", "6": "fifo"}

    def __init__(self, folder):
        source = os.path.join(folder, "list.go")
        with open(source, "w", encoding="ascii") as out:
            out.write(GO_READER)
        environment = {**os.environ, "GO111MODULE": "off", "GOCACHE": os.path.join(folder, "go-cache"), "GOFLAGS": ""}
        built = run("go", "build", "-o", folder + "/list", source, env=environment)
        if built.returncode != 0:
            raise RuntimeError(built.stderr.decode())
        self.process = subprocess.Popen([folder + "/list"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def list(self, path):
        self.process.stdin.write(path + "\n")
        self.process.stdin.flush()
        rows = json.loads(self.process.stdout.readline())
        if rows is None:
            return None
        return [normal(bytes.fromhex(x["Name"]), self.kinds.get(x["Kind"], "file"), x["Size"], bytes.fromhex(x["Link"]),
                       x["Uid"], x["Gid"], x["Mtime"]) for x in rows if x["Kind"] not in "gx"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class GnuTar:
    """Lists with --verbose --verbose: one escaped line a member. It pads the time with spaces, so those
    in front of a name are lost; the time itself is left to the other two."""
    name = "GNU tar"
    kinds = {"-": "file", "d": "dir", "l": "symlink", "h": "link", "c": "char", "b": "block", "p": "fifo", "C": "file"}
    line = re.compile(rb"^(.)\S{9}\S* (\d+)/(\d+) +(\S+) (-?\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? (.*)$")

    def list(self, path):
        done = run("tar", "--list", "-vv", "--full-time", "--numeric-owner", "--quoting-style=escape", "--absolute-names", "--file", path,
                   env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"})
        if done.returncode != 0 or b"tar:" in done.stderr and b"implausibly" not in done.stderr and b"in the future" not in done.stderr:
            return None
        found = []
        for line in done.stdout.splitlines():
            match = self.line.match(line)
            if not match:
                return None
            kind, uid, gid, size, _, rest = match.groups()
            kind = self.kinds.get(kind.decode())
            if kind is None:
                return None
            link = b""
            if kind == "symlink":
                rest, _, link = rest.partition(b" -> ")
            elif kind == "link":
                rest, _, link = rest.partition(b" link to ")
            size = int(size) if kind == "file" else 0
            found.append(normal(unescape(rest.lstrip()), kind, size, unescape(link), int(uid), int(gid), None))
        return found


def unescape(text):
    simple = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"\\": b"\\", b" ": b" ",
              b":": b":", b'"': b'"'}
    return re.sub(rb"\\([0-7]{3}|.)", lambda m: bytes([int(m[1], 8)]) if len(m[1]) == 3 else simple.get(m[1], m[1]), text)


def tree_for(folder):
    """A small tree with a bit of everything."""
    os.makedirs(folder + "/dir/" + "d" * 120)
    rng = random.Random(5)
    for name in ("plain", "empty", "dir/inner", "dir/" + "d" * 120 + "/" + "n" * 150, "n" * 100, "n" * 101, "dir/café"):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(b"" if name == "empty" else rng.randbytes(rng.randint(1, 3000)))
    os.symlink("t" * 99, folder + "/link-99")
    os.symlink("t" * 300, folder + "/link-300")
    os.link(folder + "/plain", folder + "/hard")
    os.mkfifo(folder + "/fifo")
    with open(folder + "/sparse", "wb") as out:
        out.seek(1 << 20)
        out.write(b"x" * 4096)
        out.seek(5 << 20)
        out.write(b"y")
    os.chown(folder + "/plain", 70000, 3000000)
    os.utime(folder + "/empty", ns=(5, 1234567890123456789))


def corpus(folder):
    """[(label, path)]"""
    tree = folder + "/tree"
    tree_for(tree)
    found = []

    def made(label, *command):
        path = f"{folder}/{label}.tar"
        done = run(*[x.replace("OUT", path) for x in command], cwd=tree, env={**os.environ, "LC_ALL": "C.UTF-8"})
        if os.path.exists(path) and os.path.getsize(path) > 0:
            found.append((label, path))
        else:
            raise RuntimeError(done.stderr.decode())

    for form in ("v7", "oldgnu", "gnu", "ustar", "posix"):
        made("gnu-" + form, "tar", "--format=" + form, "-cf", "OUT", "--numeric-owner", ".")
        if form in ("oldgnu", "gnu", "posix"):
            made("gnu-sparse-" + form, "tar", "--format=" + form, "-S", "-cf", "OUT", ".")
    for version in ("0.0", "0.1", "1.0"):
        made("gnu-sparse-" + version, "tar", "--format=posix", "--sparse-version=" + version, "-S", "-cf", "OUT", ".")
    if shutil.which("bsdtar"):
        for form in ("ustar", "pax", "gnutar", "v7"):
            made("bsd-" + form, "bsdtar", "--format", form, "-cf", "OUT", ".")
    for label, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        path = f"{folder}/python-{label}.tar"
        names = [x for x in sorted(os.listdir(tree)) if label != "ustar" or len(x) < 100 and x not in ("link-300", "dir", "plain", "hard")]
        with tarfile.open(path, "w", format=form) as tar:
            for name in names:
                tar.add(os.path.join(tree, name), name)
        found.append(("python-" + label, path))
    for part in (torture_image.base, torture_image.names, torture_image.metadata, torture_image.attributes, torture_image.sparse,
                 torture_image.for_tar_alone, torture_image.second):
        path = f"{folder}/torture-{part.__name__}.tar"
        with open(path, "wb") as out:
            tar = torture_image.Tar(out)
            part(tar)
            tar.end()
        found.append(("torture-" + part.__name__, path))
    return found


def reseal(data, at):
    """Makes the checksum of the header at `at` right."""
    head = bytearray(data[at:at + 512])
    head[148:156] = b" " * 8
    data[at + 148:at + 156] = b"%06o\0 " % sum(head)


def headers_in(data):
    """Offsets of what looks like a header: its checksum is right."""
    found = []
    for at in range(0, len(data) - 511, 512):
        head = bytearray(data[at:at + 512])
        try:
            stored = int(bytes(head[148:156]).split(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            continue
        head[148:156] = b" " * 8
        if stored == sum(head) and any(data[at:at + 100]):
            found.append(at)
    return found


FIELDS = [(0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (329, 8), (345, 155)]
VALUES = [b"\0", b" ", b"\x80" + b"\0" * 6 + b"\1", b"\xff" * 8, b"7" * 11, b"-1", b"0", b"5", b"1", b"2", b"x", b"g", b"L", b"K", b"S", b"3", b"6",
          b"/", b"a/../b", b"00000000010", b"00000001000\0", b"  12", b"12 ", b"8", b"\xff", b"a\0b", b"../x"]


def mutate(data, rng):
    data = bytearray(data)
    headers = headers_in(data)
    for _ in range(rng.randint(1, 3)):
        if len(data) < 1024:
            break
        choice = rng.random()
        if choice < 0.55 and headers:
            at = rng.choice(headers)
            start, width = rng.choice(FIELDS)
            value = rng.choice(VALUES)[:width]
            where = start + (rng.randint(0, width - len(value)) if rng.random() < 0.3 else 0)
            if at + 512 > len(data):
                continue
            data[at + where:at + where + len(value)] = value
            reseal(data, at)
        elif choice < 0.7:
            at = rng.randrange(len(data))
            data[at] = rng.randrange(256)
            if rng.random() < 0.7 and headers:
                inside = [h for h in headers if h <= at < h + 512]
                if inside and inside[0] + 512 <= len(data):
                    reseal(data, inside[0])
        elif choice < 0.8 and len(data) > 2048:
            at = rng.randrange(len(data) // 512) * 512
            del data[at:at + 512]
        elif choice < 0.9:
            at = rng.randrange(len(data) // 512) * 512
            data[at:at] = bytes(512) if rng.random() < 0.4 else data[at:at + 512]
        else:
            del data[rng.randrange(len(data)):]
        headers = [h for h in headers if h + 512 <= len(data)]
    return bytes(data)


def explained(ours, theirs, reader):
    """Why a difference cannot deceive, or None."""
    if ours == theirs:
        return "same"
    if reader.name == "Python" and theirs == ours[:len(theirs)]:
        return "takes a header it cannot read for the end"
    if reader.name == "Python" and len(ours) == len(theirs) and all(map(only_python, ours, theirs)):
        return "takes GNU's times for a prefix of the name, or only type 0 with a slash for a file"
    return None


def only_python(mine, other):
    same = other._replace(name=mine.name) == mine and other.name.endswith(b"/" + mine.name if mine.name else b"")
    return mine == other or same or mine.kind == "dir" and other._replace(kind="dir") == mine


def first_difference(ours, theirs):
    for mine, other in zip(ours, theirs):
        if mine != other:
            return f"{mine}\n    {other}"
    return f"{len(ours)} members, {len(theirs)}"


class Differential:
    def __init__(self, bake, readers, folder):
        self.bake, self.readers, self.folder = bake, readers, folder
        self.counts = collections.Counter()
        self.wrong = []

    def check(self, label, path, well_formed):
        ours = self.bake.list(path)
        self.counts["bake takes" if ours is not None else "bake refuses"] += 1
        if ours is None:
            if well_formed:
                self.wrong.append(f"{label}: the bake refuses it")
            return
        for reader in self.readers:
            theirs = reader.list(path)
            if theirs is None:
                self.counts[reader.name + " refuses"] += 1
                continue
            mine = [x._replace(mtime=None, name=clean(x.name.lstrip())) for x in ours] if reader.name == "GNU tar" else ours
            why = explained(mine, theirs, reader)
            self.counts[f"{reader.name}: {why or 'DIFFERS'}"] += 1
            if why is None:
                self.wrong.append(f"{label}: {reader.name} differs:\n    {first_difference(mine, theirs)}")

    def run(self, mutations, seed):
        archives = corpus(self.folder)
        for label, path in archives:
            self.check(label, path, True)
        print(f"{len(archives)} archives as written: {dict(self.counts)}", flush=True)
        self.counts.clear()
        data = []
        for label, path in archives:
            with open(path, "rb") as file:
                content = file.read()
            if len(content) < 400_000:
                data.append((label, content))
        path = self.folder + "/mutated.tar"
        for number in range(seed, seed + mutations):
            rng = random.Random(number)
            label, content = rng.choice(data)
            with open(path, "wb") as out:
                out.write(mutate(content, rng))
            before = len(self.wrong)
            self.check(f"mutation {number} of {label}", path, False)
            if len(self.wrong) > before and os.environ.get("BUNKER_MUTATIONS_KEPT"):
                shutil.copy(path, os.path.join(os.environ["BUNKER_MUTATIONS_KEPT"], f"{number}.tar"))
        print(f"{mutations} mutations from {seed}: {dict(self.counts)}")


def main():
    mutations = int(os.environ.get("BUNKER_MUTATIONS", "40"))
    seed = int(os.environ.get("BUNKER_MUTATION_SEED", "1"))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        readers = [GnuTar(), Python()]
        go = None
        if shutil.which("go"):
            go = Go(folder)
            readers.append(go)
        else:
            print("SKIPPED: there is no go on the PATH, its archive/tar is left out")
        differential = Differential(Bake(sys.argv[1]), readers, folder)
        differential.run(mutations, seed)
        if go:
            go.close()
    for wrong in differential.wrong[:40]:
        print(wrong)
    print(f"{len(differential.wrong)} unexplained differences")
    return 1 if differential.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
