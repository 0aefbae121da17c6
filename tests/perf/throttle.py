"""A TCP proxy that lets a held rate of bytes through from the server, all connections together."""

import socket
import threading
import time

PIECE = 64 << 10
IN_FLIGHT_S = 0.02


class Throttle:
    """Listens on loopback in front of `port`. Threads end with their connections."""

    def __init__(self, port, bytes_per_s):
        self._target, self._rate = port, bytes_per_s
        self._lock, self._free_at = threading.Lock(), 0.0
        self.bytes_down, self.idle_s = 0, 0.0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def begin(self):
        """Counts anew; the line is not idle before its first byte."""
        with self._lock:
            self.bytes_down, self.idle_s, self._free_at = 0, 0.0, 0.0

    def last_byte_at(self):
        """When it went through, on the monotonic clock."""
        with self._lock:
            return self._free_at

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, target, held in ((client, server, False), (server, client, True)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._copy, args=(source, target, held), daemon=True).start()

    def _hold(self, count):
        """When these bytes may go: the line is busy for as long as they take at the rate."""
        with self._lock:
            now = time.monotonic()
            # What a line has in flight goes on while this proxy waits for a core.
            begin = max(self._free_at, now - IN_FLIGHT_S) if self._free_at else now
            self.idle_s += begin - self._free_at if self._free_at else 0.0
            self._free_at = begin + count / self._rate
            self.bytes_down += count
            return self._free_at

    def _copy(self, source, target, held):
        buffer = memoryview(bytearray(PIECE))
        try:
            while count := source.recv_into(buffer):
                if held:
                    time.sleep(max(0.0, self._hold(count) - time.monotonic()))
                target.sendall(buffer[:count])
        except OSError:
            pass
        for end, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                end.shutdown(how)
            except OSError:
                pass
