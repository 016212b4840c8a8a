"""The other side of the network's rows: a process of its own that blocks, so that it is the same for all.

    python echo_client.py KIND SIZE COUNT

Reads addresses from its standard input, a line each, and sends SIZE bytes there and waits for them to
come back, COUNT times; KIND is `tcp`, `tls` or `udp`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys


def main(kind: str, size: int, count: int) -> None:
    """Serve the orders until there are no more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    message = bytes(size)
    place = memoryview(bytearray(size))
    for line in sys.stdin:
        address = tuple(json.loads(line))
        with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as plain:
            plain.connect(address)
            if kind != "udp":
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(plain) if kind == "tls" else plain as connection:
                for _ in range(count):
                    connection.sendall(message)
                    got = 0
                    while got < size:
                        got += connection.recv_into(place[got:])
                if kind == "udp":
                    connection.send(b"")  # the end


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
