"""A chat server that passes each line on to everybody in the room.

Clients connect over real sockets, say their lines and listen. Each has a queue of its own, from
which a task writes to it, so that a client that reads slowly holds up nobody but itself.

    python chat_server.py
    juggler run chat_server.py

What to look at:

* `put_nowait` into a bounded queue never waits. When a client's queue is full, the server says
  goodbye to that client instead of keeping its lines in memory for ever.
* Two tasks for each client, one that reads and one that writes, share its life: when one ends,
  the other does.
* `drain` waits while the client's socket takes no more: that is what fills the queue of a slow one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter

GOODBYE = b"/quit\n"


class Room:
    """The clients that are connected, and what is still to be said to each of them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._members: set[asyncio.Queue[bytes | None]] = set()
        self.dropped = 0

    def _broadcast(self, line: bytes) -> None:
        for lines in tuple(self._members):
            try:
                lines.put_nowait(line)
            except asyncio.QueueFull:
                self._members.discard(lines)
                self.dropped += 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be there for a client until it leaves."""
        lines: asyncio.Queue[bytes | None] = asyncio.Queue(self._capacity)
        self._members.add(lines)
        talking = asyncio.create_task(self._write(lines, writer))
        try:
            writer.write(b"welcome\n")
            while (line := await reader.readline()) not in (GOODBYE, b""):
                self._broadcast(line)
        finally:
            self._members.discard(lines)
            await lines.put(None)
            await talking
            writer.close()
            await writer.wait_closed()

    @staticmethod
    async def _write(lines: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> None:
        while (line := await lines.get()) is not None:
            writer.write(line)
            await writer.drain()


class Client:
    """One who talks and listens."""

    def __init__(self, name: str, lines: int, everybody: int) -> None:
        self.name = name
        self._lines = lines
        self._expected = lines * everybody
        self.heard: list[str] = []

    async def chat(self, port: int, ready: asyncio.Barrier) -> None:
        """Say all lines, hear all that is said, and leave."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readline() == b"welcome\n"
        # Nobody speaks before all are there: what was said earlier is not told to those who come.
        await ready.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._say(writer))
            group.create_task(self._listen(reader))
        writer.write(GOODBYE)
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def _say(self, writer: asyncio.StreamWriter) -> None:
        for number in range(self._lines):
            writer.write(f"{self.name} {number}\n".encode())
            await writer.drain()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while len(self.heard) < self._expected:
            self.heard.append((await reader.readline()).decode().rstrip())

    def heard_in_order(self, speaker: str) -> bool:
        """Whether all lines of `speaker` were heard, in the order in which they were said."""
        of_speaker = [line for line in self.heard if line.partition(" ")[0] == speaker]
        return of_speaker == [f"{speaker} {number}" for number in range(self._lines)]


async def run(options: argparse.Namespace) -> int:
    """Open the room, have the clients chat, check what they heard, and return the exit status."""
    room = Room(capacity=options.clients * options.lines + 1)
    server = await asyncio.start_server(room.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    names = [f"guest-{number}" for number in range(options.clients)]
    clients = [Client(name, options.lines, len(names)) for name in names]
    ready = asyncio.Barrier(len(clients))
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.chat(port, ready))
    server.close()
    heard = Counter(line for client in clients for line in client.heard)
    in_order = all(client.heard_in_order(name) for client in clients for name in names)
    print(f"lines said  {len(heard)}")
    print(f"lines heard  {heard.total()}")
    print(f"everybody heard everything in order  {'yes' if in_order else 'no'}")
    print(f"dropped for being slow  {room.dropped}")
    return 0 if in_order else 1


def main() -> int:
    """Read the command line, chat and return the exit status."""
    parser = argparse.ArgumentParser(description="A chat server and its guests.")
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--lines", type=int, default=100, help="lines of each client")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
