#!/usr/bin/python3
"""A registry on loopback that serves one OCI layout and misbehaves on demand.

faulty_registry.py DIR [--auth none|basic|token] [--user U --password P] [--token-life S]

Prints its port on the first line. Every repository name is the same layout; the tag is ignored.
Control, on the same port:
  POST /_fault  {"match": SUBSTRING OF PATH, "kind": KIND, "times": N, ...}   adds a fault
  POST /_clear                                                              removes all
  GET  /_log    the requests so far: path, authorization, range, status, bytes sent
Kinds: status (code, headers, body), cut (at, reset), flip, short, pad, ignore_range, lie_range,
drip, redirect (to), encode, type (value), nodigest, headers (headers).
"""
import argparse, base64, hashlib, json, os, re, socket, struct, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARGS = None
LOCK = threading.Lock()
FAULTS, LOG, TOKENS = [], [], {}


def take_fault(path):
    with LOCK:
        for fault in FAULTS:
            if fault["match"] in path and fault.get("times", 1 << 30) > 0:
                if "times" in fault:
                    fault["times"] -= 1
                return dict(fault)
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def note(self, status, sent):
        with LOCK:
            LOG.append({"path": self.path, "authorization": self.headers.get("Authorization", ""),
                        "range": self.headers.get("Range", ""), "status": status, "sent": sent})

    def answer(self, status, body=b"", headers=()):
        self.note(status, len(body))
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in dict(headers)):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with LOCK:
            if self.path == "/_fault":
                FAULTS.append(json.loads(body))
            elif self.path == "/_clear":
                FAULTS.clear()
                LOG.clear()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def basic_right(self):
        want = base64.b64encode(f"{ARGS.user}:{ARGS.password}".encode()).decode()
        return self.headers.get("Authorization", "") == "Basic " + want

    def signed_in(self):
        if ARGS.auth == "basic":
            return self.basic_right()
        if ARGS.auth == "token":
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            return TOKENS.get(token, 0) > time.monotonic()
        return True

    def challenge(self):
        port = self.server.server_address[1]
        if ARGS.auth == "basic":
            return 'Basic realm="test"'
        repo = self.path.split("/v2/")[1].rsplit("/", 2)[0]
        realm = ARGS.realm or f"http://127.0.0.1:{port}/token"
        return f'Bearer realm="{realm}",service="test",scope="repository:{repo}:pull,push"'

    def give_token(self):
        if ARGS.user and not self.basic_right():
            return self.answer(401, b'{"details":"wrong user or password"}')
        if "scope=repository%3A" not in self.path or "%3Apull" not in self.path:
            return self.answer(400, b'{"details":"bad scope"}')
        token = base64.urlsafe_b64encode(os.urandom(18)).decode()
        TOKENS[token] = time.monotonic() + ARGS.token_life
        self.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def do_GET(self):
        if self.path == "/_log":
            with LOCK:
                body = json.dumps(LOG).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        fault = take_fault(self.path) or {"kind": ""}
        kind = fault["kind"]
        if kind == "status":
            return self.answer(fault["code"], fault.get("body", "").encode(),
                               fault.get("headers", {}))
        if self.path.startswith("/token"):
            return self.give_token()
        if kind == "redirect":
            return self.answer(307, b"", {"Location": fault["to"]})
        if not self.signed_in() and not self.path.startswith("/open/"):
            return self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"sign in"}]}',
                               {"WWW-Authenticate": self.challenge()})
        self.serve(fault)

    def locate(self):
        found = re.search(r"/(manifests|blobs)/(.+)$", self.path)
        if not found:
            return None, None
        kind, name = found.groups()
        media = "application/octet-stream"
        if kind == "manifests":
            with open(os.path.join(ARGS.dir, "index.json")) as listing:
                entry = json.load(listing)["manifests"][0]
            media = entry["mediaType"]
            if not name.startswith("sha256:"):
                name = entry["digest"]
        path = os.path.join(ARGS.dir, "blobs", "sha256", name.removeprefix("sha256:"))
        if not os.path.exists(path):
            return None, None
        with open(path, "rb") as data:
            body = data.read()
        if kind == "manifests":
            media = json.loads(body).get("mediaType", media)
        return body, media

    def serve(self, fault):
        kind = fault["kind"]
        body, media = self.locate()
        if body is None:
            return self.answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}')
        headers = {"Content-Type": fault["value"] if kind == "type" else media,
                   "Docker-Content-Digest": "sha256:" + hashlib.sha256(body).hexdigest()}
        if kind == "nodigest":
            del headers["Docker-Content-Digest"]
        if kind == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
            del headers["Docker-Content-Digest"]
        if kind == "short":
            body = body[:-7]
        if kind == "pad":
            body += b"1234567"
        if kind == "encode":
            headers["Content-Encoding"] = "gzip"
        if kind == "headers":
            headers.update(fault["headers"])
        status, start = 200, 0
        asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if asked and kind != "ignore_range":
            start = int(asked.group(1))
            if start >= len(body):
                return self.answer(416)
            status, total = 206, len(body)
            if kind == "lie_range":
                start = max(0, start - 3)
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            body = body[start:]
        self.send(status, headers, body, fault)

    def send(self, status, headers, body, fault):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = len(body)
        if fault["kind"] == "cut":
            sent = min(len(body), max(0, fault["at"]))
        self.note(status, sent)
        if fault["kind"] == "drip":
            self.drip(body, fault)
            return
        self.wfile.write(body[:sent])
        self.wfile.flush()
        if sent < len(body):
            if fault.get("reset"):
                time.sleep(0.05)  # so that what was sent is not thrown away by the reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                           struct.pack("ii", 1, 0))
            self.close_connection = True

    def drip(self, body, fault):
        for i in range(len(body)):
            try:
                self.wfile.write(body[i:i + 1])
                self.wfile.flush()
            except OSError:
                return
            time.sleep(fault.get("every", 0.2))


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--auth", default="none")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--token-life", type=float, default=300)
    parser.add_argument("--realm", default="")
    ARGS = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
