#!/usr/bin/python3
"""Everything a bunker might reach, in one network namespace: network_world.py LINK NAMES.json LOG

Every address is this host's. Answers names (NAMES.json: {name: [[address, …], …]}, one list for each
question, the last one from then on) and TCP on a few ports, and writes down, a JSON line each, every
packet that comes in over LINK, every name that is asked for, and every request that is heard."""
import json, socket, struct, sys, threading

PORTS = (22, 25, 53, 80, 443, 853, 8080)
LOCK = threading.Lock()


def main():
    link, names_path, log_path = sys.argv[1:4]
    log = open(log_path, "a", buffering=1, encoding="utf-8")
    with open(names_path, encoding="ascii") as source:
        names = json.load(source)

    def note(**what):
        with LOCK:
            log.write(json.dumps(what) + "\n")

    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    sniffer.bind((link, 3))
    threading.Thread(target=sniff, args=(sniffer, note), daemon=True).start()
    for port in PORTS:
        listener = socket.create_server(("0.0.0.0", port), backlog=64)
        threading.Thread(target=serve, args=(listener, port, note), daemon=True).start()
    print("ready", flush=True)
    resolve(names, note)


def sniff(sniffer, note):
    while True:
        data, (_, ethertype, kind, *_rest) = sniffer.recvfrom(2048)
        if kind == socket.PACKET_OUTGOING or ethertype == 0x0806:
            continue
        if ethertype != 0x0800:
            note(packet="ethertype %04x" % ethertype)
            continue
        head = (data[0] & 15) * 4
        proto = {1: "icmp", 6: "tcp", 17: "udp"}.get(data[9], str(data[9]))
        port = struct.unpack(">H", data[head + 2:head + 4])[0] if proto in ("tcp", "udp") else 0
        note(packet=proto, src=socket.inet_ntoa(data[12:16]), dst=socket.inet_ntoa(data[16:20]), port=port)


def serve(listener, port, note):
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=answer, args=(peer, port, note), daemon=True).start()


def answer(peer, port, note):
    with peer:
        peer.settimeout(10)
        try:
            while data := peer.recv(65536):
                note(heard=data[:2000].decode("latin-1"), dst=peer.getsockname()[0], port=port)
                if data.startswith(b"GET /big"):
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4000000)
                elif port in (80, 8080):
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n")
                else:
                    peer.sendall(b"HEARD")
        except OSError:
            pass


def resolve(names, note):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_IP, 8, 1)  # IP_PKTINFO: answer from the address that was asked
    sock.bind(("0.0.0.0", 53))
    while True:
        data, ancillary, _, peer = sock.recvmsg(4096, 256)
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode("ascii", "replace").lower())
            at += data[at] + 1
        name, kind, asked = ".".join(labels), struct.unpack(">H", data[at + 1:at + 3])[0], data[12:at + 5]
        note(asked=name, kind=kind)
        known, addresses = name in names, []
        if kind == 1 and known:
            addresses = names[name][0]
            if len(names[name]) > 1:
                names[name].pop(0)
        out = data[:2] + struct.pack(">HHHHH", 0x8580 if known else 0x8583, 1, len(addresses), 0, 0) + asked
        for text in addresses:
            out += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(text)
        sock.sendmsg([out], [(level, kind, data) for level, kind, data in ancillary], 0, peer)


if __name__ == "__main__":
    main()
