"""Servers that send back what comes, and child processes: CPU time of the server per round trip.

The client is another process, the same for all (`echo_client.py`), with several connections that
are all in use, so that the server hardly ever sleeps. The clock begins when they are made.
"blocking" is no loop but a socket that waits in `recv`: what it costs is the system's and OpenSSL's
work, most of which no loop can save.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from itertools import repeat
from pathlib import Path
from typing import IO, Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench
from loop_rows.echo_client import CONNECTIONS

GROUP = "event loop: network"

_CLIENT = Path(__file__).with_name("echo_client.py")
_CERTIFICATE = Path(__file__).parents[3] / "tests/loop/localhost.pem"
_SIZES = {"1 KiB": 1024, "64 KiB": 64 * 1024}
_CHILDREN = 8
_clock = time.process_time

Sample = Callable[[], float]


class _Run:
    """What a server measures: from when all connections are made until they are lost."""

    def __init__(self, loop: Any, connections: int) -> None:
        self.ended: asyncio.Future[float] = loop.create_future()
        self._to_begin = self._to_end = connections
        self._began = 0.0

    def begin(self) -> None:
        """A connection is made."""
        self._to_begin -= 1
        if not self._to_begin:
            self._began = _clock()

    def end(self) -> None:
        """A connection is lost."""
        self._to_end -= 1
        if not self._to_end:
            self.ended.set_result(_clock() - self._began)


class _Echo(asyncio.Protocol, asyncio.DatagramProtocol):
    """Sends back what comes."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._run.begin()

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data:
            self._transport.sendto(data, addr)
        else:
            self._run.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.end()


Serve = Callable[[Contender, Any, _Run, "ssl.SSLContext | None"], Coroutine[Any, Any, Any]]
"""Starts a server; what comes of it tells the address of `sockets[0]`, and can be closed."""


async def _protocol(
    contender: Contender, loop: Any, run: _Run, context: ssl.SSLContext | None
) -> Any:
    return await loop.create_server(lambda: _Echo(run), "127.0.0.1", 0, ssl=context)


async def _streams(
    contender: Contender, loop: Any, run: _Run, context: ssl.SSLContext | None
) -> Any:
    async def serve(reader: Any, writer: Any) -> None:
        run.begin()
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        run.end()

    return await contender.classes["start_server"](serve, "127.0.0.1", 0, ssl=context)


class _Listener:
    """A socket that is listened at without a server."""

    def __init__(
        self,
        kind: socket.SocketKind,
        closing: Callable[[], object],
        family: int = socket.AF_INET,
        address: Any = ("127.0.0.1", 0),
    ) -> None:
        self.sockets = [socket.socket(family, kind)]
        self.sockets[0].setblocking(False)
        self.sockets[0].bind(address)
        self._closing = closing

    def close(self) -> None:
        """End it."""
        self._closing()
        self.sockets[0].close()


async def _sockets(
    contender: Contender, loop: Any, run: _Run, context: ssl.SSLContext | None
) -> Any:
    async def serve(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            run.begin()
            while data := await loop.sock_recv(connection, 65536):
                await loop.sock_sendall(connection, data)
        run.end()

    async def accept() -> None:
        for _ in range(CONNECTIONS):
            connection, _ = await loop.sock_accept(listener.sockets[0])
            tasks.append(loop.create_task(serve(connection)))

    listener = _Listener(socket.SOCK_STREAM, lambda: [task.cancel() for task in tasks])
    listener.sockets[0].listen(CONNECTIONS)
    tasks = [loop.create_task(accept())]
    return listener


async def _datagrams(
    contender: Contender, loop: Any, run: _Run, context: ssl.SSLContext | None
) -> Any:
    listener = _Listener(socket.SOCK_DGRAM, lambda: transport.close())
    transport, _ = await loop.create_datagram_endpoint(lambda: _Echo(run), sock=listener.sockets[0])
    return listener


async def _unix_datagrams(
    contender: Contender, loop: Any, run: _Run, context: ssl.SSLContext | None
) -> Any:
    folder = tempfile.TemporaryDirectory()

    def close() -> None:
        transport.close()
        folder.cleanup()

    address = f"{folder.name}/echo"
    listener = _Listener(socket.SOCK_DGRAM, close, socket.AF_UNIX, address)
    transport, _ = await loop.create_datagram_endpoint(lambda: _Echo(run), sock=listener.sockets[0])
    return listener


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATE)
    return context


