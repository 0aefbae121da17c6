"""One bunker that takes all it can get, and how long commands take in the one next to it: with and without, in
turns of one run, so that what the machine does besides is in both."""

import http.client
import json
import os
import time

from . import processes

# What the hog runs, as root, until it is killed: each takes what it can of one thing. And what in the hog tells
# that it has.
HOGS = {
    "fork bomb": ("b() { b | b & }; b; while :; do :; done", None),
    "disk filler": ("while :; do head -c 8000000 /dev/zero >> /root/fill || { echo x > /run/full; rm -f /root/fill; }; "
                    "sync; done 2>/dev/null", "test -e /run/full"),
    "memory hog": ("while :; do tail /dev/zero; done", "dmesg | grep -qi 'out of memory'"),
    "console flood": ("while :; do head -c 100000 /dev/zero | tr '\\0' x | od -An -c > /dev/kmsg; "
                      "head -c 1000000 /dev/zero > /dev/console; done 2>/dev/null", "dmesg | grep -q 'x   x   x   x'"),
}


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_kib(pid):
    return int(processes.status_of(pid)["VmRSS"].split()[0])


class Timed:
    """Commands in one bunker over one kept-alive connection."""

    def __init__(self, cluster, bunker):
        self.path = f"/v1/modules/scaibunker/bunkers/{bunker}/exec"
        self.headers = {"Authorization": "Bearer " + cluster.controller.key, "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection("127.0.0.1", cluster.controller.rest_port, timeout=60)

    def run(self):
        """ms from the request to the whole answer."""
        begun = time.monotonic()
        self.connection.request("POST", self.path, json.dumps({"command": ["/bin/true"]}), self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.monotonic() - begun) * 1000
        if answer.status != 200 or json.loads(text)["data"]["exit_code"] != 0:
            raise AssertionError(f"the neighbour's command: {answer.status} {text[:300]}")
        return took


class Pair:
    """A hog and its neighbour on one worker, half a CPU each."""

    def __init__(self, cluster, image):
        self.c = cluster
        self.agent = cluster.agents[0]
        self.vms, self.bunkers = {}, {}
        for name in ("neighbour", "hog"):
            before = set(self.agent.vm_pids())
            self.bunkers[name] = cluster.bunker(image, cpu_millicores=500, memory_mb=128, disk_mb=128)["id"]
            (self.vms[name],) = set(self.agent.vm_pids()) - before
        self.timed = Timed(cluster, self.bunkers["neighbour"])

    def processes_path(self):
        return f"/bunkers/{self.bunkers['hog']}/processes"

    def start_hog(self, script):
        """Returns its pid in the guest once the VM is at work."""
        before = cpu_seconds(self.vms["hog"])
        pid = self.c.post(self.processes_path(), {"command": script, "user": "0"}, seconds=120)["pid"]
        processes.wait_until(lambda: cpu_seconds(self.vms["hog"]) > before + 0.2, "the hog is at work", 60)
        return pid

    def stop_hog(self, pid):
        """Kills it and all it began; its guest may be too busy to answer at once."""
        def killed():
            answer = self.c.call("POST", f"{self.processes_path()}/{pid}/signal", {"signal": "KILL"}, seconds=60)
            return answer.status_code in (200, 404)
        processes.wait_until(killed, "the hog takes its kill", 90, 0.2)
        processes.wait_until(lambda: self.c.get(f"{self.processes_path()}/{pid}")["status"] == "exited",
                             "the hog has ended", 60, 0.1)

    def measure(self, kind, rounds, each):
        """Times of the neighbour's commands while the hog is idle, and while it is not; turn by turn."""
        script, evidence = HOGS[kind]
        idle, active = [], []
        for _ in range(rounds):
            idle += [self.timed.run() for _ in range(each)]
            pid = self.start_hog(script)
            active += [self.timed.run() for _ in range(each)]
            self.stop_hog(pid)
        if evidence:
            pid = self.start_hog(script)
            processes.wait_until(lambda: self.in_hog(evidence), f"the {kind} did what it is called", 60, 0.2)
            self.stop_hog(pid)
        return idle, active

    def in_hog(self, script):
        answer = self.c.call("POST", f"/bunkers/{self.bunkers['hog']}/exec", {"command": script, "user": "0"})
        return answer.status_code == 200 and answer.json()["data"]["exit_code"] == 0

    def hog_answers(self):
        """Its PID 1 serves on."""
        return self.in_hog("true")
