"""Streams on native transports and on any others, against the standard library's."""

import asyncio
import os
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler.asyncio import EventLoop, new_event_loop, streams

Loop = asyncio.AbstractEventLoop
MODULES = pytest.mark.parametrize("module", [asyncio, streams], ids=["stock", "native"])


async def connected(module: Any, **options: Any) -> tuple[Any, Any, socket.socket]:
    """A reader, a writer, and the other side's socket."""
    ours, other = socket.socketpair()
    other.settimeout(10)
    reader, writer = await module.open_connection(sock=ours, **options)
    assert isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter)
    return reader, writer, other


async def closed(writer: Any, *others: socket.socket) -> None:
    """Close all."""
    writer.close()
    await writer.wait_closed()
    for other in others:
        other.close()


@MODULES
def test_echo(any_loop: Loop, module: Any) -> None:
    async def serve(reader: Any, writer: Any) -> None:
        async for line in reader:
            writer.write(line.upper())
            await writer.drain()
        writer.write_eof()
        await closed(writer)

    async def main() -> None:
        server = await module.start_server(serve, "127.0.0.1", 0)
        reader, writer = await module.open_connection(*server.sockets[0].getsockname())
        writer.write(b"one\ntwo\n")
        assert await reader.readuntil(b"\nT") == b"ONE\nT"
        writer.writelines([b"three\n", b"four"])
        writer.write_eof()
        assert await reader.read() == b"WO\nTHREE\nFOUR"
        assert reader.at_eof()
        await closed(writer)
        server.close()
        await server.wait_closed()

    any_loop.run_until_complete(main())


@MODULES
def test_waiting_reads(any_loop: Loop, module: Any) -> None:
    async def main() -> None:
        reader, writer, other = await connected(module)
        any_loop.call_later(0.003, other.send, b"da")
        any_loop.call_later(0.006, other.send, b"ta\n")
        assert await reader.readexactly(3) == b"dat"
        assert await reader.readline() == b"a\n"
        waiting = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0.003)
        with pytest.raises(RuntimeError, match="already waiting"):
            await reader.read(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        other.send(b"rest")
        assert await reader.read(10) == b"rest"
        other.close()
        assert await reader.read(10) == b""
        with pytest.raises(asyncio.IncompleteReadError):
            await reader.readexactly(1)
        await closed(writer)

    any_loop.run_until_complete(main())


@MODULES
def test_a_reader_that_does_not_read_stalls_the_other_side(any_loop: Loop, module: Any) -> None:
    async def main() -> None:
        reader, writer, other = await connected(module, limit=1000)
        other.setblocking(False)
        whole = os.urandom(5_000_000)
        sending = asyncio.ensure_future(any_loop.sock_sendall(other, whole))
        await asyncio.sleep(0.05)
        assert not writer.transport.is_reading() and not sending.done()
        assert len(reader._buffer) < 1_000_000
        assert await reader.readexactly(len(whole)) == whole
        await sending
        await closed(writer, other)

    any_loop.run_until_complete(main())


@MODULES
@pytest.mark.parametrize("sent", [50, 100])
def test_a_transport_that_fails_to_pause_loses_the_connection_and_nothing_else(
    any_loop: Loop, module: Any, sent: int
) -> None:
    class Broken:
        def pause_reading(self) -> None:
            raise ValueError("broken")

        def close(self) -> None: ...

    async def main() -> None:
        told: list[tuple[str, object]] = []
        any_loop.set_exception_handler(
            lambda _, context: told.append((context["message"], context["exception"]))
        )
        reader, writer, other = await connected(module, limit=10)
        reader._transport = Broken()
        reading = asyncio.ensure_future(reader.readexactly(100))
        await asyncio.sleep(0)
        other.send(bytes(sent))
        if sent == 100:
            assert await asyncio.wait_for(reading, 5) == bytes(100)
        else:
            with pytest.raises(ValueError, match="broken"):
                await asyncio.wait_for(reading, 5)
        ((message, error),) = told
        assert message == "Fatal error: protocol.data_received() call failed."
        assert isinstance(error, ValueError)
        assert writer.transport.is_closing()
        other.close()

    any_loop.run_until_complete(main())


@MODULES
@pytest.mark.parametrize("base", [asyncio.SelectorEventLoop, EventLoop], ids=["stdlib", "juggler"])
def test_a_future_that_fails_to_be_set_loses_the_connection_and_nothing_else(
    base: Any, module: Any
) -> None:
    class Failing(asyncio.Future[None]):
        def set_result(self, result: None) -> None:
            raise ValueError("broken")

    class Broken(base):  # type: ignore[misc]
        is_broken = False

        def create_future(self) -> Any:
            return Failing(loop=self) if self.is_broken else super().create_future()

    async def main(loop: Any) -> None:
        told: list[tuple[str, object]] = []
        loop.set_exception_handler(
            lambda _, context: told.append((context["message"], context["exception"]))
        )
        reader, writer, other = await connected(module)
        loop.is_broken = True
        reading = asyncio.ensure_future(reader.read(10))
        await asyncio.sleep(0)
        loop.is_broken = False
        other.send(b"data")
        assert await loop.run_in_executor(None, other.recv, 10) == b""
        ((message, error),) = told
        assert message == "Fatal error: protocol.data_received() call failed."
        assert isinstance(error, ValueError)
        assert writer.transport.is_closing() and not reading.done()
        reading.cancel()
        other.close()

    loop = Broken()
    loop.set_debug(True)
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@MODULES
def test_drain_waits_for_the_other_side(any_loop: Loop, module: Any) -> None:
    async def main() -> None:
        _, writer, other = await connected(module)
        await writer.drain()
        writer.write(bytes(3_000_000))
        draining = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
        await asyncio.sleep(0.005)
        assert not any(task.done() for task in draining)
        draining.pop().cancel()
        other.setblocking(False)
        received = 0
        while received < 3_000_000:
            received += len(await any_loop.sock_recv(other, 65536))
        await asyncio.gather(*draining)
        await closed(writer, other)

    any_loop.run_until_complete(main())


@MODULES
def test_drain_of_a_connection_that_is_lost(any_loop: Loop, module: Any) -> None:
    async def main() -> None:
        _, writer, other = await connected(module)
        writer.write(bytes(3_000_000))
        draining = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.005)
        other.close()
        with pytest.raises(ConnectionError):
            await draining
        with pytest.raises(ConnectionError):
            await writer.drain()
        with pytest.raises(ConnectionError):
            await writer.wait_closed()

    any_loop.run_until_complete(main())


