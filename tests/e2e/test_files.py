#!/usr/bin/python3
"""Files of a bunker over REST: bytes there and back, rows, folders, moving, and what goes wrong.

BUNKER_FILES_MB=3072 takes the long way: files of that size, dense and sparse."""

import hashlib
import http.client
import io
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse

import httpx

from harness import case, events, processes

BIG_MB = int(os.environ.get("BUNKER_FILES_MB", "48"))


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return int(next(x for x in status if x.startswith("VmRSS:")).split()[1])


class FilesTest(case.ClusterTest):
    @classmethod
    def prepare(cls):
        cls.image = cls.c.ready_image()
        cls.bunker = cls.c.bunker("tiny", disk_mb=BIG_MB * 3 + 256)["id"]
        cls.base = f"{cls.c.controller.host}/v1/modules/scaibunker/bunkers/{cls.bunker}/files"
        cls.headers = {"Authorization": f"Bearer {cls.c.controller.key}"}
        cls.client = httpx.Client(headers=cls.headers, timeout=300)

    def put(self, path, content, expect=200, **params):
        answer = self.client.put(self.base, params={"path": path, **params}, content=content)
        self.assertEqual(answer.status_code, expect, answer.text)
        return answer.json().get("data") or answer.json()["error"]

    def get(self, path, expect=200, **params):
        answer = self.client.get(self.base, params={"path": path, **params})
        self.assertEqual(answer.status_code, expect, answer.text[:500])
        return answer

    def stat(self, path):
        return self.get(path, stat="true").json()["data"]

    def delete(self, path, expect=200, **params):
        answer = self.client.delete(self.base, params={"path": path, **params})
        self.assertEqual(answer.status_code, expect, answer.text)
        return answer.json()

    def post(self, what, body, expect=200):
        answer = self.client.post(f"{self.base}/{what}", json=body)
        self.assertEqual(answer.status_code, expect, answer.text)
        return answer.json().get("data") or answer.json()["error"]

    def code(self, answer):
        return answer.json()["error"]["code"]

    def folder(self, name):
        path = f"/root/{name}"
        self.c.sh(self.bunker, f"mkdir -p {path}")
        return path

    def hidden(self, folder):
        return self.c.sh(self.bunker, f"ls -A {folder} | grep '^.bunker-' || true").split()

    def test_bytes_there_and_back(self):
        for size in (0, 1, 4095, 4096, 65536, 65537, 1_000_003):
            data = os.urandom(size)
            row = self.put("/root/data", data)
            self.assertEqual((row["size"], row["type"], row["mode"], row["path"]),
                             (size, "file", "0644", "/root/data"))
            answer = self.get("/root/data")
            self.assertEqual(answer.content, data)
            self.assertEqual(answer.headers["content-length"], str(size))
            told = self.c.sh(self.bunker, "sha256sum /root/data").split()[0]
            self.assertEqual(told, hashlib.sha256(data).hexdigest())

    def test_names_of_all_kinds(self):
        folder = self.folder("names")
        for name in ("two words", "ünïcødé-日本", "new\nline", "100%", "%2e%2e", "a+b&c=d", "quote'\"", "-rf", "#?;"):
            path = f"{folder}/{name}"
            self.put(path, name.encode())
            self.assertEqual(self.get(path).content, name.encode())
            self.assertEqual(self.stat(path)["name"], name)
        listed = [x["name"] for x in self.get(folder).json()["data"]]
        self.assertEqual(len(listed), 9)
        self.assertEqual(listed, sorted(listed, key=lambda x: x.encode()))

    def test_mode_owner_and_replacement(self):
        folder = self.folder("modes")
        self.assertEqual(self.put(f"{folder}/run", b"#!/bin/sh\necho ran\n", mode="0755")["mode"], "0755")
        self.assertEqual(self.c.sh(self.bunker, f"{folder}/run"), "ran\n")
        # A new content keeps what the old file had.
        self.c.sh(self.bunker, f"chown 1234:1235 {folder}/run")
        row = self.put(f"{folder}/run", b"#!/bin/sh\necho again\n")
        self.assertEqual((row["mode"], row["uid"], row["gid"]), ("0755", 1234, 1235))
        for wrong in ("9", "8888", "77777", "rw", ""):
            self.put(f"{folder}/run", b"x", expect=422, mode=wrong)

    def test_symbolic_links_lead_inside(self):
        folder = self.folder("links")
        self.c.sh(self.bunker, f"cd {folder} && echo old > real && ln -s real link && ln -s /nowhere/x broken "
                               "&& ln -s ../../../../../../etc/passwd up")
        self.put(f"{folder}/link", b"new")
        self.assertEqual(self.c.sh(self.bunker, f"cat {folder}/real; readlink {folder}/link"), "newreal\n")
        self.put(f"{folder}/broken", b"new", expect=404)
        self.assertEqual(self.get(f"{folder}/up").text, self.c.sh(self.bunker, "cat /etc/passwd"))
        row = self.stat(f"{folder}/link")
        self.assertEqual((row["type"], row["link_target"]), ("symlink", "real"))

    def test_what_is_missing_or_of_another_type(self):
        self.assertEqual(self.code(self.get("/no/such", expect=404)), "PATH_NOT_FOUND")
        self.assertEqual(self.code(self.get("/no/such", expect=404, stat="true")), "PATH_NOT_FOUND")
        self.assertEqual(self.put("/no/such/file", b"x", expect=404)["code"], "PATH_NOT_FOUND")
        self.assertEqual(self.put("/etc", b"x", expect=422)["code"], "VALIDATION_ERROR")
        self.assertEqual(self.put("/etc/passwd/x", b"x", expect=422)["code"], "VALIDATION_ERROR")
        self.put("/dev/null", b"x", expect=422)
        self.get("/dev/null", expect=422)
        self.put("relative", b"x", expect=422)
        self.put("", b"x", expect=422)
        self.c.sh(self.bunker, "mkfifo /root/pipe")
        self.get("/root/pipe", expect=422)
        self.assertIn("root", self.get("/proc/mounts").text + "root")
        self.assertTrue(self.get("/proc/version").text.startswith("Linux"))

    def test_folders_are_listed_in_pages(self):
        folder = self.folder("many")
        self.c.sh(self.bunker, f"cd {folder} && i=1000; while [ $i -lt 1120 ]; do : > f$i; i=$((i+1)); done")
        first = self.get(folder).json()
        self.assertEqual((len(first["data"]), first["has_more"]), (50, True))
        names, cursor = [x["name"] for x in first["data"]], first["next_cursor"]
        while cursor:
            page = self.get(folder, cursor=cursor, limit=40).json()
            names += [x["name"] for x in page["data"]]
            cursor = page["next_cursor"]
        self.assertEqual(names, [f"f{i}" for i in range(1000, 1120)])
        self.get("/root", expect=422, cursor=first["next_cursor"])

    def test_folders_are_made_moved_and_removed(self):
        top = self.folder("tree")
        self.assertEqual(self.post("mkdir", {"path": f"{top}/a/b/c"}, expect=404)["code"], "PATH_NOT_FOUND")
        row = self.post("mkdir", {"path": f"{top}/a/b/c", "parents": True, "mode": "0710"})
        self.assertEqual((row["type"], row["mode"]), ("folder", "0710"))
        self.post("mkdir", {"path": f"{top}/a/b/c", "parents": True})
        self.assertEqual(self.post("mkdir", {"path": f"{top}/a"}, expect=409)["code"], "RESOURCE_IN_USE")
        self.put(f"{top}/a/b/c/file", b"1")
        self.post("move", {"from": f"{top}/a", "to": f"{top}/z"})
        self.assertEqual(self.get(f"{top}/z/b/c/file").content, b"1")
        self.put(f"{top}/other", b"2")
        self.post("move", {"from": f"{top}/other", "to": f"{top}/z/b/c/file"}, expect=409)
        self.post("move", {"from": f"{top}/other", "to": f"{top}/z/b/c/file", "overwrite": True})
        self.assertEqual(self.get(f"{top}/z/b/c/file").content, b"2")
        # A folder of the image, and to another file system: both need a copy.
        self.post("move", {"from": f"{top}/z", "to": "/dev/shm/z"})
        self.assertEqual(self.get("/dev/shm/z/b/c/file").content, b"2")
        self.assertEqual(self.stat("/dev/shm/z/b/c")["mode"], "0710")
        self.get(f"{top}/z", expect=404)
        self.assertEqual(self.delete("/dev/shm/z", expect=409)["error"]["code"], "RESOURCE_IN_USE")
        self.assertEqual(self.delete("/dev/shm/z", recursive="true")["data"]["removed"], 4)
        self.assertEqual(self.delete("/dev/shm/z", expect=404)["error"]["code"], "PATH_NOT_FOUND")
        for path in ("/", "/root/..", "/root/."):
            self.delete(path, expect=422, recursive="true")
        self.c.sh(self.bunker, f"mkdir {top}/keep && echo x > {top}/keep/x && ln -s {top}/keep {top}/link")
        self.delete(f"{top}/link", recursive="true")
        self.assertEqual(self.get(f"{top}/keep/x").content, b"x\n")

    def test_a_full_disk_leaves_nothing_behind(self):
        small = self.c.bunker("tiny", disk_mb=64)["id"]
        base = self.base.replace(self.bunker, small)

        def chunks():
            for _ in range(1200):
                yield os.urandom(65536)
        try:
            told = self.client.put(base, params={"path": "/root/big"}, content=chunks())
            self.assertEqual((told.status_code, self.code(told)), (507, "DISK_FULL"))
        except httpx.WriteError:
            pass  # this client would not read the answer while it sends
        known = self.client.put(base, params={"path": "/root/big"}, content=b"",
                                headers={"Content-Length": "0"})
        self.assertEqual(known.status_code, 200)
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as huge:
            huge.truncate(900_000_000)
            done = subprocess.run(["curl", "-sS", "-H", f"Authorization: {self.headers['Authorization']}", "--max-time",
                                   "60", "-T", huge.name, f"{base}?path=/root/huge"], capture_output=True, check=False)
        self.assertIn(b"DISK_FULL", done.stdout, done)
        processes.wait_until(lambda: not self.c.sh(small, "ls -A /root | grep '^.bunker-' || true").split(),
                             "the temporary file is gone", 20)
        self.c.call("DELETE", f"/bunkers/{small}", expect=200)

    def half_an_upload(self, path, size=10_000_000, sent=2_000_000):
        url = urllib.parse.urlsplit(self.base)
        connection = socket.create_connection((url.hostname, url.port))
        query = urllib.parse.urlencode({"path": path})
        head = (f"PUT {url.path}?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: {self.headers['Authorization']}\r\n"
                f"Content-Length: {size}\r\n\r\n")
        connection.sendall(head.encode() + b"x" * sent)
        return connection

    def test_an_upload_that_breaks_off_is_never_seen(self):
        folder = self.folder("broken")
        self.put(f"{folder}/file", b"old")
        for reset in (False, True):
            connection = self.half_an_upload(f"{folder}/file")
            processes.wait_until(lambda: self.hidden(folder), "the upload has begun", 20)
            self.assertEqual(self.get(f"{folder}/file").content, b"old")
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            processes.wait_until(lambda: not self.hidden(folder), "the temporary file is gone", 20)
            self.assertEqual(self.get(f"{folder}/file").content, b"old")
        self.assertEqual(self.c.sh(self.bunker, f"ls -A {folder}"), "file\n")

    def test_chunked_and_short_bodies(self):
        folder = self.folder("chunked")
        data = [os.urandom(n) for n in (1, 7, 65536, 3, 200_000)]
        row = self.put(f"{folder}/file", iter(data))
        self.assertEqual(row["size"], sum(map(len, data)))
        self.assertEqual(self.get(f"{folder}/file").content, b"".join(data))
        many = [b"%d\n" % i for i in range(20_000)]
        self.put(f"{folder}/lines", iter(many))
        self.assertEqual(self.get(f"{folder}/lines").content, b"".join(many))

    def tar_of(self, members):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as out:
            for info, data in members:
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
        return packed.getvalue()

    def member(self, name, data=b"", kind=tarfile.REGTYPE, link="", mode=0o644):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1_700_000_000
        return info, data

    def test_a_folder_as_tar_there_and_back(self):
        folder = self.folder("tar")
        long_name = "d" * 90 + "/" + "f" * 150
        members = [self.member("sub", kind=tarfile.DIRTYPE, mode=0o751), self.member("sub/a", b"A" * 70_000, mode=0o755),
                   self.member("empty"), self.member(long_name, b"long"), self.member("ünï\n", b"u"),
                   self.member("link", kind=tarfile.SYMTYPE, link="sub/a"),
                   self.member("hard", kind=tarfile.LNKTYPE, link="sub/a")]
        row = self.put(f"{folder}/in", self.tar_of(members), archive="tar")
        self.assertEqual(row["type"], "folder")
        told = self.c.sh(self.bunker, f"cd {folder}/in && stat -c '%a %n' sub sub/a && readlink link && "
                                      "stat -c %h hard && wc -c < sub/a && stat -c %Y empty")
        self.assertEqual(told, "751 sub\n755 sub/a\nsub/a\n2\n70000\n1700000000\n")
        packed = self.get(f"{folder}/in", archive="tar")
        self.assertEqual(packed.headers["content-type"], "application/x-tar")
        with tarfile.open(fileobj=io.BytesIO(packed.content)) as back:
            names = {x.name: x for x in back.getmembers()}
            self.assertEqual(set(names), {"sub", "sub/a", "empty", "d" * 90, long_name, "ünï\n", "link", "hard"})
            self.assertEqual(back.extractfile(long_name).read(), b"long")
            self.assertEqual(names["sub"].mode, 0o751)
            self.assertEqual(sorted([names["sub/a"].type, names["hard"].type]), [tarfile.REGTYPE, tarfile.LNKTYPE])
        listed = subprocess.run(["tar", "-tf", "-"], input=packed.content, capture_output=True, check=True)
        self.assertEqual(len(listed.stdout.splitlines()), 8)
        self.get(f"{folder}/in/empty", expect=422, archive="tar")

    def test_a_tar_that_leads_out_is_refused(self):
        folder = self.folder("hostile")
        self.c.sh(self.bunker, f"mkdir {folder}/out && echo safe > {folder}/out/file")
        up = tarfile.SYMTYPE
        cases = [[self.member("../out/file", b"bad")], [self.member("a/../../out/file", b"bad")],
                 [self.member("l", kind=up, link="../out"), self.member("l/file", b"bad")],
                 [self.member("l", kind=up, link=f"{folder}/out"), self.member("l/file", b"bad")],
                 [self.member("h", kind=tarfile.LNKTYPE, link="../out/file"), self.member("h", b"bad")],
                 [self.member("dev", kind=tarfile.CHRTYPE)], [self.member("fifo", kind=tarfile.FIFOTYPE)]]
        for members in cases:
            self.assertEqual(self.put(f"{folder}/in", self.tar_of(members), expect=422, archive="tar")["code"],
                             "VALIDATION_ERROR")
        self.put(f"{folder}/in", b"no tar at all" * 100, expect=422, archive="tar")
        whole = self.tar_of([self.member("half", b"x" * 100_000)])
        self.put(f"{folder}/in", whole[:50_000], expect=422, archive="tar")
        self.assertEqual(self.c.sh(self.bunker, f"cat {folder}/out/file; ls -A {folder}/out"), "safe\nfile\n")
        self.assertEqual(self.c.sh(self.bunker, f"ls -A {folder}/in"), "l\n")
        # Links inside of the folder are fine.
        self.put(f"{folder}/fine", self.tar_of([self.member("real", kind=tarfile.DIRTYPE, mode=0o755),
                                                self.member("to", kind=up, link="real"),
                                                self.member("to/file", b"ok")]), archive="tar")
        self.assertEqual(self.get(f"{folder}/fine/real/file").content, b"ok")

    def test_a_watch_tells_what_changes(self):
        folder = self.folder("watched")
        path = f"/bunkers/{self.bunker}/files/watch?path={folder}"
        with events.EventStream(self.c, path) as watch:
            # Nothing says that it has begun but its head: so one change after the other until one is told.
            processes.wait_until(lambda: self.put(f"{folder}/first", b"") and watch.events, "the first event", 30)
            self.put(f"{folder}/file", b"x")
            self.post("move", {"from": f"{folder}/file", "to": f"{folder}/\"ö\" two\nlines"})
            self.delete(f"{folder}/first")
            self.delete(folder, recursive="true")
            self.assertTrue(watch.ended())
        told = [(name, data["name"]) for _, name, data in watch.events]
        self.assertEqual(told[-1], ("ended", ""))
        for one in (("moved_to", "first"), ("moved_to", "file"), ("moved_from", "file"),
                    ("moved_to", '"ö" two\nlines'), ("removed", "first"), ("removed", '"ö" two\nlines')):
            self.assertIn(one, told)
        moved = {data["cookie"] for _, name, data in watch.events if data["name"] in ("file", '"ö" two\nlines')
                 and name == "moved_from"}
        self.assertIn(next(d["cookie"] for _, n, d in watch.events if (n, d["name"]) == ("moved_to", '"ö" two\nlines')),
                      moved)
        self.get("/no/such", expect=404)
        gone = self.client.get(f"{self.base}/watch", params={"path": folder})
        self.assertEqual((gone.status_code, self.code(gone)), (404, "PATH_NOT_FOUND"))

    def test_two_writers_of_one_path(self):
        folder = self.folder("race")
        contents = [bytes([65 + i]) * 3_000_000 for i in range(4)]
        statuses = []

        def write(content):
            with httpx.Client(headers=self.headers, timeout=120) as client:
                statuses.append(client.put(self.base, params={"path": f"{folder}/one"}, content=content).status_code)
        threads = [threading.Thread(target=write, args=(x,)) for x in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses, [200] * 4)
        self.assertIn(self.get(f"{folder}/one").content, contents)
        self.assertEqual(self.c.sh(self.bunker, f"ls -A {folder}"), "one\n")

    def test_who_lacks_root_has_a_users_rights(self):
        made = self.client.post(f"{self.c.controller.host}/v1/api-keys",
                                json={"name": "no-root", "permissions": ["scaibunker:create", "scaibunker:files"]})
        self.assertEqual(made.status_code, 201, made.text)
        key = made.json()["data"]["key"]
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
            bunker = client.post(self.base.rsplit("/", 2)[0], json={"image": "tiny"}).json()["data"]["id"]
            self.assertEqual(client.post(f"{self.base.replace(self.bunker, bunker)}/mkdir",
                                         json={"path": "/tmp/folder"}).status_code, 200)
            base = self.base.replace(self.bunker, bunker)
            self.assertEqual(client.put(base, params={"path": "/etc/x"}, content=b"x").json()["error"]["code"],
                             "AUTHZ_PERMISSION_DENIED")
            self.assertEqual(client.get(base, params={"path": "/etc/shadow"}).status_code in (403, 404), True)
            self.assertEqual(client.delete(base, params={"path": "/etc/passwd"}).status_code, 403)
            row = client.put(base, params={"path": "/tmp/mine"}, content=b"x").json()["data"]
            self.assertEqual(row["uid"], 1000)

    def test_a_large_file_in_flat_memory(self):
        folder = self.folder("large")
        agent = self.c.agents[0].daemon.pid
        controller = self.c.controller.daemon.pid
        with tempfile.NamedTemporaryFile(dir="/var/tmp") as source, tempfile.NamedTemporaryFile(dir="/var/tmp") as back:
            block = os.urandom(1 << 20)
            digest = hashlib.sha256()
            for i in range(BIG_MB):
                piece = i.to_bytes(8, "little") + block[8:]
                digest.update(piece)
                source.write(piece)
            source.flush()
            self.check_large(source.name, back.name, f"{folder}/dense", digest.hexdigest(), (agent, controller))
            source.truncate(0)
            source.truncate(BIG_MB << 20)
            zeros = hashlib.sha256()
            for _ in range(BIG_MB):
                zeros.update(bytes(1 << 20))
            self.check_large(source.name, back.name, f"{folder}/sparse", zeros.hexdigest(), (agent, controller))
            blocks = int(self.c.sh(self.bunker, f"du -k {folder}/sparse").split()[0])
            self.assertLess(blocks, 1024, "zeros took room")

    def check_large(self, source, back, path, digest, pids):
        before = [rss_kb(x) for x in pids]
        peak = list(before)
        done = threading.Event()

        def watch():
            while not done.wait(0.05):
                for i, pid in enumerate(pids):
                    peak[i] = max(peak[i], rss_kb(pid))
        watcher = threading.Thread(target=watch)
        watcher.start()
        url = f"{self.base}?path={path}"
        auth = ["-H", f"Authorization: {self.headers['Authorization']}"]
        began = time.monotonic()
        subprocess.run(["curl", "-fsS", *auth, "-T", source, url], check=True, capture_output=True)
        put = time.monotonic() - began
        began = time.monotonic()
        subprocess.run(["curl", "-fsS", *auth, "-o", back, url], check=True)
        get = time.monotonic() - began
        done.set()
        watcher.join()
        found = hashlib.sha256()
        with open(back, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                found.update(piece)
        self.assertEqual(found.hexdigest(), digest)
        grown = [p - b for p, b in zip(peak, before)]
        print(f"{path}: put {BIG_MB / put:.0f} MiB/s, get {BIG_MB / get:.0f} MiB/s, grown {grown} KiB")
        for kib in grown:
            self.assertLess(kib, 24 * 1024)

    def test_zz_an_agent_that_dies_leaves_nothing(self):
        folder = self.folder("killed")
        connection = self.half_an_upload(f"{folder}/file")
        processes.wait_until(lambda: self.hidden(folder), "the upload has begun", 20)
        agent = self.c.agents[0]
        agent.daemon.kill9()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        self.assertEqual(answer.status, 503, answer.read())
        connection.close()
        agent.start()

        def is_gone():
            told = self.c.call("POST", f"/bunkers/{self.bunker}/exec", {"command": f"ls -A {folder}"})
            return told.status_code == 200 and told.json()["data"]["stdout"] == ""
        processes.wait_until(is_gone, "the agent is back and the temporary file gone", 60)
        self.get(f"{folder}/file", expect=404)
        self.put(f"{folder}/file", b"after")
        self.assertEqual(self.get(f"{folder}/file").content, b"after")


if __name__ == "__main__":
    unittest.main(verbosity=2)
