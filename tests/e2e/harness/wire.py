"""What lies between a client and a registry: a TCP relay that counts, slows and cuts, and a forward
proxy as HTTP_PROXY and HTTPS_PROXY name it. Both run as threads of the test."""

import base64
import os
import socket
import struct
import sys
import threading
import time

from . import paths

sys.path.insert(0, os.path.join(paths.ROOT, "tests/support"))
from tcp_queue import wait_until_read

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset


class Server:
    """Listens on loopback and gives each connection a thread that runs `serve(client)`."""

    def __init__(self, serve):
        self.connections = 0
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()


class Relay(Server):
    """Listens on loopback and passes every connection on to `target` (host, port).

    down and up count the bytes on the wire, TLS and HTTP heads included. `cuts` is a list of byte
    counts: the n-th connection that carries that many bytes down is closed there (a reset where
    `reset`). `rate` bytes a second, over all connections, hold the way down back."""

    def __init__(self, target, cuts=(), reset=False, rate=0):
        self.target, self.cuts, self.reset, self.rate = target, list(cuts), reset, rate
        self.down = self.up = 0
        self._lock = threading.Lock()
        self._next_send = time.monotonic()
        super().__init__(self._serve_one)
        self.host = f"127.0.0.1:{self.port}"

    def _serve_one(self, client):
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        threading.Thread(target=self._pass_up, args=(client, server), daemon=True).start()
        self._pass_down(server, client)

    def _pass_up(self, client, server):
        try:
            while True:
                data = client.recv(65536)
                if not data:
                    break
                with self._lock:
                    self.up += len(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _wait_for_turn(self, count):
        if not self.rate:
            return
        with self._lock:
            self._next_send = max(self._next_send, time.monotonic()) + count / self.rate
            until = self._next_send
        time.sleep(max(0.0, until - time.monotonic()))

    def _pass_down(self, server, client):
        sent = 0
        try:
            while True:
                data = server.recv(16384 if self.rate else 65536)
                if not data:
                    break
                with self._lock:
                    cut = self.cuts[0] if self.cuts and sent + len(data) >= self.cuts[0] else None
                    if cut is not None:
                        self.cuts.pop(0)
                        data = data[:max(0, cut - sent)]
                    self.down += len(data)
                self._wait_for_turn(len(data))
                client.sendall(data)
                sent += len(data)
                if cut is not None:
                    # HTTP/2 clients keep sending, so that even an ordinary close ends in a reset.
                    wait_until_read(client)
                    if self.reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
        except OSError:
            pass
        for end in (client, server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


class ForwardProxy(Server):
    """An HTTP proxy: CONNECT, and requests with an absolute URL. `names` maps "host:port" to the
    (address, port) where it really is, so that names need no resolver. With `credentials`
    ("user:password") it wants them. `log` has what was asked for."""

    def __init__(self, names, credentials=None):
        self.names, self.log, self.heads = names, [], []
        self._want = credentials and base64.b64encode(credentials.encode()).decode()
        super().__init__(self._serve_one)
        self.url = f"http://127.0.0.1:{self.port}"

    @staticmethod
    def _read_head(client):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return None
            head += data
        return head

    def _serve_one(self, client):
        try:
            head = self._read_head(client)
            if head is None:
                return
            method, url, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.log.append(f"{method} {url}")
            self.heads.append(head.decode(errors="replace"))
            if self._want and f"Proxy-Authorization: Basic {self._want}" not in head.decode():
                client.sendall(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"p\"\r\n"
                               b"Content-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if method == "CONNECT":
                self._tunnel(client, url, b"")
            else:  # http://host[:port]/path: one request, then the connection ends
                host, path = url.split("://", 1)[1].split("/", 1)
                lines = [x for x in head.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
                         if not x.lower().startswith((b"proxy-", b"connection:"))]
                request = f"{method} /{path} HTTP/1.1\r\n".encode() + b"\r\n".join(lines)
                self._tunnel(client, host if ":" in host else host + ":80",
                             request + b"\r\nConnection: close\r\n\r\n")
        except OSError:
            pass
        finally:
            client.close()

    def _tunnel(self, client, target, request):
        if target not in self.names:
            client.sendall(b"HTTP/1.1 502 No such host\r\nContent-Length: 0\r\n\r\n")
            return
        server = socket.create_connection(self.names[target])
        if request:
            server.sendall(request)
        else:
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
        self._copy(server, client)

    @staticmethod
    def _copy(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
