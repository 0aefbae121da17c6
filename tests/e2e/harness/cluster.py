"""A whole platform of one test's own: registry, controller, agents, and clients to drive it."""

import os
import re
import shutil
import signal
import tempfile
import time

import httpx

from . import configs, paths, processes
from .registry import Registry

MODULE = "/v1/modules/scaibunker"


class Controller:
    def __init__(self, folder, overrides=None):
        self.folder = os.path.join(folder, "controller")
        os.makedirs(self.folder, exist_ok=True)
        self.rest_port, self.grpc_port = processes.free_port(), processes.free_port()
        self.config = os.path.join(self.folder, "controller.toml")
        self.admin_socket = os.path.join(self.folder, "admin.sock")
        self._overrides = overrides or {}
        self.configure({})
        binary = paths.binary("bunker-controller")
        self.daemon = processes.Daemon("bunker-controller", [binary, "--config", self.config],
                                       os.path.join(self.folder, "controller.log"))
        self.host = f"http://127.0.0.1:{self.rest_port}"
        self.key = None

    def configure(self, more):
        """Writes its file anew, with more overrides; for the next start."""
        self._overrides = configs.merged(self._overrides, more)
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(configs.toml(configs.merged(self._sections(), self._overrides)))

    def _sections(self):
        return {
            "state": {"dir": self.folder},
            "rest": {"address": f"127.0.0.1:{self.rest_port}"},
            "grpc": {"address": f"127.0.0.1:{self.grpc_port}"},
            "admin": {"socket": self.admin_socket},
            "metrics": {"address": "127.0.0.1:0"},
        }

    def command(self, *arguments):
        return [paths.binary("bunker-controller"), *arguments, "--config", self.config]

    def init(self):
        done = processes.run(self.command("init"))
        self.key = re.search(r"sgk_[0-9A-Za-z]{43}", done.stdout).group(0)
        return self

    def start(self, seconds=30):
        self.daemon.start()

        def ready():
            self.daemon.check()
            try:
                return httpx.get(self.host + "/ready", timeout=2).status_code == 200
            except httpx.HTTPError:
                return False
        processes.wait_until(ready, "the controller answers /ready: " + self.daemon.log_path, seconds)
        return self

    def join_token(self, worker):
        done = processes.run(self.command("join-token", "--worker", worker))
        return done.stdout.split()[-1]


