#!/usr/bin/python3
"""A host on a segment that tells of every frame: frame_canary.py LINK ADDRESS/BITS LOG, in a network
namespace of its own. Says "waiting", is sent a line once it has LINK, says "ready". Each incoming frame
is a JSON line {"src", "dst", "type", "text"} of LOG. Answers ping, and HTTP on port 80 with 4 MB."""
import json, socket, subprocess, sys, threading


def main():
    link, address, path = sys.argv[1:4]
    print("waiting", flush=True)
    sys.stdin.readline()
    for line in (["address", "add", address, "dev", link], ["link", "set", "lo", "up"], ["link", "set", link, "up"]):
        subprocess.run(["ip", *line], check=True)
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind((link, 3))
    listener = socket.create_server(("0.0.0.0", 80), backlog=16)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    with open(path, "a", buffering=1, encoding="utf-8") as log:
        print("ready", flush=True)
        while True:
            data, (_, ethertype, kind, *_rest) = sniffer.recvfrom(4096)
            if kind != socket.PACKET_OUTGOING:
                log.write(json.dumps({"src": data[6:12].hex(":"), "dst": data[:6].hex(":"), "type": ethertype,
                                      "text": data[14:].decode("latin-1")}) + "\n")


def serve(listener):
    while True:
        peer, _ = listener.accept()
        with peer:
            try:
                peer.settimeout(60)
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n" + b"x" * 4000000)
            except OSError:
                pass


if __name__ == "__main__":
    main()
