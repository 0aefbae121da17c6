"""Whether the other end of a loopback connection has read what was sent to it. A reset throws away
what lies unread in the other's kernel, and tests that count bytes want only what they cut to count."""

import time


def unread_bytes(local_port, remote_port):
    """What lies unread at the end of a connection that has `local_port`; 0 once it is gone."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as source:
                rows = [line.split() for line in source.readlines()[1:]]
        except FileNotFoundError:
            continue
        for row in rows:
            if int(row[1].split(":")[1], 16) == local_port and int(row[2].split(":")[1], 16) == remote_port:
                return int(row[4].split(":")[1], 16)
    return 0


def wait_until_read(connection, seconds=5.0):
    """Returns once the peer of `connection` has read all, or after so many seconds."""
    deadline = time.monotonic() + seconds
    try:
        peer, own = connection.getpeername()[1], connection.getsockname()[1]
    except OSError:
        return
    time.sleep(0.005)
    while unread_bytes(peer, own) and time.monotonic() < deadline:
        time.sleep(0.005)
