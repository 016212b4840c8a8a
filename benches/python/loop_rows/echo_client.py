"""The other side of the network's rows: a process of its own that blocks, the same for all.

    python echo_client.py KIND SIZE COUNT

Reads addresses from its standard input, a line each, and sends SIZE bytes there and waits for them
to come back, COUNT times; KIND is `tcp`, `tls`, or for datagrams `udp` or `unix`. There are several
connections: each sends before the first is waited for. Datagrams end with an empty one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys

CONNECTIONS = 16


def main(kind: str, size: int, count: int) -> None:
    """Serve the orders until there are no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    message = bytes(size)
    place = memoryview(bytearray(size))
    is_datagrams = kind in ("udp", "unix")
    for line in sys.stdin:
        order = json.loads(line)
        address = order if kind == "unix" else tuple(order)
        with contextlib.ExitStack() as stack:
            connections: list[socket.socket] = []
            for number in range(CONNECTIONS):
                made = socket.socket(
                    socket.AF_UNIX if kind == "unix" else socket.AF_INET,
                    socket.SOCK_DGRAM if is_datagrams else socket.SOCK_STREAM,
                )
                if kind == "unix":
                    made.bind(f"{address}.{number}")  # where the answer goes
                made.connect(address)
                if not is_datagrams:
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections.append(
                    stack.enter_context(context.wrap_socket(made) if kind == "tls" else made)
                )
            for _ in range(count // len(connections)):
                for connection in connections:
                    connection.sendall(message)
                for connection in connections:
                    got = 0
                    while got < size:
                        got += connection.recv_into(place[got:])
            if is_datagrams:
                connections[0].send(b"")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
