"""A docker-registry of one test's own, and a pusher that accepts images no honest tool would push."""

import hashlib
import json
import os

import httpx

from . import paths, processes


class Registry:
    def __init__(self, folder, htpasswd=None, certificate=None, key=None, extra=""):
        self.folder = os.path.join(folder, "registry")
        self.port = processes.free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.secure = certificate is not None
        os.makedirs(os.path.join(self.folder, "data"))
        binary = processes.run([os.path.join(paths.ROOT, "deploy/lib/registry-binary"),
                                os.path.join(paths.ROOT, "build/registry")]).stdout.strip()
        config = os.path.join(self.folder, "config.yml")
        with open(config, "w", encoding="utf-8") as out:
            out.write("version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: false\n"
                      f"storage:\n  filesystem:\n    rootdirectory: {self.folder}/data\n"
                      f"http:\n  addr: {self.host}\n")
            if certificate:
                out.write(f"  tls:\n    certificate: {certificate}\n    key: {key}\n")
            if htpasswd:
                out.write(f"auth:\n  htpasswd:\n    realm: test\n    path: {htpasswd}\n")
            out.write(extra)
        self.daemon = processes.Daemon("registry", [binary, "serve", config],
                                       os.path.join(self.folder, "registry.log"))

    def start(self):
        self.daemon.start()
        processes.wait_until(lambda: processes.tcp_open(self.port), "the registry listens")
        return self

    def stop(self):
        self.daemon.stop()

    def ref(self, repository, tag="latest"):
        return f"{self.host}/{repository}:{tag}"

    def _client(self):
        scheme = "https" if self.secure else "http"
        return httpx.Client(base_url=f"{scheme}://{self.host}", timeout=60, verify=False)

    def _put_blob(self, client, repository, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if client.head(f"/v2/{repository}/blobs/{digest}").status_code == 200:
            return
        begun = client.post(f"/v2/{repository}/blobs/uploads/")
        begun.raise_for_status()
        location = begun.headers["location"]
        separator = "&" if "?" in location else "?"
        client.put(f"{location}{separator}digest={digest}", content=data,
                   headers={"Content-Type": "application/octet-stream"}).raise_for_status()

    def push(self, image, repository, tag="latest"):
        """Pushes an oci.Image; returns its ref."""
        with self._client() as client:
            for blob in image.blobs():
                self._put_blob(client, repository, blob)
            self._put_manifest(client, repository, tag, image.manifest,
                               "application/vnd.oci.image.manifest.v1+json")
        return self.ref(repository, tag)

    def push_index(self, images, index, repository, tag="latest"):
        with self._client() as client:
            for image in images:
                for blob in image.blobs():
                    self._put_blob(client, repository, blob)
                self._put_manifest(client, repository, image.digest, image.manifest,
                                   "application/vnd.oci.image.manifest.v1+json")
            self._put_manifest(client, repository, tag, index, "application/vnd.oci.image.index.v1+json")
        return self.ref(repository, tag)

    def _put_manifest(self, client, repository, tag, body, media_type):
        answer = client.put(f"/v2/{repository}/manifests/{tag}", content=body,
                            headers={"Content-Type": media_type})
        if answer.status_code != 201:
            raise AssertionError(f"the registry refused the manifest: {answer.text}")

    def push_layout(self, folder, repository, tag):
        """Puts an OCI layout's first image there as it is, whatever its media types."""
        blobs = os.path.join(folder, "blobs/sha256")
        read = lambda digest: open(os.path.join(blobs, digest.split(":")[1]), "rb").read()
        with open(os.path.join(folder, "index.json"), encoding="utf-8") as source:
            top = json.load(source)["manifests"][0]
        with self._client() as client:
            for name in os.listdir(blobs):
                self._put_blob(client, repository, read("sha256:" + name))
            for entry in json.loads(read(top["digest"])).get("manifests", []):
                self._put_manifest(client, repository, entry["digest"], read(entry["digest"]), entry["mediaType"])
            self._put_manifest(client, repository, tag, read(top["digest"]), top["mediaType"])
        return self.ref(repository, tag)

    def blob_path(self, digest):
        """The file behind a blob: a test may damage it."""
        name = digest.split(":")[1]
        return os.path.join(self.folder, "data/docker/registry/v2/blobs/sha256", name[:2], name, "data")

    def requests(self, path):
        """How many access-log lines name a GET of `path`."""
        needle = f'"GET {path} '
        return sum(1 for line in self.daemon.log().splitlines() if needle in line)

    def blob_requests(self, repository, digest):
        return self.requests(f"/v2/{repository}/blobs/{digest}")
