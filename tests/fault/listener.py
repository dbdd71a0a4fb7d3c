"""A program that listens in on a host's cable until SIGTERM. Arguments: the device, and words to look for.

Prints how many packets of TCP with something in them passed, and how many of those had each word.
"""

from __future__ import annotations

import json
import signal
import socket
import sys

_ALL = 3  # ETH_P_ALL
_TCP = 6
_HEADERS = 14 + 20 + 20  # of Ethernet, IPv4 and TCP at least


def main(device: str, words: list[bytes]) -> None:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    seen, packets = dict.fromkeys(words, 0), 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as cable:
        cable.bind((device, 0))
        cable.settimeout(0.1)
        print("listening", flush=True)
        while not ended:
            try:
                packet = cable.recv(1 << 16)
            except TimeoutError:
                continue
            if len(packet) > _HEADERS + 20 and packet[12:14] == b"\x08\x00" and packet[23] == _TCP:
                packets += 1
                for word in words:
                    seen[word] += word in packet
    print(json.dumps({"packets": packets, "seen": {word.decode(): count for word, count in seen.items()}}))


if __name__ == "__main__":
    main(sys.argv[1], [word.encode() for word in sys.argv[2:]])
