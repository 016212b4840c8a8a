"""Transports of connected sockets, and servers, against what the standard library's do."""

import asyncio
import gc
import itertools
import os
import resource
import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler.asyncio import new_event_loop

Loop = asyncio.AbstractEventLoop


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    transport: asyncio.Transport

    def __init__(self, loop: Loop) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.lost: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def eof_received(self) -> bool | None:
        self.events.append("eof")
        self.ended.set_result(None)
        return None

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)


class KeepsOpen(Recorder):
    """Goes on writing after the other side's end."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


@contextmanager
def contexts(loop: Loop) -> Iterator[list[dict[str, Any]]]:
    """What the exception handler is told."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    loop.set_exception_handler(None)


async def connected(
    protocol: Callable[[Loop], Recorder] = Recorder,
) -> tuple[Any, Recorder, socket.socket]:
    """A transport, its protocol, and the other side's socket, which blocks."""
    loop = asyncio.get_running_loop()
    ours, other = socket.socketpair()
    ours.setblocking(False)
    other.settimeout(10)
    transport, made = await loop.create_connection(lambda: protocol(loop), sock=ours)
    return transport, made, other


def test_life_of_a_connection(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, other = await connected(KeepsOpen)
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("socket").fileno() == transport._sock_fd
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.is_reading() and not transport.is_closing()
        transport.write(b"one ")
        transport.writelines([b"two ", bytearray(b"three "), b"", memoryview(b"four")])
        assert other.recv(100) == b"one two three four"
        other.sendall(b"question")
        other.shutdown(socket.SHUT_WR)
        await protocol.ended
        assert protocol.data == b"question"
        transport.write(b"answer")
        transport.write_eof()
        assert other.recv(100) == b"answer" and other.recv(100) == b""
        with pytest.raises(RuntimeError, match="after write_eof"):
            transport.write(b"more")
        transport.close()
        assert transport.is_closing() and not transport.is_reading()
        await protocol.lost
        assert protocol.events == ["made", "eof", "lost"] and protocol.error is None
        other.close()

    any_loop.run_until_complete(main())


def test_what_cannot_be_written_is_refused(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, other = await connected()
        for wrong in ("text", 5, [b"x"], None):
            with pytest.raises(TypeError, match="must be a bytes"):
                transport.write(wrong)
        transport.close()
        await protocol.lost
        other.close()

    any_loop.run_until_complete(main())


def test_flow_control_and_what_is_kept(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, other = await connected()
        transport.set_write_buffer_limits(high=100_000, low=1_000)
        assert transport.get_write_buffer_limits() == (1_000, 100_000)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        whole = os.urandom(3_000_000)
        changing = bytearray(whole)
        transport.write(whole[:1_000_000])
        assert transport.get_write_buffer_size() > 100_000
        assert protocol.events == ["made", "pause"]
        transport.write(bytes(changing[1_000_000:]))
        transport.close()  # what is in the buffer is written all the same
        got = await asyncio.to_thread(receive, other)
        assert got == whole
        await protocol.lost
        assert protocol.events == ["made", "pause", "resume", "lost"]
        assert transport.get_write_buffer_size() == 0

    any_loop.run_until_complete(main())


def receive(other: socket.socket) -> bytes:
    """All that comes until the end."""
    received = bytearray()
    while data := other.recv(65536):
        received += data
    other.close()
    return bytes(received)


def test_what_is_kept_of_a_bytearray_is_a_copy() -> None:
    # The standard library keeps a view of it instead.
    loop = new_event_loop()

    async def main() -> None:
        transport, protocol, other = await connected()
        data = bytearray(os.urandom(2_000_000))
        whole = bytes(data)
        transport.write(data)
        data[:] = bytes(len(data))
        data.clear()
        transport.close()
        assert await asyncio.to_thread(receive, other) == whole
        await protocol.lost

    loop.run_until_complete(main())
    loop.close()


def test_pausing(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, other = await connected()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        other.sendall(b"data")
        await asyncio.sleep(0.02)
        assert protocol.data == b""
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading()
        while not protocol.data:
            await asyncio.sleep(0)
        transport.abort()
        await protocol.lost
        other.close()

    any_loop.run_until_complete(main())


def test_a_reset_is_the_error_of_the_loss(any_loop: Loop) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(loop)
        server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        while not protocol.events:
            await asyncio.sleep(0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await protocol.lost
        assert isinstance(protocol.error, ConnectionResetError)
        assert protocol.error.errno == 104
        for _ in range(10):
            protocol.transport.write(b"ignored")
        server.close()
        await server.wait_closed()

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("place", ["connection_made", "data_received", "eof_received"])
def test_a_protocol_that_raises(any_loop: Loop, place: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        protocol = Recorder(loop)

        def fail(*_: object) -> None:
            raise ZeroDivisionError(place)

        setattr(protocol, place, fail)
        transport, _, other = await connected(lambda _: protocol)
        with contexts(loop) as told:
            if place == "connection_made":
                transport.close()
            other.sendall(b"data")
            other.close()
            await protocol.lost
        if place != "connection_made":
            [context] = told
            assert context["message"] == f"Fatal error: protocol.{place}() call failed."
            assert context["transport"] is transport and context["protocol"] is protocol
            assert context["exception"] is protocol.error

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_run(any_loop: Loop, kind: type[BaseException]) -> None:
    protocol = Recorder(any_loop)

    def fail(_: bytes) -> None:
        raise kind

    protocol.data_received = fail  # type: ignore[method-assign]
    transport, _, other = any_loop.run_until_complete(connected(lambda _: protocol))
    other.sendall(b"data")
    with pytest.raises(kind):
        any_loop.run_forever()
    assert not transport.is_closing()
    transport.abort()
    any_loop.run_until_complete(protocol.lost)
    other.close()


def test_a_buffered_protocol(any_loop: Loop) -> None:
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.buffer = bytearray(7)
            self.data = bytearray()
            self.ended = any_loop.create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            assert sizehint == -1
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.data += self.buffer[:nbytes]

        def connection_lost(self, exc: Exception | None) -> None:
            self.ended.set_result(exc)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, other = socket.socketpair()
        ours.setblocking(False)
        protocol = Buffered()
        await loop.create_connection(lambda: protocol, sock=ours)
        other.sendall(bytes(range(100)))
        other.close()
        assert await protocol.ended is None
        assert protocol.data == bytes(range(100))

    any_loop.run_until_complete(main())


def test_a_program_that_closes_the_socket_frees_no_number() -> None:
    loop = new_event_loop()

    async def main() -> None:
        ours, other = socket.socketpair()
        ours.setblocking(False)
        protocol = Recorder(loop)
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        descriptor = ours.fileno()
        ours.close()
        with open(os.devnull) as file:
            assert file.fileno() != descriptor
        transport.write(b"still there")
        assert other.recv(100) == b"still there"
        transport.close()
        await protocol.lost
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)
        other.close()

    loop.run_until_complete(main())
    loop.close()


def test_a_transport_that_nobody_closes_warns() -> None:
    loop = new_event_loop()

    async def main() -> None:
        transport, _, other = await connected()
        transport.pause_reading()
        other.close()
        del transport

    loop.run_until_complete(main())
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    # The socket, which is part of the same garbage, may come first.
    assert any("unclosed transport <SocketTransport" in str(warning.message) for warning in caught)


def test_descriptors_run_out_in_accept() -> None:
    loop = new_event_loop()

    async def main() -> None:
        made: list[Recorder] = []

        def factory() -> Recorder:
            made.append(Recorder(loop))
            return made[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            with contexts(loop) as told:
                for client in clients:
                    client.setblocking(False)
                    client.connect_ex(address)
                os.close(spare)
                while not told:
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "out of system resource" in told[0]["message"] and len(told) == 1
        assert told[0]["exception"].errno == 24
        while len(made) < len(clients):
            await asyncio.sleep(0.01)
        for client in clients:
            client.close()
        for protocol in made:
            await protocol.lost
        server.close()

    loop.run_until_complete(main())
    loop.close()


def test_a_thousand_connections_leave_nothing() -> None:
    loop = new_event_loop()

    async def main() -> None:
        gone = 0
        done = loop.create_future()

        class Counting(asyncio.Protocol):
            def connection_lost(self, exc: Exception | None) -> None:
                nonlocal gone
                gone += 1
                if gone == 1000:
                    done.set_result(None)

        server = await loop.create_server(Counting, "127.0.0.1", 0, backlog=200)
        address = server.sockets[0].getsockname()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            socket.create_connection(address).close()
            await asyncio.sleep(0)
        await done
        assert len(os.listdir("/proc/self/fd")) == before
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    loop.close()


def test_a_factory_that_raises() -> None:
    # The standard library leaves the connection to the garbage collector.
    loop = new_event_loop()
    loop.set_debug(True)

    async def main() -> None:
        def factory() -> asyncio.Protocol:
            raise ZeroDivisionError

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with contexts(loop) as told:
            client = socket.create_connection(server.sockets[0].getsockname())
            while not told:
                await asyncio.sleep(0)
        assert told[0]["message"] == "Error on transport creation for incoming connection"
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        client.settimeout(10)
        assert client.recv(1) == b""
        client.close()
        server.close()

    loop.run_until_complete(main())
    loop.close()


@settings(max_examples=30, deadline=None)
@given(
    sent=st.lists(st.integers(0, 300_000), max_size=6),
    read=st.lists(st.integers(50, 200_000), min_size=1, max_size=4),
    lines=st.booleans(),
)
def test_bytes_come_whole_and_in_order(sent: list[int], read: list[int], lines: bool) -> None:
    loop = new_event_loop()
    pieces = [os.urandom(size) for size in sent]

    async def main() -> None:
        transport, protocol, other = await connected()
        other.setblocking(False)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if lines:
            transport.writelines(pieces)
        else:
            for piece in pieces:
                transport.write(piece)
        transport.close()
        received = bytearray()
        sizes = itertools.cycle(read)
        while data := await loop.sock_recv(other, next(sizes)):
            received += data
        assert received == b"".join(pieces)
        await protocol.lost
        other.close()

    loop.run_until_complete(main())
    loop.close()
