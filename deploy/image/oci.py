"""Writes OCI image layouts: layers from tar members, a config, a manifest, an index.

Needs nothing but Python's own library. deploy/image/make-debian-image and the end-to-end tests use it.
"""

import gzip
import hashlib
import io
import json
import os
import tarfile

LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layer:
    """One layer: the blob as it is stored, its media type and the digest of its bare tar."""

    def __init__(self, blob, media_type, diff_id):
        self.blob = blob
        self.media_type = media_type
        self.diff_id = diff_id
        self.digest = digest_of(blob)


def layer_from_tar(tar_bytes, compression="gzip", level=6):
    diff_id = digest_of(tar_bytes)
    if compression == "gzip":
        return Layer(gzip.compress(tar_bytes, level, mtime=0), LAYER_GZIP, diff_id)
    if compression == "none":
        return Layer(tar_bytes, LAYER_TAR, diff_id)
    raise ValueError("compression is gzip or none, not " + compression)


class TarBuilder:
    """Builds a tar in memory, member by member, in the order of the calls."""

    def __init__(self, mtime=1700000000):
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.PAX_FORMAT)
        self._mtime = mtime

    def _info(self, name, kind, mode, uid, gid, mtime=None, pax=None):
        info = tarfile.TarInfo(name)
        info.type = kind
        info.mode = mode
        info.uid, info.gid = uid, gid
        info.mtime = self._mtime if mtime is None else mtime
        info.pax_headers = dict(pax or {})
        return info

    def file(self, name, data=b"", mode=0o644, uid=0, gid=0, **more):
        if isinstance(data, str):
            data = data.encode()
        info = self._info(name, tarfile.REGTYPE, mode, uid, gid, **more)
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        return self

    def directory(self, name, mode=0o755, uid=0, gid=0, **more):
        self._tar.addfile(self._info(name, tarfile.DIRTYPE, mode, uid, gid, **more))
        return self

    def symlink(self, name, target, uid=0, gid=0, **more):
        info = self._info(name, tarfile.SYMTYPE, 0o777, uid, gid, **more)
        info.linkname = target
        self._tar.addfile(info)
        return self

    def hardlink(self, name, target, **more):
        info = self._info(name, tarfile.LNKTYPE, 0o644, 0, 0, **more)
        info.linkname = target
        self._tar.addfile(info)
        return self

    def device(self, name, kind, major, minor, mode=0o600, **more):
        kinds = {"c": tarfile.CHRTYPE, "b": tarfile.BLKTYPE, "p": tarfile.FIFOTYPE}
        info = self._info(name, kinds[kind], mode, 0, 0, **more)
        info.devmajor, info.devminor = major, minor
        self._tar.addfile(info)
        return self

    def whiteout(self, path):
        folder, name = os.path.split(path)
        return self.file(os.path.join(folder, ".wh." + name), mode=0)

    def opaque(self, folder):
        return self.file(os.path.join(folder, ".wh..wh..opq"), mode=0)

    def bytes(self):
        self._tar.close()
        return self._buffer.getvalue()


class Image:
    """An image of layers: its config and manifest as bytes, ready to be written or pushed."""

    def __init__(self, layers, config=None, architecture="amd64", diff_ids=None):
        self.layers = layers
        body = {
            "created": "2023-11-14T22:13:20Z",
            "architecture": architecture,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or [x.diff_id for x in layers]},
            "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "bunker"} for _ in layers],
        }
        self.architecture = architecture
        self.config = json.dumps(body, sort_keys=True).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(self.config, CONFIG),
                "layers": [_descriptor(x.blob, x.media_type) for x in layers],
            },
            sort_keys=True,
        ).encode()
        self.digest = digest_of(self.manifest)

    def blobs(self):
        yield self.config
        for layer in self.layers:
            yield layer.blob

    def descriptor(self):
        result = _descriptor(self.manifest, MANIFEST)
        result["platform"] = {"architecture": self.architecture, "os": "linux"}
        return result


def index_of(images):
    """The bytes of an index (manifest list) over `images`."""
    return json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [x.descriptor() for x in images]},
        sort_keys=True,
    ).encode()


def _descriptor(data, media_type):
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}


def write_layout(folder, image, tag="latest"):
    """Writes `image` as an OCI layout directory with one tag."""
    blobs = os.path.join(folder, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)
    for data in list(image.blobs()) + [image.manifest]:
        with open(os.path.join(blobs, hashlib.sha256(data).hexdigest()), "wb") as out:
            out.write(data)
    entry = image.descriptor()
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    with open(os.path.join(folder, "index.json"), "w", encoding="utf-8") as out:
        json.dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, out)
    with open(os.path.join(folder, "oci-layout"), "w", encoding="utf-8") as out:
        json.dump({"imageLayoutVersion": "1.0.0"}, out)
