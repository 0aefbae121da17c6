#!/usr/bin/python3
"""The torture image (tests/support/torture_image.py): one digest everywhere, and right in every path.

    torture_test.py BAKE_TOOL CHROOT_PRELOAD

BUNKER_TORTURE_BIG=1 adds the big cases: 200,000 files and 65,100 folders in one folder each, 65,000
names of one file, files beyond 4 GiB. They need some 30 GB of disk and some minutes.
"""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "support"))
import check_truth
import torture_image

# The same on every build type and compiler. A change here is a change of the writer: raise
# kBakeWriterVersion with it, for caches are keyed by that.
GOLDEN = {
    "torture": "fsverity-sha256:738483845493da80e3d845e63fbc55be046d8a4e75553890bca1bcf1ccdbe394",
    "torture-zstd": "fsverity-sha256:738483845493da80e3d845e63fbc55be046d8a4e75553890bca1bcf1ccdbe394",
    "torture-tar": "fsverity-sha256:69b120d4b60754ea153ace1e8d47e3ee75198d1fc3ce7ffb9a722bc5bcacc870",
    "torture-umoci": "fsverity-sha256:f3af891b4531bc8d8920c51e56737f52092f048bcb7de65d19c61ef82dad1bd2",
}

# Where an unpacker is wrong or cannot; the other one decides.
UMOCI_WRONG = {
    "meta/time-y2446": {"mtime": "umoci counts nanoseconds in 64 bits, which end in 2262"},
    "xattr/acl-text": {"xattrs": "umoci does not know SCHILY.acl records"},
    "xattr/empty": {"xattrs": "umoci's tar reader takes an empty value for a record taken back"},
}
TAR_WRONG = {
    "spelled/up": {"missing": "GNU tar makes a folder of each component, even of one that '..' takes back"},
    "xattr/acl": {"xattrs": "GNU tar takes access control lists from its own text records alone"},
    "xattr/acl-long": {"xattrs": "the same"},
    "xattr/acl-default": {"xattrs": "the same"},
}


def sparse_check(limits):
    def on_mount(check, root):
        for path, most in limits.items():
            used = os.lstat(os.path.join(root, os.fsencode(path))).st_blocks * 512
            check.expect(used <= most, f"{path} takes {used} bytes of disk, at most {most}")
    return on_mount


def lookups(check, root):
    """Names that are there and names that are not, by the index: a scan would take minutes."""
    sparse_check(torture_image.BIG_SPARSE)(check, root)
    wide = os.path.join(root, b"wide")
    names = os.listdir(wide)
    start = time.monotonic()
    for name in names:
        os.lstat(os.path.join(wide, name))
    missing = sum(not os.path.lexists(os.path.join(wide, name + b"-not")) for name in names)
    seconds = time.monotonic() - start
    check.expect(len(names) == missing == 200_000 and seconds < 60,
                 f"{len(names)} names found and {missing} not found in one folder in {seconds:.1f} s")
    check.expect(os.lstat(os.path.join(root, b"folders")).st_nlink == 1, "more than 65,000 folders count as 1 link")


def golden(tool, layout, folder):
    failures = 0
    for tag, expected in GOLDEN.items():
        digest = check_truth.bake(tool, layout, tag, os.path.join(folder, tag), 1024)["rootfs_digest"]
        good = digest == expected
        failures += not good
        print(f"{'ok' if good else 'FAILED'}: {tag} {digest}" + ("" if good else f", not {expected}"), flush=True)
        os.unlink(os.path.join(folder, tag))
    return failures


def main():
    tool, preload = sys.argv[1:3]
    big = os.environ.get("BUNKER_TORTURE_BIG") == "1"
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        layout = os.path.join(folder, "oci")
        torture_image.write(layout, big)
        failures += golden(tool, layout, folder)
        runs = [("torture", {"umoci_wrong": UMOCI_WRONG, "tar_wrong": TAR_WRONG,
                             "on_mount": sparse_check(torture_image.SPARSE)}),
                ("torture-tar", {"oracles": ("tar",), "on_mount": sparse_check(torture_image.GNU_SPARSE)}),
                ("torture-umoci", {"oracles": ("umoci",), "umoci_wrong": UMOCI_WRONG})]
        if big:
            runs.append(("big", {"on_mount": lookups}))
        try:
            for tag, options in runs:
                check = check_truth.Check(tool, preload, layout, tag)
                check.run(**options)
                failures += len(check.failures)
        except check_truth.LoopMountsImpossible as why:
            print(f"SKIPPED: loop mounts are impossible here; digests were checked, paths were not: {why}")
            return 1 if failures else check_truth.SKIPPED
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
