#!/usr/bin/python3
"""Writes small OCI layouts for tests: oci_layout.py DIR [options]

  --layer FORM:NAME=TEXT[,NAME=TEXT...]   FORM is tar, gzip or zstd (zstd needs the zstd program);
                                          TEXT may be @N for N bytes that do not compress
  --arch ARCH        of the config and, with --index, of the manifest's platform; default amd64
  --index            put an image index (ARCH and an s390x sibling) above the manifest
  --docker           Docker schema 2 media types
  --media-type TYPE  of the last layer, whatever it is
  --url URL          foreign URL on the last layer
  --seed N           of what @N bytes are drawn from

Prints one JSON object: manifest, index, config, and the layers' digests and sizes.
"""
import argparse, gzip, hashlib, io, json, os, random, subprocess, tarfile

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."


def blob(root, data):
    digest = hashlib.sha256(data).hexdigest()
    path = os.path.join(root, "blobs", "sha256", digest)
    with open(path, "wb") as out:
        out.write(data)
    return "sha256:" + digest, len(data)


def tar_of(members, rng):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in members:
            data = rng.randbytes(int(text[1:])) if text.startswith("@") else text.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o644, 1700000000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def compress(form, data):
    if form == "gzip":
        return gzip.compress(data, mtime=0)
    if form == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE,
                              check=True).stdout
    return data


def layer_type(form, docker):
    suffix = {"tar": "", "gzip": ".gzip" if docker else "+gzip",
              "zstd": ".zstd" if docker else "+zstd"}[form]
    return (DOCKER + "image.rootfs.diff.tar" if docker else OCI + "layer.v1.tar") + suffix


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--layer", action="append", default=[])
    parser.add_argument("--arch", default="amd64")
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--media-type")
    parser.add_argument("--url")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    os.makedirs(os.path.join(args.dir, "blobs", "sha256"))
    layers, diff_ids, shown = [], [], []
    for spec in args.layer:
        form, _, members = spec.partition(":")
        tar = tar_of([m.split("=", 1) for m in members.split(",") if m], rng)
        digest, size = blob(args.dir, compress(form, tar))
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        layers.append({"mediaType": layer_type(form, args.docker), "digest": digest, "size": size})
        shown.append({"digest": digest, "size": size, "diff_id": diff_ids[-1]})
    if args.media_type:
        layers[-1]["mediaType"] = args.media_type
    if args.url:
        layers[-1]["urls"] = [args.url]
    config = {"architecture": args.arch, "os": "linux",
              "config": {"Env": ["PATH=/usr/bin:/bin", "GREETING=hello"], "Cmd": ["-c", "true"],
                         "Entrypoint": ["/bin/sh"], "WorkingDir": "/srv", "User": "1000:1000",
                         "ExposedPorts": {"8080/tcp": {}}},
              "rootfs": {"type": "layers", "diff_ids": diff_ids},
              "history": [{"created_by": "test"} for _ in diff_ids]}
    config_digest, config_size = blob(args.dir, json.dumps(config).encode())
    manifest_type = (DOCKER + "distribution.manifest.v2+json" if args.docker
                     else OCI + "manifest.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": manifest_type,
                "config": {"mediaType": DOCKER + "container.image.v1+json" if args.docker
                           else OCI + "config.v1+json",
                           "digest": config_digest, "size": config_size},
                "layers": layers}
    digest, size = blob(args.dir, json.dumps(manifest).encode())
    top = {"mediaType": manifest_type, "digest": digest, "size": size}
    index_digest = ""
    if args.index:
        sibling = json.dumps({"schemaVersion": 2, "mediaType": manifest_type,
                              "config": manifest["config"], "layers": []}).encode()
        other, other_size = blob(args.dir, sibling)
        index_type = (DOCKER + "distribution.manifest.list.v2+json" if args.docker
                      else OCI + "index.v1+json")
        index = {"schemaVersion": 2, "mediaType": index_type, "manifests": [
            {"mediaType": manifest_type, "digest": other, "size": other_size,
             "platform": {"os": "linux", "architecture": "s390x"}},
            dict(top, platform={"os": "linux", "architecture": args.arch})]}
        index_digest, index_size = blob(args.dir, json.dumps(index).encode())
        top = {"mediaType": index_type, "digest": index_digest, "size": index_size}
    top["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    for name, content in (("oci-layout", {"imageLayoutVersion": "1.0.0"}),
                          ("index.json", {"schemaVersion": 2, "manifests": [top]})):
        with open(os.path.join(args.dir, name), "w") as out:
            json.dump(content, out)
    print(json.dumps({"manifest": digest, "index": index_digest, "config": config_digest,
                      "layers": shown}))


if __name__ == "__main__":
    main()
