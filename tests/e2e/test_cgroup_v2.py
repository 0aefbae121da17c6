#!/usr/bin/python3
"""Control groups of version 2, which this machine may not have: the agent's own code for them runs inside one of
our microVMs, whose kernel has, against real controllers (tests/unit/common_proc/cgroup_v2_test.cc)."""

import os
import re
import unittest

from harness import case, images, paths, processes

import oci

FOLDER = "opt/t"


def with_libraries(program):
    """A layer with a program and all that it is linked with."""
    told = processes.run(["ldd", program]).stdout
    layer = oci.TarBuilder().directory("opt").directory(FOLDER)
    for path in [program, *re.findall(r"(?:=> )?(/\S+) \(0x", told)]:
        with open(path, "rb") as source:
            layer.file(f"{FOLDER}/{os.path.basename(path)}", source.read(), mode=0o755)
    return layer.bytes()


class CgroupV2Test(case.ClusterTest):
    AGENT = {"vm": {"template_max": 0}}

    def test_in_a_guest(self):
        program = os.path.join(os.path.dirname(paths.BIN), "tests/cgroup_v2_test")
        self.c.ready_image("cgroups", images.tiny(extra_layers=[with_libraries(program)]))
        bunker = self.c.bunker("cgroups", cpu_millicores=1000, memory_mb=256)["id"]
        controllers = self.c.sh(bunker, "cat /sys/fs/cgroup/cgroup.controllers").split()
        missing = {"cpu", "memory", "pids"} - set(controllers)
        if missing:
            print(f"SKIPPED: the guest's kernel has no controllers {missing}", flush=True)
            self.skipTest(f"the guest's kernel has no controllers {missing}")
        command = [f"/{FOLDER}/ld-linux-x86-64.so.2", "--library-path", f"/{FOLDER}",
                   f"/{FOLDER}/{os.path.basename(program)}", "--gtest_color=no"]
        result = self.c.exec(bunker, command, user="0", timeout_s=120)
        print("\n".join(x for x in result["stdout"].splitlines() if x.startswith(("FIGURE", "[  "))), flush=True)
        self.assertEqual(result["exit_code"], 0, result["stdout"] + result["stderr"])
        self.assertIn("[  PASSED  ] 5 tests.", result["stdout"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
