"""Transports of pipes, against what the standard library's do."""

import asyncio
import fcntl
import gc
import logging
import os
import pty
import socket
import tempfile
import tty
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler.asyncio import EventLoop, StreamReader, StreamReaderProtocol, new_event_loop

Loop = asyncio.AbstractEventLoop


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.error: BaseException | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.data += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return True  # which says nothing to a pipe

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.lost.set_result(None)


async def within(waited: Awaitable[object]) -> None:
    await asyncio.wait_for(waited, 30)


async def reader(loop: Loop) -> tuple[Any, Recorder, int]:
    """A transport that reads, its protocol, and the end to write to."""
    read, write = os.pipe()
    transport, protocol = await loop.connect_read_pipe(Recorder, os.fdopen(read, "rb", 0))
    return transport, protocol, write


async def writer(loop: Loop, size: int | None = None) -> tuple[Any, Recorder, int]:
    """A transport that writes, its protocol, and the end to read from."""
    read, write = os.pipe()
    if size is not None:
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, size)
    transport, protocol = await loop.connect_write_pipe(Recorder, os.fdopen(write, "wb", 0))
    return transport, protocol, read


def descriptors() -> int:
    """How many descriptors the process has."""
    return len(os.listdir("/proc/self/fd"))


def drained(fd: int) -> bytes:
    """What is in a pipe and comes until its end."""
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_reading(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, fd = await reader(any_loop)
        assert isinstance(transport, asyncio.ReadTransport)
        pipe = transport.get_extra_info("pipe")
        assert not os.get_blocking(pipe.fileno())
        assert transport.get_extra_info("socket", 7) == 7
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        assert not transport.is_closing()
        os.write(fd, b"one")
        await asyncio.sleep(0.01)
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        os.write(fd, b" two")
        await asyncio.sleep(0.01)
        assert protocol.data == b"one"
        transport.resume_reading()
        transport.resume_reading()
        await asyncio.sleep(0.01)
        assert protocol.data == b"one two"
        other = Recorder()
        transport.set_protocol(other)
        os.write(fd, b"three")
        os.close(fd)
        await within(other.lost)
        assert other.data == b"three"
        assert other.events == ["eof", "lost"]
        assert other.error is None
        assert protocol.events == ["made"]
        assert transport.is_closing()
        assert pipe.closed

    any_loop.run_until_complete(main())


def test_a_reader_that_is_closed(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, fd = await reader(any_loop)
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        transport.resume_reading()
        await within(protocol.lost)
        assert protocol.events == ["made", "lost"]
        with pytest.raises(BrokenPipeError):
            os.write(fd, b"x")
        os.close(fd)

    any_loop.run_until_complete(main())


def test_writing(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, fd = await writer(any_loop, 4096)
        assert isinstance(transport, asyncio.WriteTransport)
        assert isinstance(transport, asyncio.Transport)
        assert not os.get_blocking(transport.get_extra_info("pipe").fileno())
        assert transport.can_write_eof()
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=10_000, low=1000)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_write_buffer_limits(high=1, low=2)
        array = bytearray(b"a" * 5000)
        transport.write(array)
        array[:] = b"z" * 5000  # it was copied
        assert transport.get_write_buffer_size() == 904
        transport.write(b"")
        transport.writelines([b"b" * 3000, memoryview(b"c" * 3000)])
        assert protocol.events == ["made"]
        transport.write(memoryview(b"d" * 4000))
        assert transport.get_write_buffer_size() == 10_904
        assert protocol.events == ["made", "pause"]
        got = bytearray()
        while len(got) < 15_000:
            await asyncio.sleep(0.001)
            got += os.read(fd, 4096)
        await asyncio.sleep(0.001)
        assert bytes(got) == b"a" * 5000 + b"b" * 3000 + b"c" * 3000 + b"d" * 4000
        assert protocol.events == ["made", "pause", "resume"]
        transport.write(b"last")
        transport.write_eof()
        transport.write(b"too late")
        await within(protocol.lost)
        assert protocol.error is None
        assert drained(fd) == b"last"

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_what_is_written_before_the_end_comes(any_loop: Loop, end: str) -> None:
    async def main() -> None:
        transport, protocol, fd = await writer(any_loop, 4096)
        transport.write(bytes(100_000))
        getattr(transport, end)()
        assert transport.is_closing()
        got = any_loop.run_in_executor(None, drained, fd)
        await within(protocol.lost)
        assert await got == bytes(100_000)
        assert protocol.events == ["made", "pause", "resume", "lost"]
        assert protocol.error is None

    any_loop.run_until_complete(main())


def test_what_is_aborted_is_lost(any_loop: Loop) -> None:
    async def main() -> None:
        transport, protocol, fd = await writer(any_loop, 4096)
        transport.write(bytes(100_000))
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        await within(protocol.lost)
        assert protocol.events == ["made", "pause", "lost"]
        assert len(drained(fd)) == 4096

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("unwritten", [0, 100_000])
def test_a_reader_that_goes(any_loop: Loop, unwritten: int) -> None:
    async def main() -> None:
        transport, protocol, fd = await writer(any_loop, 4096)
        transport.write(bytes(unwritten))
        os.close(fd)
        await within(protocol.lost)
        assert type(protocol.error) is (BrokenPipeError if unwritten else type(None))
        assert transport.get_write_buffer_size() == 0

    any_loop.run_until_complete(main())


def test_a_write_that_fails_is_no_exception(
    any_loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        transport, protocol, fd = await writer(any_loop)
        os.close(fd)
        transport.write(b"to nobody")
        assert transport.is_closing()
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(10):
                transport.write(b"to nobody")
        assert "pipe closed by peer" in caplog.text
        await within(protocol.lost)
        assert isinstance(protocol.error, BrokenPipeError)
        assert protocol.events == ["made", "lost"]

    any_loop.run_until_complete(main())


def test_only_what_can_be_waited_for(any_loop: Loop) -> None:
    async def main() -> None:
        with tempfile.TemporaryFile() as file:
            with pytest.raises(ValueError, match="pipes/sockets only"):
                await any_loop.connect_read_pipe(Recorder, file)
            with pytest.raises(ValueError, match="only for pipes, sockets and character devices"):
                await any_loop.connect_write_pipe(Recorder, file)
            assert os.get_blocking(file.fileno())

    any_loop.run_until_complete(main())


def test_sockets_and_named_pipes(any_loop: Loop) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        _, ours = await any_loop.connect_read_pipe(Recorder, a)
        writing, theirs = await any_loop.connect_write_pipe(Recorder, b)
        writing.write(b"through a socket")
        writing.close()
        await within(ours.lost)
        await within(theirs.lost)
        assert ours.data == b"through a socket"
        assert (a.fileno(), b.fileno()) == (-1, -1)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/fifo"
            os.mkfifo(path)
            read = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
            _, ours = await any_loop.connect_read_pipe(Recorder, read)
            write = os.fdopen(os.open(path, os.O_WRONLY), "wb", 0)
            writing, theirs = await any_loop.connect_write_pipe(Recorder, write)
            writing.write(b"through a file")
            await asyncio.sleep(0.01)
            assert ours.data == b"through a file"
            ours.transport.close()
            await within(theirs.lost)
            assert theirs.error is None

    any_loop.run_until_complete(main())


def test_a_terminal(any_loop: Loop) -> None:
    told: list[Any] = []
    any_loop.set_exception_handler(lambda _, context: told.append(context))

    async def main() -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        ours = os.fdopen(os.dup(slave), "wb", 0)
        writing, theirs = await any_loop.connect_write_pipe(Recorder, ours)
        _, protocol = await any_loop.connect_read_pipe(Recorder, os.fdopen(master, "rb", 0))
        os.write(master, b"typed")  # which is no end
        writing.write(b"shown")
        await asyncio.sleep(0.01)
        assert protocol.data == b"shown"
        assert theirs.events == ["made"]
        writing.close()
        await within(theirs.lost)
        os.close(slave)
        # The other side's end is an error of the system's, which nobody is told.
        await within(protocol.lost)
        assert isinstance(protocol.error, OSError)
        assert told == []

    any_loop.run_until_complete(main())


def test_what_is_said_of_them(loop: EventLoop) -> None:
    async def main() -> None:
        reading, protocol, fd = await reader(loop)
        number = reading.get_extra_info("pipe").fileno()
        assert repr(reading) == f"<ReadPipeTransport fd={number} polling>"
        reading.pause_reading()
        assert repr(reading) == f"<ReadPipeTransport fd={number} idle>"
        reading.close()
        assert repr(reading) == f"<ReadPipeTransport closing fd={number} idle>"
        await within(protocol.lost)
        assert repr(reading) == f"<ReadPipeTransport closed fd={number}>"
        os.close(fd)
        writing, protocol, fd = await writer(loop, 4096)
        number = writing.get_extra_info("pipe").fileno()
        assert repr(writing) == f"<WritePipeTransport fd={number} idle bufsize=0>"
        writing.write(bytes(5000))
        assert repr(writing) == f"<WritePipeTransport fd={number} polling bufsize=904>"
        with pytest.raises(TypeError, match="must be a bytes"):
            writing.write("text")
        os.close(fd)
        await within(protocol.lost)

    loop.run_until_complete(main())


def test_one_that_nobody_closed_warns_and_closes_its_pipe(any_loop: Loop) -> None:
    async def main() -> None:
        for make in (reader, writer):
            transport, protocol, fd = await make(any_loop)
            pipe = transport.get_extra_info("pipe")
            if make is writer:
                # The loop holds what it watches.
                any_loop.remove_reader(pipe)
            else:
                transport.pause_reading()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del transport, protocol
                gc.collect()
            assert any("unclosed transport <" in str(warning.message) for warning in caught)
            assert pipe.closed
            os.close(fd)

    any_loop.run_until_complete(main())


def test_ten_thousand_pipes_leave_no_descriptor(loop: EventLoop) -> None:
    async def main() -> None:
        before = descriptors()
        for number in range(5000):
            reading, ours, to = await reader(loop)
            writing, theirs, other = await writer(loop)
            writing.write(b"x")
            # Whoever goes first.
            if number % 2:
                os.close(to)
                os.close(other)
            else:
                reading.close()
                writing.abort()
            await ours.lost
            await theirs.lost
            if not number % 2:
                os.close(to)
                os.close(other)
        gc.collect()
        assert descriptors() == before

    loop.run_until_complete(main())


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.binary(max_size=20_000), max_size=20),
    reads=st.lists(st.integers(1, 9000), min_size=1, max_size=30),
    size=st.sampled_from([4096, 8192, 65536]),
    pauses=st.lists(st.booleans(), min_size=1, max_size=10),
    lines=st.booleans(),
)
def test_bytes_are_neither_lost_nor_reordered(
    chunks: list[bytes], reads: list[int], size: int, pauses: list[bool], lines: bool
) -> None:
    """Random writes, to a transport; reads, by hand into another pipe that a transport reads."""

    async def main(loop: Loop) -> None:
        writing, theirs, fd = await writer(loop, size)
        reading, ours, to = await reader(loop)
        fcntl.fcntl(to, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(fd, False)
        os.set_blocking(to, False)
        if lines:
            writing.writelines(chunks)
        for number, chunk in enumerate([] if lines else chunks):
            writing.write(chunk)
            if pauses[number % len(pauses)]:
                await asyncio.sleep(0)
        writing.close()
        turn, held = 0, b""
        while True:
            turn += 1
            if pauses[turn % len(pauses)]:
                reading.pause_reading()
            else:
                reading.resume_reading()
            try:
                held = held or os.read(fd, reads[turn % len(reads)])
                if not held:
                    break
                held = held[os.write(to, held) :]
            except BlockingIOError:
                reading.resume_reading()
            await asyncio.sleep(0)
        os.close(fd)
        os.close(to)
        reading.resume_reading()
        await within(ours.lost)
        await within(theirs.lost)
        assert bytes(ours.data) == b"".join(chunks)
        assert theirs.error is None

    loop = new_event_loop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.close()


def test_a_stream_reader_is_fed_by_the_transport(loop: EventLoop) -> None:
    async def main() -> None:
        read, write = os.pipe()
        stream = StreamReader(limit=2000, loop=loop)
        protocol = StreamReaderProtocol(stream, loop=loop)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(read, "rb", 0))
        os.write(write, b"line\n" + bytes(20_000))
        assert await stream.readline() == b"line\n"
        await asyncio.sleep(0.01)
        assert not transport.is_reading()  # there is more than the stream wants to hold
        assert await stream.readexactly(20_000) == bytes(20_000)
        assert transport.is_reading()
        os.close(write)
        assert await stream.read() == b""

    loop.run_until_complete(main())


def test_a_fork_while_the_loop_runs(loop: EventLoop) -> None:
    async def main() -> None:
        transport, protocol, fd = await reader(loop)
        writing, theirs, other = await writer(loop)
        if (child := os.fork()) == 0:
            status = 1
            try:
                # What the child closes here, its parent goes on with.
                transport.pause_reading()
                writing.abort()
                own = new_event_loop()
                asyncio._set_running_loop(None)
                status = own.run_until_complete(_own_pipe(own))
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.write(fd, b"still here")
        writing.write(b"here, too")
        await asyncio.sleep(0.01)
        assert protocol.data == b"still here"
        assert os.read(other, 100) == b"here, too"
        for end in (transport, writing):
            end.close()
        await within(protocol.lost)
        await within(theirs.lost)
        os.close(fd)
        os.close(other)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        loop.run_until_complete(main())


async def _own_pipe(loop: Loop) -> int:
    _, protocol, fd = await reader(loop)
    os.write(fd, b"child")
    await asyncio.sleep(0.01)
    return 0 if protocol.data == b"child" else 2


Make = Callable[[Loop], Awaitable[tuple[Any, Recorder, int]]]


@pytest.mark.parametrize("make", [reader, writer])
def test_closed_while_it_begins(any_loop: Loop, make: Make) -> None:
    """A protocol that closes at once."""

    class Closes(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            transport.close()

    async def main() -> None:
        read, write = os.pipe()
        kept, given = (write, read) if make is reader else (read, write)
        connect = any_loop.connect_read_pipe if make is reader else any_loop.connect_write_pipe
        mode = "rb" if make is reader else "wb"
        _, protocol = await connect(Closes, os.fdopen(given, mode, 0))
        await within(protocol.lost)
        assert protocol.events == ["made", "lost"]
        os.close(kept)

    any_loop.run_until_complete(main())


def test_a_protocol_with_a_buffer_of_its_own(loop: EventLoop) -> None:
    """The standard library's pipes have no use for one."""

    class Buffered(asyncio.BufferedProtocol):
        def __init__(self) -> None:
            self.place = bytearray(3)
            self.got = bytearray()
            self.lost = loop.create_future()

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.place

        def buffer_updated(self, nbytes: int) -> None:
            self.got += self.place[:nbytes]

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        read, write = os.pipe()
        _, protocol = await loop.connect_read_pipe(Buffered, os.fdopen(read, "rb", 0))
        os.write(write, b"bit by bit")
        os.close(write)
        await within(protocol.lost)
        assert protocol.got == b"bit by bit"

    loop.run_until_complete(main())