class Agent:
    count = 0

    def __init__(self, folder, name, controller, registries=(), overrides=None, arrays=None):
        self.name = name
        Agent.count += 1
        self.folder = os.path.join(folder, name)
        os.makedirs(self.folder)
        # Others may pass through it: the bake's child and QEMU run as other users.
        os.chmod(self.folder, 0o711)
        self.state = os.path.join(self.folder, "s")
        self.config = os.path.join(self.folder, "agent.toml")
        sections = {
            "controller": {"address": f"127.0.0.1:{controller.grpc_port}"},
            "worker": {"name": name, "cpu_millicores": 4000, "memory_mb": 4096, "disk_mb": 65536},
            "state": {"dir": self.state},
            "images": {"bake_uid": 64010 + Agent.count},
            # Two agents must not give their VMs the same users.
            "vm": {"kernel": paths.guest_file("vmlinux", "vmlinuz"), "initrd": paths.guest_file("initrd"),
                   "uid_base": 64100 + 50 * Agent.count, "uid_count": 50,
                   # On a host with KVM, deploy/kvm-acceptance asks for that and nothing else.
                   "accelerator": os.environ.get("BUNKER_ACCELERATOR", "auto"),
                   # Of the first image that is ready; more would be boots that no test waits for.
                   "template_max": 2, "pool_max": 0},
        }
        tables = {"images.registry": [{"host": x, "insecure_http": True, "allow_address": True}
                                      for x in registries]}
        tables.update(arrays or {})
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(configs.toml(configs.merged(sections, overrides), tables))
        self.daemon = processes.Daemon("bunker-agent", [paths.binary("bunker-agent"), "--config", self.config],
                                       os.path.join(self.folder, "agent.log"))

    def join(self, token, check=True):
        return processes.run([paths.binary("bunker-agent"), "join", "--config", self.config,
                              "--token", token], check=check)

    def start(self):
        self.daemon.start()
        return self

    def vm_pids(self, templates=False):
        """QEMU processes that hold a socket which this agent bound in its state folder: they see
        no path of the host, so their sockets are what tells whose they are. Those that become
        templates are no bunkers, and are told by their name."""
        ours = processes.sockets_below(self.state + "/")
        found = []
        for pid in processes.processes():
            line = processes.command_line(pid)
            if line and "qemu-system" in line[0] and ours & processes.sockets_of(pid):
                if templates or not any(x.startswith("template.") for x in line):
                    found.append(pid)
        return found

    def template_pids(self):
        """Of the VMs that become templates: a process' name is its folder's."""
        return [x for x in self.vm_pids(templates=True)
                if any(y.startswith("template.") for y in processes.command_line(x) or [])]

    def wait_templates(self, count, seconds=300):
        """Until it has made so many since its log began. They give way to everybody; here nothing is
        to wait for them on a busy machine."""
        def made():
            for pid in self.template_pids():
                for thread in os.listdir(f"/proc/{pid}/task"):
                    try:
                        os.setpriority(os.PRIO_PROCESS, int(thread), 0)
                    except OSError:
                        pass
            return self.daemon.log().count("template.made") >= count
        processes.wait_until(made, f"{count} templates made", seconds, 0.2)

    def guard_pids(self):
        """The guards of its bunkers' networks, told as its VMs are."""
        ours = processes.sockets_below(self.state + "/")
        found = []
        for pid in processes.processes():
            line = processes.command_line(pid)
            if line and line[0] == "bunker-netguard" and ours & processes.sockets_of(pid):
                found.append(pid)
        return found

    def stop(self):
        """Ends the daemon, then the VMs and guards that outlived it, each by its pid, and takes away
        their networks."""
        others = self.vm_pids(templates=True) + self.guard_pids()
        self.daemon.stop()
        for pid in set(others + self.vm_pids(templates=True) + self.guard_pids()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        folders = os.path.join(self.state, "vm")
        for name in os.listdir(folders) if os.path.isdir(folders) else []:
            if os.path.exists(f"/run/netns/bunker-{name}"):
                processes.run(["ip", "netns", "delete", f"bunker-{name}"], check=False)

    def image_files(self):
        root = os.path.join(self.state, "images")
        found = {}
        for recipe in (os.listdir(root) if os.path.isdir(root) else []):
            path = os.path.join(root, recipe, "rootfs.ext4")
            if os.path.exists(path):
                found[recipe] = path
        return found


class Cluster:
    """with Cluster(agents=2) as c: …  Everything lives below one short temporary folder."""

    def __init__(self, agents=1, controller=None, agent=None, agent_arrays=None, registry=True):
        self.folder = tempfile.mkdtemp(prefix="bk")
        os.chmod(self.folder, 0o711)
        self.registry = Registry(self.folder) if registry else None
        self.controller = Controller(self.folder, controller)
        self.agents = []
        self._wanted = [(f"w{i + 1}", agent, agent_arrays) for i in range(agents)]

    def __enter__(self):
        try:
            if self.registry:
                self.registry.start()
            self.controller.init().start()
            for name, overrides, arrays in self._wanted:
                self.add_agent(name, overrides, arrays)
            self.wait_online(len(self._wanted))
        except BaseException:
            self.__exit__(1)
            raise
        return self

    def __exit__(self, failed, *_):
        for agent in self.agents:
            agent.stop()
        self.controller.daemon.stop()
        if self.registry:
            self.registry.stop()
        keep = os.environ.get("BUNKER_KEEP")
        if failed or keep:
            self._print_logs()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _print_logs(self):
        for daemon in [self.controller.daemon] + [x.daemon for x in self.agents]:
            if os.path.exists(daemon.log_path):
                print(f"--- {daemon.log_path} (end)\n{daemon.log()[-6000:]}", flush=True)

    def new_agent(self, name, overrides=None, arrays=None):
        registries = [self.registry.host] if self.registry else []
        agent = Agent(self.folder, name, self.controller, registries, overrides, arrays)
        self.agents.append(agent)
        return agent

    def add_agent(self, name, overrides=None, arrays=None):
        agent = self.new_agent(name, overrides, arrays)
        agent.join(self.controller.join_token(name))
        return agent.start()

    # The REST API.

    def call(self, method, path, body=None, expect=None, headers=None, key=None, seconds=90):
        """One REST call below the module's mount point; returns the httpx answer."""
        header = {"Authorization": f"Bearer {key or self.controller.key}", **(headers or {})}
        answer = httpx.request(method, self.controller.host + MODULE + path, json=body, headers=header,
                               timeout=seconds)
        if expect is not None and answer.status_code != expect:
            raise AssertionError(f"{method} {path}: {answer.status_code}, not {expect}: {answer.text}")
        return answer

    def get(self, path, **more):
        return self.call("GET", path, expect=200, **more).json()["data"]

    def post(self, path, body=None, expect=201, **more):
        return self.call("POST", path, body, expect=expect, **more).json()["data"]

    def error(self, method, path, body=None, **more):
        """(HTTP status, code, message) of a call that must fail."""
        answer = self.call(method, path, body, **more)
        if answer.status_code < 400:
            raise AssertionError(f"{method} {path} succeeded: {answer.text}")
        error = answer.json()["error"]
        return answer.status_code, error["code"], error["message"]

    def ctl(self, *arguments, check=True, seconds=120, **more):
        environment = dict(os.environ, SCAIGRID_HOST=self.controller.host, SCAIGRID_API_KEY=self.controller.key)
        return processes.run([paths.binary("bunkerctl"), *arguments], seconds=seconds, check=check,
                             env=environment, **more)

    # Steps that most tests take.

    def workers(self):
        return {x["name"]: x for x in self.get("/workers")}

    def wait_online(self, count, seconds=30):
        def online():
            for agent in self.agents:
                agent.daemon.check()
            return sum(1 for x in self.workers().values() if x["status"] == "online") >= count
        processes.wait_until(online, f"{count} workers online", seconds)

    def group(self, name="all", workers=None, images=()):
        group = self.post("/availability-groups", {"name": name})
        for worker in workers if workers is not None else self.workers().values():
            self.call("POST", f"/availability-groups/{group['id']}/workers", {"ref": worker["id"]}, expect=200)
        for image in images:
            self.attach(group["id"], image)
        return group["id"]

    def attach(self, group, image):
        self.call("POST", f"/availability-groups/{group}/images", {"ref": image}, expect=200)

    def register(self, name, ref, size_mib=256, **more):
        body = {"name": name, "build_source": {"kind": "oci", "ref": ref}, "size_mib": size_mib,
                "default_cpu_millicores": 500, "default_memory_mb": 256, "default_disk_mb": 128, **more}
        return self.post("/images", body)

    def cache(self, image):
        return self.get(f"/images/{image}/cache")

    def wait_cache(self, image, status="ready", rows=1, seconds=120):
        """Waits until `rows` cache rows have `status`; fails at once on a row that failed."""
        def settled():
            view = self.cache(image)
            if status != "failed" and any(x["status"] == "failed" for x in view):
                raise AssertionError(f"a cache row failed: {view}")
            return view if sum(1 for x in view if x["status"] == status) >= rows else None
        return processes.wait_until(settled, f"{rows} cache rows {status} of {image}", seconds, 0.1)

    def ready_image(self, name="tiny", image=None, seconds=120, **more):
        """Registers an image, puts it into a group with all workers, waits until all have it."""
        from . import images
        ref = self.registry.push(image or images.tiny(), name)
        row = self.register(name, ref, **more)
        self.group("group-of-" + name, images=[row["id"]])
        self.wait_cache(row["id"], rows=len(self.agents), seconds=seconds)
        return self.get(f"/images/{row['id']}")

    def bunker(self, image, seconds=90, **more):
        """Creates a bunker and waits until it runs."""
        return self.until_running(self.post("/bunkers", {"image": image, **more}), seconds)

    def bunker_from(self, snapshot, seconds=90, **more):
        """The same of a snapshot."""
        return self.until_running(self.post("/bunkers", {"snapshot": snapshot, **more}), seconds)

    def until_running(self, row, seconds=90):
        deadline = time.monotonic() + seconds
        while row["status"] in ("pending", "provisioning"):
            if time.monotonic() > deadline:
                raise AssertionError(f"the bunker does not come up: {row}")
            row = self.get(f"/bunkers/{row['id']}?wait_status=running&wait_s=20")
        if row["status"] != "running":
            raise AssertionError(f"the bunker is {row['status']}: {row['status_reason']}")
        return row

    def exec(self, bunker, command, seconds=150, **more):
        return self.post(f"/bunkers/{bunker}/exec", {"command": command, **more}, expect=200, seconds=seconds)

    def sh(self, bunker, script, **more):
        """Runs a shell string that must succeed; returns its standard output."""
        result = self.exec(bunker, script, **more)
        if result["exit_code"] != 0:
            raise AssertionError(f"{script!r} ended with {result}")
        return result["stdout"]

    def shell_environment(self):
        return dict(os.environ, SCAIGRID_HOST=self.controller.host, SCAIGRID_API_KEY=self.controller.key)


