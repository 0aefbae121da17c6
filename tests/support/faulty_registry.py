#!/usr/bin/python3
"""A registry that serves one OCI layout, or what is uploaded to it, and misbehaves on demand.

faulty_registry.py DIR [--auth none|basic|token|both] [--user U --password P] [--identity T]
                   [--token-life S] [--realm URL] [--bind ADDRESS] [--port N]
                   [--certificate PEM --key PEM] [--log-file FILE]

Prints its port on the first line. Every repository name is the same layout; a tag is a name in its
index.json, any other one means the first image there. Control, on the same port:
  POST /_fault  {"match": SUBSTRING OF PATH, "kind": KIND, "times": N, ...}   adds a fault
  POST /_clear                                                              removes all
  POST /_put    {"kind": "manifests"|"blobs", "name", "type", "base64"}       a document of its own
  GET  /_log    the requests so far: path, host, authorization, range, status, bytes sent, when,
                how many were being sent then
Kinds: status (code, headers, body), cut (at, reset), flip, short, pad, ignore_range, lie_range,
drip (every, bytes, wrong), redirect (to), encode, gzip, type (value), nodigest, headers (headers),
echo (code), unsized, chunked (extra), endless (bytes), header_lines (count), header_line (bytes),
stall (seconds).
"""
import argparse, base64, gzip, hashlib, json, os, re, socket, ssl, struct, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tcp_queue import wait_until_read

