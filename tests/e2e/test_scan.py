#!/usr/bin/python3
"""Scanning through REST with a real controller and real agents: a Debian image against advisories made
from its packages' own changelogs, the same with one package from the older of two pool versions, the
same by debsecan, and everything that must end in `failed` or `skipped` with its reason."""

import json
import os
import shutil
import tempfile
import time

from harness import advisories, case, debian_rootfs, images, processes
from harness.cluster import Cluster, Controller

import oci

OLDER = "libexpat1"  # in the image, with two versions in the package sources


class ScanTest(case.ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(0)
        folder = cls.cluster.folder
        cls.osv, cls.debsecan = os.path.join(folder, "osv"), os.path.join(folder, "debsecan")
        cls.fixed = advisories.fixed_versions(images.debian_layout())
        advisories.write_all(cls.osv, cls.fixed)
        advisories.write_debsecan(cls.debsecan, cls.fixed)
        for place, _, _ in os.walk(cls.debsecan):
            os.chmod(place, 0o755)
        cls.cluster.controller = Controller(folder, {
            "scan": {"advisories": cls.osv, "interval_s": 1}, "images": {"sweep_interval_s": 1}})
        cls.cluster._wanted = [
            ("w1", None, None),
            ("w2", {"scan": {"scanner": "debsecan", "command": shutil.which("debsecan") or "/usr/bin/debsecan",
                             "source": "file://" + cls.debsecan, "memory_mib": 4096}}, None)]
        cls.c = cls.cluster.__enter__()
        try:
            cls.prepare()
        except BaseException:
            cls.cluster.__exit__(1)
            raise

    @classmethod
    def prepare(cls):
        cls.current = images.push_debian(cls.c.registry)
        work = os.path.join(cls.c.folder, "work")
        os.makedirs(work)
        rootfs = debian_rootfs.unpack(work)
        cls.packages = debian_rootfs.installed(rootfs)
        older = [x for x in debian_rootfs.versions(OLDER) if debian_rootfs.is_older(x, cls.packages[OLDER])]
        cls.older_version = older[0]
        debian_rootfs.install(rootfs, OLDER, cls.older_version, work)
        cls.older = cls.c.registry.push(debian_rootfs.image_of(rootfs), "debian-older")
        shutil.rmtree(work)

    # Steps.

    def registered(self, name, ref, worker=None, **more):
        row = self.c.register(name, ref, size_mib=1024, **more)
        if worker:
            group = self.c.group("group-" + name, workers=[self.c.workers()[worker]], images=[row["id"]])
            self.addCleanup(self.c.call, "DELETE", f"/availability-groups/{group}")
        self.addCleanup(self.c.call, "DELETE", f"/images/{row['id']}")
        return row["id"]

    def scanned(self, image, seconds=120):
        """The row once a scan has ended."""
        def ended():
            row = self.c.get(f"/images/{image}")
            return row if row["scan_status"] != "pending" else None
        return processes.wait_until(ended, f"the scan of {image} ends", seconds, 0.2)

    def findings(self, image):
        rows, cursor = [], ""
        while True:
            page = self.c.call("GET", f"/images/{image}/vulnerabilities?limit=50{cursor}", expect=200).json()
            rows += page["data"]
            if not page["has_more"]:
                return rows
            cursor = "&cursor=" + page["next_cursor"]

    def expected(self):
        """What dpkg's own comparison says of the older image: {CVE} of the one package's source."""
        return {cve for (source, cve), version in self.fixed.items()
                if source == "expat" and debian_rootfs.is_older(self.older_version, version)}

    # Tests.

    def test_fixed_packages_match_nothing(self):
        known = [x for x in self.fixed if x[0] in self.sources()]
        self.assertGreaterEqual(len(known), 200)
        image = self.registered("current", self.current, "w1")
        row = self.scanned(image)
        self.assertEqual(row["scan_status"], "passed", row["scan_summary"])
        self.assertEqual(self.findings(image), [])
        self.assertEqual(row["scan_summary"], f"no known vulnerability in {len(self.packages)} packages")
        print(f"{len(self.fixed)} advisories, {len(known)} of them of sources in the image, "
              f"{len(self.packages)} packages: nothing matches")
        self.check_sbom(image)
        self.check_packages(image)

    def sources(self):
        sbom = self.__dict__.get("_sources")
        if sbom is None:
            image = self.registered("sources", self.current, "w1")
            self.scanned(image)
            document = self.c.get(f"/images/{image}/sbom")
            self._sources = sbom = set()
            for part in document["components"]:
                properties = {x["name"]: x["value"] for x in part.get("properties", [])}
                sbom.add(properties.get("bunker:source_name", part["name"]))
        return sbom

    def check_sbom(self, image):
        document = self.c.get(f"/images/{image}/sbom")
        self.assertEqual((document["bomFormat"], document["specVersion"]), ("CycloneDX", "1.5"))
        listed = {x["name"]: x["version"] for x in document["components"] if x["type"] == "library"}
        self.assertEqual(listed, self.packages)  # as dpkg itself tells it
        [system] = [x for x in document["components"] if x["type"] == "operating-system"]
        self.assertEqual((system["name"], system["version"]), ("debian", "12"))
        [libc] = [x for x in document["components"] if x["name"] == "libc6"]
        self.assertEqual(libc["purl"].split("?")[0],
                         f"pkg:deb/debian/libc6@{self.packages['libc6'].replace('+', '%2B')}")

    def check_packages(self, image):
        rows = self.c.get("/packages?name=libc6")
        self.assertIn((image, "Debian:12", self.packages["libc6"]),
                      [(x["image_id"], x["ecosystem"], x["version"]) for x in rows])
        self.assertNotEqual(self.c.get("/packages?name=libc6&below=99&ecosystem=Debian"), [])
        self.assertEqual(self.c.get("/packages?name=libc6&below=1&ecosystem=Debian"), [])
        self.assertEqual(self.c.get("/packages?name=libc6&ecosystem=PyPI"), [])
        self.assertEqual(self.c.error("GET", "/packages")[:2], (422, "VALIDATION_ERROR"))

    def test_older_package_is_found_and_debsecan_agrees(self):
        wanted = self.expected()
        self.assertNotEqual(wanted, set())
        builtin = self.registered("older-builtin", self.older, "w1")
        external = self.registered("older-debsecan", self.older, "w2")
        found = {}
        for image in (builtin, external):
            row = self.scanned(image)
            self.assertEqual(row["scan_status"], "failed")
            self.assertTrue(row["scan_summary"].startswith(f"{len(wanted)} unknown in "), row["scan_summary"])
            found[image] = {(x["id"], x["package"], x["version"]) for x in self.findings(image)}
        self.assertEqual({x[0] for x in found[builtin]}, wanted)
        self.assertEqual({x[1:] for x in found[builtin]}, {(OLDER, self.older_version)})
        self.assertEqual(found[builtin], found[external])
        print(f"{OLDER} {self.older_version}: {len(wanted)} advisories found by both")
        self.assertEqual(self.c.get(f"/images/{builtin}/vulnerabilities?severity=critical"), [])
        self.assertEqual(len(self.c.get(f"/images/{builtin}/vulnerabilities?severity=unknown")), len(wanted))

    def test_new_advisories_need_no_worker(self):
        image = self.registered("rematched", self.current, "w1")
        self.assertEqual(self.scanned(image)["scan_status"], "passed")
        for agent in self.c.agents:
            agent.daemon.stop()
        try:
            advisories.write_osv(self.osv, advisories.osv(
                "CVE-2099-0001", "zlib", "99:1", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"))
            row = processes.wait_until(lambda: self.failed(image), "the new advisory is found", 60, 0.2)
            self.assertTrue(row["scan_summary"].startswith("1 critical in "), row["scan_summary"])
            [finding] = self.findings(image)
            self.assertEqual((finding["id"], finding["package"], finding["severity"], finding["score"],
                              finding["fixed_version"]), ("CVE-2099-0001", "zlib1g", "critical", 9.8, "99:1"))
            os.unlink(os.path.join(self.osv, "CVE-2099-0001-zlib.json"))
            processes.wait_until(lambda: self.c.get(f"/images/{image}")["scan_status"] == "passed",
                                 "it is gone again", 60, 0.2)
        finally:
            for agent in self.c.agents:
                agent.start()
            self.c.wait_online(2)

    def failed(self, image):
        row = self.c.get(f"/images/{image}")
        return row if row["scan_status"] == "failed" else None

    def test_held_nowhere_is_baked_and_swept(self):
        ref = self.c.registry.push(images.tiny(marker="nowhere"), "nowhere")
        image = self.registered("nowhere", ref)
        row = self.scanned(image)
        self.assertEqual(row["scan_status"], "failed")
        self.assertIn("no package data", row["scan_summary"])
        processes.wait_until(lambda: all(x["status"] == "evicted" for x in self.c.cache(image)),
                             "the file that was made for the scan is swept", 60, 0.2)

    def test_registry_errors_end_in_failed(self):
        image = self.registered("missing", self.c.registry.ref("no/such", "tag"), "w1")
        row = self.scanned(image)
        self.assertEqual(row["scan_status"], "failed")
        self.assertIn("IMAGE_NOT_FOUND", row["scan_summary"])
        self.assertEqual(self.c.error("GET", f"/images/{image}/sbom")[:2], (404, "NOT_FOUND"))

    def test_ecosystem_without_advisories_fails(self):
        ref = self.c.registry.push(images.alpine(), "alpine")
        image = self.registered("alpine", ref, "w1")
        row = self.scanned(image)
        self.assertEqual(row["scan_status"], "failed")
        self.assertIn("no advisories for Alpine:v3.18 (2 packages)", row["scan_summary"])
        advisories.write_osv(self.osv, advisories.osv("ALPINE-1", "busybox", "1.36.1-r6",
                                                      ecosystem="Alpine:v3.18"))
        self.addCleanup(os.unlink, os.path.join(self.osv, "ALPINE-1-busybox.json"))
        processes.wait_until(lambda: "1 unknown in 2 packages" == self.c.get(f"/images/{image}")["scan_summary"],
                             "the advisory is taken in", 60, 0.2)
        [finding] = self.findings(image)
        self.assertEqual((finding["package"], finding["source_name"]), ("busybox-extras", "busybox"))

    def test_python_and_npm(self):
        def add(layer):
            folders = ("opt", "opt/app", "opt/app/left-1.0.dist-info", "opt/app/node_modules",
                       "opt/app/node_modules/@scope", "opt/app/node_modules/@scope/right")
            for folder in folders:
                layer.directory(folder)
            layer.file("opt/app/left-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: Left_Pad\nVersion: 1.0\n\nx\n")
            layer.file("opt/app/node_modules/@scope/right/package.json",
                       json.dumps({"name": "@scope/right", "version": "2.0.0-rc.1"}))
        ref = self.c.registry.push(oci.Image([images.base_layer(add)], images.CONFIG), "languages")
        image = self.registered("languages", ref, "w1")
        row = self.scanned(image)
        self.assertIn("PyPI (1 package), npm (1 package)", row["scan_summary"])
        for record in (advisories.osv("PYSEC-1", "left-pad", "1.0.post1", ecosystem="PyPI"),
                       advisories.osv("GHSA-1", "@scope/right", "2.0.0", ecosystem="npm")):
            advisories.write_osv(self.osv, record, record["id"])
            self.addCleanup(os.unlink, os.path.join(self.osv, record["id"] + ".json"))
        processes.wait_until(lambda: len(self.found_ids(image)) == 2, "both are found", 60, 0.2)
        self.assertEqual({x["purl"] for x in self.findings(image)},
                         {"pkg:pypi/left-pad@1.0", "pkg:npm/%40scope/right@2.0.0-rc.1"})

    def found_ids(self, image):
        answer = self.c.call("GET", f"/images/{image}/vulnerabilities")
        return {x["id"] for x in answer.json()["data"]} if answer.status_code == 200 else set()

    def test_on_demand(self):
        image = self.registered("demand", self.current, "w1")
        first = self.scanned(image)
        row = self.c.post(f"/images/{image}/scan", expect=200)
        self.assertEqual(row["scan_status"], "pending")
        again = self.scanned(image)
        self.assertGreater(again["scanned_at"], first["scanned_at"])
        self.assertEqual(self.c.error("POST", "/images/img_0/scan")[:2], (404, "NOT_FOUND"))

    def test_agent_killed_while_scanning(self):
        image = self.registered("killed", self.current, "w1")
        self.scanned(image)
        agent = self.c.agents[0]
        self.c.post(f"/images/{image}/scan", expect=200)
        time.sleep(0.3)  # somewhere in the scan; wherever it is, it must end well
        agent.daemon.kill9()
        agent.start()
        self.assertEqual(self.scanned(image)["scan_status"], "passed")


class GateTest(case.ClusterTest):
    """A controller without advisories, and with the gate: nothing passes, and nothing starts."""
    CONTROLLER = {"scan": {"interval_s": 1, "gate": "failed"}}
    TAR_ROOT = None

    @classmethod
    def setUpClass(cls):
        cls.TAR_ROOT = tempfile.mkdtemp(prefix="bktar")
        os.chmod(cls.TAR_ROOT, 0o755)
        cls.AGENT = {"images": {"tar_root": cls.TAR_ROOT}}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.TAR_ROOT, ignore_errors=True)

    def ended(self, image):
        return processes.wait_until(lambda: self.row_unless_pending(image), f"the scan of {image} ends", 60, 0.2)

    def row_unless_pending(self, image):
        row = self.c.get(f"/images/{image}")
        return row if row["scan_status"] != "pending" else None

    def test_no_advisories(self):
        image = self.c.ready_image("gated")["id"]
        row = self.ended(image)
        self.assertEqual(row["scan_status"], "failed")
        self.assertIn("configured no advisories", row["scan_summary"])
        status, code, message = self.c.error("POST", "/bunkers", {"image": image})
        self.assertEqual((status, code), (409, "IMAGE_SCAN_FAILED"))
        self.assertIn("configured no advisories", message)

    def test_files_are_skipped(self):
        row = self.c.post("/images", {"name": "file", "size_mib": 64,
                                      "build_source": {"kind": "tar",
                                                       "path": os.path.join(self.TAR_ROOT, "x.tar")}})
        self.assertEqual(self.ended(row["id"])["scan_status"], "skipped")


if __name__ == "__main__":
    case.main()
