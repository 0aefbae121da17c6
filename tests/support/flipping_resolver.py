#!/usr/bin/python3
"""A DNS server whose answers change: flipping_resolver.py ADDRESS NAMES.json LOG

NAMES.json: {name: [[address, …], …]}, one list for each question, the last one from then on. Time to
live 0. Every question for an IPv4 address adds a line to LOG; other types have no answer."""
import json, socket, struct, sys


def question(data):
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode("ascii", "replace").lower())
        at += data[at] + 1
    return ".".join(labels), struct.unpack(">H", data[at + 1:at + 3])[0], data[12:at + 5]


def main():
    address, names_path, log_path = sys.argv[1:4]
    with open(names_path, encoding="ascii") as source:
        names = json.load(source)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, 53))
    print("ready", flush=True)
    while True:
        data, peer = sock.recvfrom(512)
        name, kind, asked = question(data)
        known, addresses = name in names, []
        if kind == 1:
            with open(log_path, "a", encoding="ascii") as log:
                log.write(name + "\n")
            if known:
                addresses = names[name][0]
                if len(names[name]) > 1:
                    names[name].pop(0)
        flags = 0x8580 if known else 0x8583
        answer = data[:2] + struct.pack(">HHHHH", flags, 1, len(addresses), 0, 0) + asked
        for text in addresses:
            answer += b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(text)
        sock.sendto(answer, peer)


if __name__ == "__main__":
    main()
