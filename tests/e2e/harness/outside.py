"""A network of the test's own around the whole platform: the test runs again in a namespace whose only
way out leads to another one, where tests/support/network_world.py is every address and sees everything
that leaves. Nothing of the machine's own network is touched, and nothing can reach it."""

import json
import os
import subprocess
import sys
import tempfile

from . import paths, processes

HOST, RESOLVER = "198.18.77.1", "198.18.77.2"
MARK = "BUNKER_TEST_OUTSIDE"


def enter(names):
    """Runs this very script again inside; ends with its exit code. Returns only in there."""
    if MARK in os.environ:
        return
    pid = os.getpid()
    host, world = f"bunker-test-{pid}-host", f"bunker-test-{pid}-world"
    code = 1
    with tempfile.TemporaryDirectory(prefix="bko") as folder:
        names_path, log = os.path.join(folder, "names.json"), os.path.join(folder, "log")
        with open(names_path, "w", encoding="ascii") as out:
            json.dump(names, out)
        server = None
        try:
            for name in (host, world):
                run("ip", "netns", "add", name)
            run("ip", "link", "add", "out0", "netns", host, "type", "veth", "peer", "name", "w0", "netns", world)
            for name, link, address in ((host, "out0", HOST), (world, "w0", RESOLVER)):
                run("ip", "-n", name, "address", "add", address + "/24", "dev", link)
                run("ip", "-n", name, "link", "set", "lo", "up")
                run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", host, "route", "add", "default", "via", RESOLVER)
            run("ip", "-n", world, "route", "add", "local", "0.0.0.0/0", "dev", "lo")
            run("ip", "-n", world, "route", "add", "198.18.77.0/24", "dev", "w0", "table", "local")
            run("ip", "netns", "exec", world, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.w0.rp_filter=0")
            resolver = os.path.join(folder, "resolv.conf")
            with open(resolver, "w", encoding="ascii") as out:
                out.write(f"nameserver {RESOLVER}\n")
            server = subprocess.Popen(["ip", "netns", "exec", world, "/usr/bin/python3", os.path.join(
                paths.ROOT, "tests/support/network_world.py"), "w0", names_path, log], stdout=subprocess.PIPE)
            assert server.stdout.readline() == b"ready\n"
            environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
            script = f"mount --bind {resolver} {os.path.realpath('/etc/resolv.conf')} && exec \"$@\""
            code = subprocess.call(
                ["nsenter", f"--net=/run/netns/{host}", "unshare", "-m", "--propagation", "slave", "sh", "-c",
                 script, "sh", sys.executable, *sys.argv], env={**environment, MARK: log})
        finally:
            if server:
                server.kill()
                server.wait(10)
            left = spaces()
            for name in left + [host, world]:
                subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)
    sys.exit(code)


def run(*argv):
    processes.run(list(argv))


def _spaces():
    return {x for x in os.listdir("/run/netns") if x.startswith("bunker-bnk_")} if os.path.isdir("/run/netns") else set()


_SPACES_OF_OTHERS = _spaces()  # what a run that was cut off left


def spaces():
    """The network namespaces of bunkers that came since this test began."""
    return sorted(_spaces() - _SPACES_OF_OTHERS)


def log():
    """All that the world has noted."""
    with open(os.environ[MARK], encoding="utf-8") as source:
        return [json.loads(line) for line in source.read().splitlines()]


def client_hello(name):
    """The first bytes of a TLS client that wants `name` (None: says no name)."""
    import ssl
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
