"""The websockets library's server and client: a chat, large messages, pings, closing."""

import asyncio

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosedError
from whose import assert_ours

GUESTS = 20


async def host(guests: set[ServerConnection], guest: ServerConnection) -> None:
    assert_ours()
    guests.add(guest)
    try:
        async for message in guest:
            if message == "leave":
                await guest.close(4000, "as you wish")
                return
            if isinstance(message, bytes):
                await guest.send(message[::-1])
            else:
                broadcast(guests, message)
    finally:
        guests.discard(guest)


async def chat(address: str) -> None:
    async with asyncio.TaskGroup() as group:
        guests = [group.create_task(connect(address).__aenter__()) for _ in range(GUESTS)]
    connections: list[ClientConnection] = [guest.result() for guest in guests]
    for number, connection in enumerate(connections):
        await connection.send(f"guest {number}")
    expected = {f"guest {number}" for number in range(GUESTS)}
    for connection in connections:
        assert {await connection.recv() for _ in range(GUESTS)} == expected
    for connection in connections:
        await connection.close()


async def main() -> None:
    assert_ours()
    known: set[ServerConnection] = set()
    async with serve(lambda guest: host(known, guest), "127.0.0.1", 0, max_size=2**22) as server:
        port = server.sockets[0].getsockname()[1]
        address = f"ws://127.0.0.1:{port}"
        async with connect(address, max_size=2**22) as connection:
            large = bytes(range(256)) * 8192
            await connection.send(large)
            assert await connection.recv() == large[::-1]
            assert await (await connection.ping()) >= 0
            await connection.send("leave")
            try:
                await connection.recv()
            except ConnectionClosedError as error:
                closed = error.rcvd
            assert (closed.code, closed.reason) == (4000, "as you wish")
        await chat(address)


if __name__ == "__main__":
    asyncio.run(main())
