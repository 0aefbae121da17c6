"""Attempts to get somewhere, run inside a guest: one JSON object {name: outcome} on standard output.
The probes come as JSON on standard input: {name: [kind, address, port, base64 of what to say]}."""
import base64, json, socket, sys, threading

SECONDS = 4


def tcp(address, port, said):
    with socket.create_connection((address, port), SECONDS) as peer:
        peer.settimeout(SECONDS)
        peer.sendall(said or b"GET / HTTP/1.1\r\nHost: " + str(address).encode() + b"\r\n\r\n")
        heard = b""
        while len(heard) < 65536:
            more = peer.recv(65536)
            heard += more
            if not more or b"\r\n\r\nfine\n" in heard or heard.endswith(b"HEARD"):
                break
        return "heard " + heard[:400].decode("latin-1")


def udp(address, port, said):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect((address, port))
        sock.send(said or b"probe")
        return "heard " + sock.recv(4096).hex()[:400]


def icmp(address, port, said):
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(SECONDS)
        sock.sendto(b"\x08\x00\xf7\xfe\x00\x01\x00\x00", (address, 0))
        while True:
            data = sock.recv(4096)
            if data[20] == 0 and socket.inet_ntoa(data[12:16]) == address:
                return "heard echo"
            if data[20] == 3:
                return "refused icmp"


def raw(address, port, said):
    """An IP packet of the guest's own making, its source included."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(said, (address, 0))
    return "sent"


def frame(address, port, said):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(said)
    return "sent"


def name(address, port, said):
    return "heard " + " ".join(sorted({x[4][0] for x in socket.getaddrinfo(address, 80, socket.AF_INET)}))


def run(probe, outcomes, key):
    kind, address, port, said = probe
    try:
        outcomes[key] = globals()[kind](address, port, base64.b64decode(said))
    except Exception as error:
        outcomes[key] = type(error).__name__ + ": " + str(error)


def main():
    probes, outcomes = json.load(sys.stdin), {}
    threads = [threading.Thread(target=run, args=(probe, outcomes, key)) for key, probe in probes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(outcomes))


main()
