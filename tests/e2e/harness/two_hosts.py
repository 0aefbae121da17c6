"""Two hosts of one network, as network namespaces: the client (10.77.0.1, whose names come from a
resolver of the test's) and the server (10.77.0.2). For tests of which addresses a client may reach."""

import json
import os
import subprocess

from . import paths, processes

CLIENT, SERVER, METADATA = "10.77.0.1", "10.77.0.2", "169.254.169.254"


class TwoHosts:
    def __init__(self, folder):
        self.folder = folder
        self.children = []

    def __enter__(self):
        try:
            return self._build()
        except BaseException:
            self.__exit__()
            raise

    def _build(self):
        self.server = self._space(["unshare", "-n"])
        self.client = self._space(["unshare", "-n", "-m", "--propagation", "private"])
        ip = lambda pid, *words: self.run(pid, ["ip", *words])
        ip(self.client, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", str(self.server))
        for pid, link, address in ((self.client, "v0", CLIENT), (self.server, "v1", SERVER)):
            ip(pid, "address", "add", address + "/24", "dev", link)
            ip(pid, "link", "set", "lo", "up")
            ip(pid, "link", "set", link, "up")
        # Somebody's metadata service, within reach of a client that would go there.
        ip(self.server, "address", "add", METADATA + "/32", "dev", "v1")
        ip(self.client, "route", "add", METADATA + "/32", "dev", "v0")
        # Addresses that the client's kernel takes for its own though no interface has them.
        ip(self.client, "route", "add", "local", "10.88.0.0/24", "dev", "lo")
        resolver = os.path.join(self.folder, "resolv.conf")
        with open(resolver, "w", encoding="ascii") as out:
            out.write(f"nameserver {SERVER}\noptions timeout:2 attempts:1\n")
        self.run(self.client, ["mount", "--bind", resolver, os.path.realpath("/etc/resolv.conf")])
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.kill()
            child.wait(10)

    def _space(self, argv):
        """A process that holds namespaces of its own; they end with it."""
        child = subprocess.Popen([*argv, "sh", "-c", "echo in; exec sleep 600"], stdout=subprocess.PIPE)
        self.children.append(child)
        assert child.stdout.readline() == b"in\n"
        return child.pid

    @staticmethod
    def inside(pid, argv):
        return ["nsenter", "-t", str(pid), "-n", "-m", *argv]

    def run(self, pid, argv):
        return processes.run(self.inside(pid, argv))

    def start(self, pid, script, *options):
        """A script of tests/support in a namespace; returns once it has printed its first line."""
        child = subprocess.Popen(self.inside(pid, ["/usr/bin/python3", os.path.join(
            paths.ROOT, "tests/support", script), *options]), stdout=subprocess.PIPE)
        self.children.append(child)
        assert child.stdout.readline(), script

    def names(self, answers):
        """Starts the resolver. answers: {name: [[address, …], …]}, a list for each time it is asked;
        the last stays."""
        path = os.path.join(self.folder, "names.json")
        with open(path, "w", encoding="ascii") as out:
            json.dump(answers, out)
        self.start(self.server, "flipping_resolver.py", SERVER, path,
                   os.path.join(self.folder, "names.log"))

    def asked(self, name):
        """How often the resolver was asked for an address of `name`."""
        try:
            with open(os.path.join(self.folder, "names.log"), encoding="ascii") as source:
                return sum(1 for line in source if line.strip() == name)
        except FileNotFoundError:
            return 0
