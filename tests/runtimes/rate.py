#!/usr/bin/python3
"""How fast TCP gets through, once what the limit lets through at first is used up.

    rate.py receive PORT MBITS     takes one connection; says how fast it was, exits with 1 when that is more than 15 % off
    rate.py send ADDRESS PORT      sends until the other end has had enough
"""

import argparse
import socket
import sys
import time

# A runtime may ask for a burst of half a gigabyte (containerd does): that goes at the speed of memory.
BURST_SECONDS = 60
SECONDS = 2
OFF = 0.15


def receive(port, mbits):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        server.settimeout(20)
        connection, _ = server.accept()
    connection.settimeout(10)
    buffer = bytearray(1 << 20)

    def through(seconds):
        began, taken = time.monotonic(), 0
        while (now := time.monotonic()) - began < seconds:
            count = connection.recv_into(buffer)
            if not count:
                raise SystemExit("the sender has ended")
            taken += count
        return taken * 8e-6 / (now - began)

    until = time.monotonic() + BURST_SECONDS
    slow = 0
    # Twice, because a sender that had to wait for a processor looks slow as well.
    while slow < 2:
        rate = through(0.25)
        slow = slow + 1 if rate < 2 * mbits else 0
        if time.monotonic() > until:
            raise SystemExit(f"still {rate:.1f} Mbit/s after {BURST_SECONDS} s, asked for were {mbits:g}")
    # What TCP has sent too much is still on its way.
    through(0.5)
    rate = through(SECONDS)
    print(f"{rate:.2f} Mbit/s, asked for were {mbits:g}")
    return 0 if abs(rate - mbits) <= OFF * mbits else 1


def send(address, port):
    until = time.monotonic() + 20
    while True:
        try:
            connection = socket.create_connection((address, port), timeout=20)
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    # More than this in the limit's queue is only time that it takes to get through.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    data = bytes(1 << 17)
    try:
        while True:
            connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("receive")
    verb.add_argument("port", type=int)
    verb.add_argument("mbits", type=float)
    verb.set_defaults(run=lambda a: receive(a.port, a.mbits))
    verb = verbs.add_parser("send")
    verb.add_argument("address")
    verb.add_argument("port", type=int)
    verb.set_defaults(run=lambda a: send(a.address, a.port))
    arguments = parser.parse_args()
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
