"""A server in whose process another thread computes: what either gets of the interpreter.

The client is a process of its own that sends a message, waits for its echo, and sends the next. The
values are seconds by the clock on the wall: one request, and one unit of what the thread computes.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, Metric

GROUP = "beside a thread that computes"

_CLIENT = """
import socket, sys, time
peer, message, requests = socket.socket(fileno=int(sys.argv[1])), b"x" * 1024, 0
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    peer.sendall(message)
    left = len(message)
    while left:
        received = len(peer.recv(left))
        if not received:
            sys.exit("the server hung up")
        left -= received
    requests += 1
print(requests)
"""


class _Computing(threading.Thread):
    """Counts for as long as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.units = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            for _ in range(100):
                pass
            self.units += 1

    def per_unit(self, work: Callable[[], object]) -> float:
        """How long a unit takes while `work` runs."""
        units, began = self.units, time.perf_counter()
        work()
        return (time.perf_counter() - began) / max(1, self.units - units)


class _Echo(asyncio.Protocol):
    def __init__(self, lost: asyncio.Future[None]) -> None:
        self.lost = lost

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("socket")
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


async def _serve(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    server = await loop.create_server(lambda: _Echo(lost), sock=listener)
    await lost
    server.close()


def _prepare(contender: Contender, effort: Effort) -> Callable[[], Sequence[Sequence[float]]]:
    seconds = max(0.2, effort.share)

    def turn() -> list[list[float]]:
        listener = socket.create_server(("127.0.0.1", 0))
        theirs = socket.create_connection(listener.getsockname())
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        command = [sys.executable, "-I", "-S", "-c", _CLIENT, str(theirs.fileno()), str(seconds)]
        loop, computing = contender.make("new_event_loop"), _Computing()
        computing.start()
        try:
            alone = computing.per_unit(lambda: time.sleep(0.1))
            client = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            theirs.close()
            # The listener is closed first: a client whose server has failed ends by that.
            with client, listener:
                beside = computing.per_unit(lambda: loop.run_until_complete(_serve(listener)))
                assert client.stdout is not None
                requests = int(client.stdout.read())
        finally:
            computing.over = True
            computing.join()
            loop.close()
        return [[seconds / requests], [beside], [alone]]

    return turn


ROWS = (
    Bench(
        GROUP,
        (
            Metric("echo of 1 KiB"),
            Metric("what the thread computes"),
            Metric("what the thread computes alone", control=True),
        ),
        ("new_event_loop",),
        _prepare,
        most_rounds=9,
    ),
)
