"""Servers: how they close their clients, on every version."""

import asyncio
import socket
import struct
from typing import Any

import pytest

from juggler.asyncio import EventLoop


class Keeping(asyncio.Protocol):
    """A protocol that says when its connection is gone."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(exc)


async def serving(kept: list[Keeping], path: Any, clients: int) -> tuple[Any, list[socket.socket]]:
    """A server on TCP or, with a path, a Unix socket, and clients that are connected to it."""
    loop = asyncio.get_running_loop()

    def factory() -> Keeping:
        kept.append(Keeping())
        return kept[-1]

    if path is None:
        server = await loop.create_server(factory, "127.0.0.1", 0)
    else:
        server = await loop.create_unix_server(factory, path)
    connected = []
    for _ in range(clients):
        client = socket.socket(server.sockets[0].family)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.sockets[0].getsockname())
        connected.append(client)
    while len(kept) < clients:
        await asyncio.sleep(0.001)
    return server, connected


@pytest.fixture(params=["tcp", "unix"])
def path(request: pytest.FixtureRequest, tmp_path: Any) -> str | None:
    """Where a server of either kind listens."""
    return str(tmp_path / "socket") if request.param == "unix" else None


def test_close_clients_sends_what_is_buffered(loop: EventLoop, path: str | None) -> None:
    async def main() -> None:
        kept: list[Keeping] = []
        server, (one, other) = await serving(kept, path, 2)
        assert isinstance(server, asyncio.Server)
        kept[0].transport.write(bytes(2_000_000))
        server.close()
        server.close_clients()
        received = 0
        for client in (one, other):
            client.setblocking(False)
            while chunk := await loop.sock_recv(client, 65536):
                received += len(chunk)
            client.close()
        assert received == 2_000_000
        assert [await each.gone for each in kept] == [None, None]
        await server.wait_closed()
        server.close_clients()

    loop.run_until_complete(main())


def test_abort_clients_drops_what_is_buffered(loop: EventLoop, path: str | None) -> None:
    async def main() -> None:
        kept: list[Keeping] = []
        server, (client,) = await serving(kept, path, 1)
        kept[0].transport.write(bytes(8_000_000))
        assert kept[0].transport.get_write_buffer_size() > 0
        server.close()
        server.abort_clients()
        assert await kept[0].gone is None
        await server.wait_closed()
        received = 0
        while chunk := client.recv(65536):
            received += len(chunk)
        assert received < 8_000_000
        client.close()

    loop.run_until_complete(main())


def test_a_server_forgets_a_client_that_has_gone(loop: EventLoop, path: str | None) -> None:
    async def main() -> None:
        kept: list[Keeping] = []
        server, (one, other) = await serving(kept, path, 2)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
        first = kept[0]
        await first.gone
        server.close()
        server.close_clients()
        other.settimeout(10)
        assert await asyncio.to_thread(other.recv, 1) == b""
        other.close()
        await kept[1].gone
        await server.wait_closed()

    loop.run_until_complete(main())
