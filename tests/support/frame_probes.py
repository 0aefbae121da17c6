"""Sends frames from inside a guest: frame_probes.py LINK ROUNDS SECONDS, with a JSON list of them in hex
on standard input. Sends all in each round; "@@@@" in a frame becomes the round's number."""
import json, socket, sys, time


def main():
    link, rounds, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    frames = json.load(sys.stdin)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((link, 0))
        for number in range(rounds):
            for frame in frames:
                sock.send(bytes.fromhex(frame).replace(b"@@@@", b"%04d" % number))
            time.sleep(pause)


main()
