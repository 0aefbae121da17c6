#!/usr/bin/python3
"""A package is installed inside a bunker of profile `registry`, from the registry that this worker's own
apt uses, under the default list of names; whatever is not on it stays out of reach."""

import ipaddress
import os
import re
import socket
import unittest

from harness import case, images, processes

PACKAGE = "libssl-doc"  # needs no other package


def debian_mirror():
    """(URI, suite) of the smallest suite of this machine's own apt."""
    done = processes.run(["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
                          "Created-By: Packages"])
    rows = [x.split("|") for x in done.stdout.splitlines()]
    found = [x for x in rows if x[1].endswith("-updates") and x[2] == "main" and x[0].startswith("http:")]
    if not found:
        raise unittest.SkipTest("this machine's apt has no -updates suite over http")
    return found[0][0], found[0][1]


def refused_address(host):
    """Where this machine's names lead into a range that no bunker reaches, the operator excepts it."""
    address = socket.gethostbyname(host)
    return [address] if not ipaddress.ip_address(address).is_global else []


class RegistryTest(case.ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.uri, cls.suite = debian_mirror()
        cls.host = re.match(r"http://([^/:]+)", cls.uri).group(1)
        cls.AGENT = {"network": {"egress_allow": refused_address(cls.host)}}
        super().setUpClass()

    @classmethod
    def prepare(cls):
        ref = images.push_debian(cls.c.registry)
        row = cls.c.register("debian", ref, size_mib=1024, default_memory_mb=512, default_disk_mb=1024,
                             default_cpu_millicores=1000)
        cls.c.group("all", images=[row["id"]])
        cls.c.wait_cache(row["id"], seconds=300)

    def test_a_package_is_installed(self):
        bunker = self.c.bunker("debian", network_profile="registry")["id"]
        self.assertRegex(self.c.agents[0].daemon.log(), rf"package_registries.*{re.escape(self.host)}")
        script = (f"set -e; rm -rf /etc/apt/sources.list*; echo 'deb {self.uri} {self.suite} main' "
                  "> /etc/apt/sources.list; apt-get -o Acquire::Languages=none -qq update; "
                  f"DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install {PACKAGE} "
                  f">/dev/null; dpkg-query -W -f '${{Package}} ${{Status}}' {PACKAGE}")
        result = self.c.exec(bunker, script, user="0", timeout_s=240, seconds=260)
        self.assertEqual(result["stdout"], PACKAGE + " install ok installed", result)
        for name in ("example.com", "www." + self.host, "github.com"):
            result = self.c.exec(bunker, ["getent", "hosts", name], user="0")
            self.assertNotEqual(result["exit_code"], 0, name)
        # By address, the name said as it should be: it was handed out, so this works; a lie does not.
        lie = ["python3", "-c", "import http.client as h; c = h.HTTPConnection('%s', 80, timeout=20); "
               "c.request('GET', '/', headers={'Host': 'example.com'}); print(c.getresponse().status)" % self.host]
        self.assertEqual(self.c.exec(bunker, lie, user="0")["stdout"], "403\n")


if __name__ == "__main__":
    unittest.main(verbosity=2)
