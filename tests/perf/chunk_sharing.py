#!/usr/bin/python3
"""How much two images on one base share: 512 KiB chunks of the base's file that the other has, too.

usage: chunk_sharing.py [--bin DIR] [--pairs base:python,...]     bakes the images of `r` and compares
       chunk_sharing.py --files BASE BASE_TREE OTHER OTHER_TREE   compares two baked files

For each pair, over the blocks of the base's file that are no holes:
  survive  the share that the other file holds at all, anywhere
  shared   the share that lies in chunks which the other file holds as a whole
  ratio    shared / survive: what the layout made of what there was
and of the other file: how much of its data's address space are holes. Metadata lies behind the data
and is counted apart. Goals: ratio at least 0.90 on two pairs and 0.85 on all, holes at most 5 %.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import make_images
import ways

BLOCK, PAGE_HASHES, HASH = 4096, 128, 32
HOLE = hashlib.sha256(bytes(BLOCK)).digest()
PAIRS = "base:python,python:r,r:cran,cran:cleaned"
JUDGED = ("base:python", "python:r", "cran:cleaned")


class BakedFile:
    """A file's block hashes, from the tree beside it."""

    def __init__(self, path, tree):
        blocks = (os.path.getsize(path) + BLOCK - 1) // BLOCK
        leaves = (blocks + PAGE_HASHES - 1) // PAGE_HASHES
        with open(tree, "rb") as source:
            source.seek(os.path.getsize(tree) - leaves * BLOCK)
            raw = source.read()
        self.hashes = [raw[i * HASH:(i + 1) * HASH] for i in range(blocks)]
        self.first_metadata = first_metadata_block(path)
        self.pages = [raw[i * BLOCK:(i + 1) * BLOCK] for i in range(leaves)]

    def data_pages(self):
        """(number, blocks) of the chunks that hold data and no metadata but the descriptors."""
        for number in range(1, (self.first_metadata + PAGE_HASHES - 1) // PAGE_HASHES):
            first = number * PAGE_HASHES
            yield number, self.hashes[first:min(first + PAGE_HASHES, self.first_metadata)]


def first_metadata_block(path):
    """The root directory comes first of all metadata."""
    done = subprocess.run(["debugfs", "-R", "bmap <2> 0", path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True)
    return int(done.stdout.split()[0])


def compare(base, other):
    there, chunks = set(other.hashes), set(other.pages)
    total = survive = shared = 0
    for number, blocks in base.data_pages():
        data = [x for x in blocks if x != HOLE]
        total += len(data)
        survive += sum(x in there for x in data)
        if base.pages[number] in chunks:
            shared += len(data)
    other_blocks = [x for _, blocks in other.data_pages() for x in blocks]
    holes = sum(x == HOLE for x in other_blocks)
    return {"base_blocks": total, "survive": survive / total, "shared": shared / total,
            "ratio": shared / survive, "holes": holes / max(1, len(other_blocks)),
            "metadata_blocks": len(other.hashes) - other.first_metadata}


def bake_all(arguments, names, folder):
    layout = make_images.ensure("r", arguments.images_folder)
    files = {}
    for name in names:
        out = os.path.join(folder, name)
        ways.bake(os.path.join(arguments.bin, "bunker-agent"), layout, name, out, 8192, tree=out + ".tree")
        files[name] = BakedFile(out, out + ".tree")
    return files


def show(what, found):
    print(f"{what:16} shared {found['shared']:7.1%}   survive {found['survive']:7.1%}   ratio {found['ratio']:6.3f}   "
          f"holes in the other {found['holes']:6.2%}   ({found['base_blocks']} blocks of data in the base)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(make_images.ROOT, "build/release/bin"))
    parser.add_argument("--images-folder", default=os.path.join(make_images.ROOT, "build/perf/images"))
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--files", nargs=4, metavar=("BASE", "TREE", "OTHER", "OTHER_TREE"))
    parser.add_argument("--json")
    arguments = parser.parse_args()
    if arguments.files:
        base, base_tree, other, other_tree = arguments.files
        show("", compare(BakedFile(base, base_tree), BakedFile(other, other_tree)))
        return 0
    pairs = [x.split(":") for x in arguments.pairs.split(",")]
    with tempfile.TemporaryDirectory(prefix="chunks.", dir=os.path.dirname(arguments.images_folder)) as folder:
        files = bake_all(arguments, sorted({x for pair in pairs for x in pair}), folder)
        found = {f"{a}:{b}": compare(files[a], files[b]) for a, b in pairs}
    for pair, figures in found.items():
        show(pair.replace(":", " → "), figures)
    judged = [found[x] for x in JUDGED if x in found]
    good = (all(x["ratio"] >= 0.85 for x in judged) and sum(x["ratio"] >= 0.90 for x in judged) >= min(2, len(judged))
            and all(x["holes"] <= 0.05 for x in judged))
    print("goals met" if good else "goals MISSED", "(judged: " + ", ".join(JUDGED) + ")")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as out:
            json.dump(found, out, indent=1)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