ARGS = None
ACTIVE = 0  # documents and blobs that are being sent
LOCK = threading.Lock()
FAULTS, LOG, TOKENS, DOCUMENTS = [], [], {}, {}


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
    disable_nagle_algorithm = True

    def log_message(self, *unused):
        pass

    def note(self, status, sent):
        entry = {"path": self.path, "host": self.headers.get("Host", ""), "method": self.command,
                 "authorization": self.headers.get("Authorization", ""),
                 "range": self.headers.get("Range", ""), "status": status, "sent": sent,
                 "when": time.monotonic(), "active": ACTIVE}
        with LOCK:
            LOG.append(entry)
            if ARGS.log_file:
                with open(ARGS.log_file, "a", encoding="utf-8") as out:
                    out.write(json.dumps(entry) + "\n")
        return entry

    def answer(self, status, body=b"", headers=()):
        self.note(status, len(body))
        self.plain(status, body, headers)

    def plain(self, status, body=b"", headers=()):
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers)
        self.send_response(status)
        for name, value in pairs:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in pairs):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path.startswith("/token"):
            return self.give_token(urllib.parse.parse_qs(body.decode()))
        with LOCK:
            if self.path == "/_fault":
                FAULTS.append(json.loads(body))
            elif self.path == "/_put":
                put = json.loads(body)
                DOCUMENTS[put["kind"], put["name"]] = (base64.b64decode(put["base64"]), put["type"])
            elif self.path == "/_clear":
                FAULTS.clear()
                LOG.clear()
        self.plain(200)

    def basic_right(self):
        want = base64.b64encode(f"{ARGS.user}:{ARGS.password}".encode()).decode()
        return self.headers.get("Authorization", "") == "Basic " + want

    def signed_in(self):
        if ARGS.auth == "basic":
            return self.basic_right()
        if ARGS.auth in ("token", "both"):
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            return TOKENS.get(token, 0) > time.monotonic()
        return True

    def challenge(self):
        if ARGS.auth == "basic":
            return [("WWW-Authenticate", 'Basic realm="test"')]
        repo = self.path.split("/v2/")[1].rsplit("/", 2)[0]
        scheme = "https" if ARGS.certificate else "http"
        realm = ARGS.realm or f"{scheme}://{self.headers.get('Host')}/token"
        bearer = f'Bearer realm="{realm}",service="test",scope="repository:{repo}:pull,push"'
        lines = [("WWW-Authenticate", bearer)]
        if ARGS.auth == "both":  # each on a line of its own, as some registries send them
            lines.insert(0, ("WWW-Authenticate", 'Basic realm="test"'))
        return lines

    def give_token(self, form=None):
        fault = take_fault(self.path) or {"kind": ""}
        if fault["kind"] == "status":
            return self.answer(fault["code"], fault.get("body", "").encode(), fault.get("headers", {}))
        if fault["kind"] == "redirect":
            return self.answer(307, b"", {"Location": fault["to"]})
        if ARGS.identity:
            if not form or form.get("refresh_token") != [ARGS.identity] or \
                    form.get("grant_type") != ["refresh_token"]:
                return self.answer(401, b'{"details":"wrong identity token"}')
            scope = form.get("scope", [""])[0]
        else:
            if ARGS.user and not self.basic_right():
                return self.answer(401, b'{"details":"wrong user or password"}')
            query = urllib.parse.urlparse(self.path).query
            scope = urllib.parse.parse_qs(query).get("scope", [""])[0]
        if not re.fullmatch(r"repository:[a-z0-9/._-]+:pull", scope):
            return self.answer(400, b'{"details":"bad scope"}')
        token = base64.urlsafe_b64encode(os.urandom(18)).decode()
        TOKENS[token] = time.monotonic() + ARGS.token_life
        key = "access_token" if ARGS.identity else "token"
        self.answer(200, json.dumps({key: token, "expires_in": 300}).encode())

    def do_HEAD(self):
        self.answer(405)

    def do_GET(self):
        global ACTIVE
        if self.path == "/_log":
            with LOCK:
                body = json.dumps(LOG).encode()
            return self.plain(200, body)
        if self.path.startswith("/token"):
            return self.give_token()
        fault = take_fault(self.path) or {"kind": ""}
        kind = fault["kind"]
        if kind == "status":
            return self.answer(fault["code"], fault.get("body", "").encode(),
                               fault.get("headers", {}))
        if kind == "redirect":
            return self.answer(307, b"", {"Location": fault["to"]})
        if not self.signed_in() and not self.path.startswith("/open/"):
            return self.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"sign in"}]}',
                               self.challenge())
        if kind == "echo":
            given = self.headers.get("Authorization", "")
            said = given.split(" ")[-1]
            if given.startswith("Basic "):
                said += " is " + base64.b64decode(said).decode(errors="replace")
            body = {"errors": [{"code": "DENIED", "message": "refused: " + said}]}
            return self.answer(fault.get("code", 403), json.dumps(body).encode())
        if kind == "stall":
            self.note(0, 0)
            time.sleep(fault.get("seconds", 60))
            self.close_connection = True
            return None
        with LOCK:
            ACTIVE += 1
        try:
            return self.serve(fault)
        finally:
            with LOCK:
                ACTIVE -= 1

    def locate(self):
        found = re.search(r"/(manifests|blobs)/(.+)$", self.path)
        if not found:
            return None, None
        kind, name = found.groups()
        with LOCK:
            if (kind, name) in DOCUMENTS:
                return DOCUMENTS[kind, name]
        if not os.path.exists(os.path.join(ARGS.dir, "index.json")):
            return None, None
        media = "application/octet-stream"
        if kind == "manifests":
            with open(os.path.join(ARGS.dir, "index.json")) as listing:
                entries = json.load(listing)["manifests"]
            named = [x for x in entries if name == x.get("annotations", {}).get(
                "org.opencontainers.image.ref.name")]
            entry = (named or entries)[0]
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
        if kind in ("encode", "gzip"):
            headers["Content-Encoding"] = "gzip"
        if kind == "gzip":
            body = gzip.compress(body)
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
        return self.send(status, headers, body, fault)

    def send_head(self, status, headers, body, fault):
        kind = fault["kind"]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        for i in range(fault.get("count", 0) if kind == "header_lines" else 0):
            self.send_header(f"X-Filler-{i}", "x" * 100)
        if kind == "header_line":
            self.send_header("X-Filler", "x" * fault["bytes"])
        if kind in ("chunked", "endless"):
            self.send_header("Transfer-Encoding", "chunked")
        elif kind == "unsized":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()

    def send(self, status, headers, body, fault):
        kind = fault["kind"]
        sent = min(len(body), max(0, fault["at"])) if kind == "cut" else len(body)
        entry = self.note(status, sent)
        try:
            self.send_head(status, headers, body, fault)
            if kind == "drip":
                self.drip(bytes(len(body)) if fault.get("wrong") else body, fault)
            elif kind == "chunked":
                self.chunks([body, b"x" * fault.get("extra", 0)])
            elif kind == "endless":
                self.endless(fault["bytes"], entry)
            else:
                self.wfile.write(body[:sent])
                self.wfile.flush()
        except OSError:  # whoever asked has heard enough
            self.close_connection = True
            return
        if sent < len(body):
            if fault.get("reset"):
                wait_until_read(self.connection)  # or the reset throws away what was sent
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                           struct.pack("ii", 1, 0))
            self.close_connection = True

    def chunks(self, pieces):
        for piece in pieces:
            if piece:
                self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def endless(self, limit, entry):
        entry["sent"] = 0
        while entry["sent"] < limit:
            self.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            entry["sent"] += 65536
        self.wfile.write(b"0\r\n\r\n")

    def drip(self, body, fault):
        step = fault.get("bytes", 1)
        for i in range(0, len(body), step):
            self.wfile.write(body[i:i + step])
            self.wfile.flush()
            time.sleep(fault.get("every", 0.2))


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *unused):
        pass  # a peer that hangs up is what many tests are about


def main():
    global ARGS
    parser = argparse.ArgumentParser()
    parser.add_argument("dir")
    parser.add_argument("--auth", default="none")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--identity", default="")
    parser.add_argument("--token-life", type=float, default=300)
    parser.add_argument("--realm", default="")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--certificate", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--log-file", default="")
    ARGS = parser.parse_args()
    server = Server((ARGS.bind, ARGS.port), Handler)
    if ARGS.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ARGS.certificate, ARGS.key)
        server.socket = context.wrap_socket(server.socket, server_side=True,
                                            do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