def _blocking(size: int, context: ssl.SSLContext | None, orders: IO[str]) -> float:
    """What the fastest server costs: one that waits in `recv`, and knows whose turn it is."""
    place = memoryview(bytearray(256 * 1024))
    with (
        contextlib.ExitStack() as stack,
        socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as listener,
    ):
        print(json.dumps(listener.getsockname()), file=orders, flush=True)
        left = []
        for _ in range(CONNECTIONS):
            plain, _ = listener.accept()
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = context.wrap_socket(plain, server_side=True) if context else plain
            left.append(stack.enter_context(secure))
        began = _clock()
        while left:
            for connection in list(left):
                got = 0
                while got < size and (count := connection.recv_into(place)):
                    connection.sendall(place[:count])
                    got += count
                if not got:
                    left.remove(connection)
        return _clock() - began


def _row(name: str, serve: Serve, kind: str, size: int, trips: int, *needs: str) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Sample:
        count = effort.count(trips // CONNECTIONS) * CONNECTIONS
        client = subprocess.Popen(
            [sys.executable, _CLIENT, kind, str(size), str(count)], stdin=subprocess.PIPE, text=True
        )
        context = _server_context() if kind == "tls" else None
        orders = client.stdin
        assert orders is not None
        if contender.name == "blocking":
            return lambda: _blocking(size, context, orders) / count
        loop = contender.classes["new_event_loop"]()

        async def connection() -> float:
            run = _Run(loop, 1 if kind in ("udp", "unix") else CONNECTIONS)
            server = await serve(contender, loop, run, context)
            address = server.sockets[0].getsockname()
            print(json.dumps(address), file=orders, flush=True)
            try:
                return await run.ended / count
            finally:
                server.close()

        return lambda: loop.run_until_complete(connection())

    return bench(GROUP, name, needs, prepare)


def _child_echo(size: int) -> Callable[[Contender, Effort], Sample]:
    """Children that send back what comes, each through pipes of its own."""

    def prepare(contender: Contender, effort: Effort) -> Sample:
        loop = contender.classes["new_event_loop"]()
        trips = effort.count(2_400 // _CHILDREN)
        message = bytes(size)

        async def echo(child: Any) -> None:
            for _ in repeat(None, trips):
                child.stdin.write(message)
                await child.stdin.drain()
                await child.stdout.readexactly(size)

        async def children() -> float:
            spawn = contender.classes["create_subprocess_exec"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            running = [await spawn("/bin/cat", **pipes) for _ in repeat(None, _CHILDREN)]
            began = _clock()
            await contender.classes["gather"](*map(echo, running))
            took = _clock() - began
            for child in running:
                child.stdin.close()
                await child.wait()
            return took / (trips * _CHILDREN)

        def sample() -> float:
            asyncio.set_event_loop(loop)  # its child watcher is the policy's before 3.12
            took: float = loop.run_until_complete(children())
            return took

        return sample

    return prepare


def _spawning(contender: Contender, effort: Effort) -> Sample:
    loop = contender.classes["new_event_loop"]()
    count = effort.count(40)
    spawn: Callable[..., Awaitable[Any]] = contender.classes["create_subprocess_exec"]

    async def children() -> None:
        for _ in repeat(None, count):
            child = await spawn("/bin/true")
            await child.wait()

    def sample() -> float:
        asyncio.set_event_loop(loop)  # its child watcher is the policy's before 3.12
        began = _clock()
        loop.run_until_complete(children())
        return (_clock() - began) / count

    return sample


ROWS = [
    *(
        _row(f"TCP echo, protocol, {name}", _protocol, "tcp", size, 3_200, "serve")
        for name, size in _SIZES.items()
    ),
    *(
        _row(f"TCP echo, streams, {name}", _streams, "tcp", size, 3_200, "start_server")
        for name, size in _SIZES.items()
    ),
    *(
        _row(f"TLS echo, protocol, {name}", _protocol, "tls", size, 3_200, "serve", "tls")
        for name, size in _SIZES.items()
    ),
    *(
        _row(f"TLS echo, streams, {name}", _streams, "tls", size, 3_200, "start_server", "tls")
        for name, size in _SIZES.items()
    ),
    *(
        _row(f"TCP echo, sock_recv and sock_sendall, {name}", _sockets, "tcp", size, 3_200, "serve")
        for name, size in _SIZES.items()
    ),
    _row("UDP echo, protocol, 1 KiB", _datagrams, "udp", 1024, 3_200, "datagrams"),
    _row("Unix datagram echo, protocol, 1 KiB", _unix_datagrams, "unix", 1024, 3_200, "datagrams"),
    *(
        bench(
            GROUP,
            f"child's pipe echo, streams, {name}",
            ["new_event_loop", "create_subprocess_exec", "gather"],
            _child_echo(size),
        )
        for name, size in _SIZES.items()
    ),
    bench(GROUP, "a child process", ["new_event_loop", "create_subprocess_exec"], _spawning),
]