@MODULES
def test_a_client_callback_that_raises(any_loop: Loop, module: Any) -> None:
    async def fail(reader: Any, writer: Any) -> None:
        await reader.read(1)
        raise ZeroDivisionError

    async def main() -> None:
        told: list[dict[str, Any]] = []
        any_loop.set_exception_handler(lambda _, context: told.append(context))
        server = await module.start_server(fail, "127.0.0.1", 0)
        reader, writer = await module.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert await reader.read() == b""
        assert told[0]["message"] == "Unhandled exception in client_connected_cb"
        assert isinstance(told[0]["exception"], ZeroDivisionError)
        await closed(writer)
        server.close()

    any_loop.run_until_complete(main())


def test_the_exposed_buffer_may_be_changed() -> None:
    loop = new_event_loop()
    reader = streams.StreamReader(loop=loop)
    reader.feed_data(b"some data")
    buffer = reader._buffer
    assert isinstance(buffer, bytearray) and buffer == b"some data"
    del buffer[:5]
    reader.feed_data(b" more")
    assert loop.run_until_complete(reader.read(100)) == b"data more"
    reader.feed_data(b"gone")
    reader._buffer.clear()
    reader.feed_eof()
    assert reader.at_eof()
    loop.close()


def test_a_reader_goes_on_in_the_turn_in_which_data_are_found(loop: EventLoop) -> None:
    async def main() -> None:
        reader, writer, other = await connected(streams)
        order: list[object] = []

        async def read() -> None:
            order.append(await reader.read(100))

        def first() -> None:
            other.send(b"data")
            loop.call_soon(second)

        def second() -> None:
            order.append("second")
            loop.call_soon(order.append, "third")

        reading = loop.create_task(read())
        await asyncio.sleep(0)
        loop.call_soon(first)
        await reading
        assert order == ["second", b"data", "third"]
        await closed(writer, other)

    loop.run_until_complete(main())


@pytest.mark.parametrize("count", [2, 1000, 100_000])
def test_a_message_that_comes_while_it_is_waited_for(any_loop: Loop, count: int) -> None:
    """With more behind it, and what is left when nobody waits any more."""

    async def main() -> None:
        reader = streams.StreamReader(limit=10 * count, loop=any_loop)
        message = os.urandom(count)
        for read in (lambda: reader.read(count), lambda: reader.readexactly(count)):
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            reader.feed_data(message)
            assert await reading == message
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            reader.feed_data(message)
            reader.feed_data(b"more")
            assert await reading == message
            assert await reader.readexactly(4) == b"more"
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            reader.feed_data(message)
            reading.cancel()
            await asyncio.wait([reading])
            assert reader._buffer == message
            assert await reader.readexactly(1) + await reader.read(count - 1) == message

    any_loop.run_until_complete(main())


READS = st.one_of(
    st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 3, 10])),
    st.tuples(st.just("readexactly"), st.integers(0, 12)),
    st.tuples(st.just("readline")),
    st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"ab", b"aba"])),
)


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.binary(max_size=20).map(lambda data: bytes(b"ab\nc"[b % 4] for b in data)),
            st.integers(0, 2),
        )
    ),
    reads=st.lists(st.tuples(READS, st.sampled_from([None, None, 0, 1, 2])), max_size=12),
    limit=st.sampled_from([1, 5, 100]),
)
def test_reads_give_what_the_standard_librarys_give(
    pieces: list[tuple[bytes, int]], reads: list[tuple[tuple[Any, ...], int | None]], limit: int
) -> None:
    """Pieces come with some turns between them; some reads are cancelled after some turns."""

    async def outcomes(module: Any) -> list[object]:
        loop = asyncio.get_running_loop()
        reader = module.StreamReader(limit=limit, loop=loop)

        async def feed() -> None:
            for piece, turns in pieces:
                reader.feed_data(piece)
                for _ in range(turns):
                    await asyncio.sleep(0)
            reader.feed_eof()

        feeding = asyncio.ensure_future(feed())
        results: list[object] = []
        for (name, *args), cancelled_after in reads:
            read = getattr(reader, name)(*args)
            if cancelled_after is not None:
                read = asyncio.ensure_future(read)
                for _ in range(cancelled_after):
                    await asyncio.sleep(0)
                read.cancel()
            try:
                results.append(await read)
            except asyncio.CancelledError:
                results.append("cancelled")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
                results.append((type(error), error.args, vars(error)))
            results.append(bytes(reader._buffer))
        await feeding
        return results

    for make in (asyncio.SelectorEventLoop, new_event_loop):
        loop = make()
        assert loop.run_until_complete(outcomes(streams)) == loop.run_until_complete(
            outcomes(asyncio)
        )
        loop.close()
