"""The token service of a docker-registry: signs what the registry's own check accepts (RS256, the
certificate in the token's head). openssl does the signing."""

import base64
import json
import os
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import processes


def make_authority(folder, name, addresses=("127.0.0.1",), names=()):
    """An authority and a certificate by it for a server: paths of (ca, certificate, key)."""
    os.makedirs(folder, exist_ok=True)
    path = lambda end: os.path.join(folder, f"{name}.{end}")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    processes.run(["openssl", "req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name} authority",
                   "-keyout", path("ca.key"), "-out", path("ca.pem")])
    processes.run(["openssl", "req", *curve, "-subj", f"/CN={name}", "-keyout", path("key"),
                   "-out", path("csr")])
    with open(path("san"), "w", encoding="ascii") as out:
        out.write("subjectAltName=" + ",".join([f"IP:{x}" for x in addresses] +
                                               [f"DNS:{x}" for x in names]))
    processes.run(["openssl", "x509", "-req", "-in", path("csr"), "-CA", path("ca.pem"), "-CAkey",
                   path("ca.key"), "-CAcreateserial", "-days", "2", "-extfile", path("san"),
                   "-out", path("pem")])
    return path("ca.pem"), path("pem"), path("key")


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """users: {name: password}, empty for anyone; `life_s` of the tokens. `log` has each request as
    (method, query, Authorization header, status)."""

    ISSUER, SERVICE = "test issuer", "test registry"

    def __init__(self, folder, users=None, life_s=300):
        self.folder, self.users, self.life_s, self.log = folder, users or {}, life_s, []
        os.makedirs(folder, exist_ok=True)
        self.key, self.certificate = os.path.join(folder, "sign.key"), os.path.join(folder, "sign.pem")
        processes.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                       "-subj", "/CN=token signer", "-keyout", self.key, "-out", self.certificate])
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *unused):
                pass

            def do_GET(self):
                status, body = outer.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_address[1]}/auth"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def registry_config(self):
        """The lines that make a registry ask for these tokens."""
        return ("auth:\n  token:\n"
                f"    realm: {self.realm}\n    service: {self.SERVICE}\n    issuer: {self.ISSUER}\n"
                f"    rootcertbundle: {self.certificate}\n")

    def answer(self, path, authorization):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(path).query)
        user = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        right = not self.users or any(user == f"{k}:{v}" for k, v in self.users.items())
        self.log.append(("GET", path, authorization, 200 if right else 401))
        if not right:
            return 401, b'{"details":"wrong user or password"}'
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        token = self.sign({"iss": self.ISSUER, "sub": user.split(":")[0], "aud": self.SERVICE,
                           "exp": int(time.time() + self.life_s), "nbf": int(time.time()) - 10,
                           "iat": int(time.time()), "jti": os.urandom(8).hex(), "access": access})
        return 200, json.dumps({"token": token, "expires_in": max(1, int(self.life_s))}).encode()

    def sign(self, claims):
        with open(self.certificate, encoding="ascii") as source:
            body = "".join(x.strip() for x in source if "-----" not in x)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [body]}
        text = ".".join(base64url(json.dumps(x).encode()) for x in (head, claims))
        signature = processes.run_bytes(["openssl", "dgst", "-sha256", "-sign", self.key], text.encode())
        return text + "." + base64url(signature)
