"""What raises in a loop, wherever it is: juggler's loop does what the standard library's does.

Each program below makes one fault happen. It is run on both loops with an ordinary exception and
with those that end a program, and what was to be seen from outside must be the same: what the
exception handler was told, which callbacks came in which order, what `run_until_complete` raised.
"""

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from juggler.asyncio import new_event_loop

Loop = asyncio.AbstractEventLoop
Seen = list[str]
Fail = Callable[..., Any]
Program = Callable[[Loop, Fail, Seen], Awaitable[object]]

ERRORS = [ValueError, KeyboardInterrupt, SystemExit]


def described(context: dict[str, Any]) -> str:
    """What the exception handler is told, without what is different in each run."""
    text, error = str(context["message"]), context.get("exception")
    for end in (" callback ", " <", " at 0x"):
        text = text.partition(end)[0]
    return f"told: {text}: {type(error).__name__}"


def observed(make_loop: Callable[[], Loop], program: Program, error: type[BaseException]) -> Seen:
    """What is to be seen when `program` runs on a loop of its own."""
    seen: Seen = []

    def fail(*_: object, **__: object) -> None:
        seen.append("fails")
        raise error("on purpose")

    def tell(_: Loop, context: dict[str, Any]) -> None:
        # That nobody has seen a task's exception is told when the task is freed, sooner or later.
        if "never retrieved" not in context["message"]:
            seen.append(described(context))

    def turn(future: Awaitable[object]) -> None:
        try:
            loop.run_until_complete(future)
        except BaseException as raised:
            seen.append(f"raised {type(raised).__name__}")
            assert not loop.is_running()

    loop = make_loop()
    loop.set_exception_handler(tell)
    task = asyncio.ensure_future(program(loop, fail, seen), loop=loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # what a fault has left open
        while not task.done() and len(seen) < 30:  # there is what fails in each turn
            turn(task)
        for _ in range(5):
            turn(asyncio.sleep(0))
        loop.close()
        del task
    return seen


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have the garbage of a fault go before the next test, and with it the warnings."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Telling(asyncio.Protocol, asyncio.DatagramProtocol, asyncio.SubprocessProtocol):
    """A protocol that tells of each call, and fails in one."""

    def __init__(self, where: str, fail: Fail, seen: Seen) -> None:
        self.fail, self.where, self.seen = fail, where, seen
        self.transport: Any = None
        self.gone = asyncio.get_running_loop().create_future()

    def note(self, name: str, *details: object) -> None:
        self.seen.append(" ".join([name, *map(str, details)]))
        if name == self.where:
            self.fail()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("connection_made")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.gone.set_result(None)
        self.note("connection_lost", type(exc).__name__)

    def data_received(self, data: bytes) -> None:
        self.note("data_received", data)

    def eof_received(self) -> None:
        self.note("eof_received")

    def pause_writing(self) -> None:
        self.note("pause_writing")

    def resume_writing(self) -> None:
        self.note("resume_writing")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.note("datagram_received", data)

    def error_received(self, exc: Exception) -> None:
        self.note("error_received", type(exc).__name__)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.note("pipe_data_received", fd, data)

    def pipe_connection_lost(self, fd: int, exc: BaseException | None) -> None:
        self.note("pipe_connection_lost", fd)

    def process_exited(self) -> None:
        self.note("process_exited")


class Buffered(asyncio.BufferedProtocol):
    """As `Telling`, for what is read into the protocol's own buffer."""

    def __init__(self, where: str, fail: Fail, seen: Seen) -> None:
        self.telling = Telling(where, fail, seen)
        self.gone = self.telling.gone
        self.connection_made = self.telling.connection_made  # type: ignore[method-assign]
        self.connection_lost = self.telling.connection_lost  # type: ignore[method-assign]
        self.eof_received = self.telling.eof_received  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> bytearray:
        self.telling.note("get_buffer")
        return bytearray(10)

    def buffer_updated(self, nbytes: int) -> None:
        self.telling.note("buffer_updated", nbytes)


# ------------------------------------------------------------ programs


def of_callback(schedule: Callable[[Loop, Fail], object]) -> Program:
    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        schedule(loop, fail)
        loop.call_soon(seen.append, "the next callback")
        await asyncio.sleep(0.005)
        seen.append("goes on")

    return program


def from_a_thread(loop: Loop, fail: Fail) -> None:
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(fail,))
    thread.start()
    thread.join()


def by_done_callback(loop: Loop, fail: Fail) -> None:
    future = loop.create_future()
    future.add_done_callback(fail)
    future.set_result(None)


def in_exception_handler(loop: Loop, fail: Fail) -> None:
    known = loop.get_exception_handler()

    def handler(same: Loop, context: dict[str, Any]) -> None:
        loop.set_exception_handler(known)
        fail()

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)


def in_task_factory(loop: Loop, fail: Fail) -> None:
    def create() -> None:
        loop.set_task_factory(fail)
        coroutine = asyncio.sleep(0)
        try:
            loop.create_task(coroutine)
        finally:
            coroutine.close()
            loop.set_task_factory(None)

    loop.call_soon(create)


def watched(watch: str) -> Program:
    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            b.send(b"x")

            def ready() -> None:
                getattr(loop, f"remove_{watch}")(a)
                fail()

            getattr(loop, f"add_{watch}")(a, ready)
            await asyncio.sleep(0.005)
            seen.append("goes on")

    return program


async def in_a_task(loop: Loop, fail: Fail, seen: Seen) -> None:
    async def body() -> None:
        await asyncio.sleep(0)
        fail()

    task = loop.create_task(body())
    await asyncio.wait([task])
    seen.append(type(task.exception()).__name__)


async def in_a_task_of_a_group(loop: Loop, fail: Fail, seen: Seen) -> None:
    async def sibling() -> None:
        try:
            await asyncio.sleep(20)
        finally:
            seen.append("sibling ends")

    async def body() -> None:
        await asyncio.sleep(0)
        fail()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(sibling())
            group.create_task(body())
    except BaseException as error:
        seen.append(f"group raises {type(error).__name__}")


async def in_the_executor(loop: Loop, fail: Fail, seen: Seen) -> None:
    try:
        await loop.run_in_executor(None, fail)
    except BaseException as error:
        seen.append(f"awaiting raises {type(error).__name__}")
    await loop.shutdown_default_executor()


async def in_a_signal_handler_of_the_loop(loop: Loop, fail: Fail, seen: Seen) -> None:
    loop.add_signal_handler(signal.SIGUSR1, fail)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.005)
    seen.append(f"goes on, {loop.remove_signal_handler(signal.SIGUSR1)}")


async def in_a_generator_s_end(loop: Loop, fail: Fail, seen: Seen) -> None:
    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            fail()

    async for _ in numbers():
        break
    await asyncio.sleep(0.005)
    seen.append("goes on")


def connected(where: str, protocol: type[Any] = Telling) -> Program:
    """A connection on which everything happens once: data, flow control, the peer's end."""

    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        ours, peer = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.setblocking(False)
        made = protocol(where, fail, seen)
        with peer:
            await loop.create_connection(lambda: made, sock=ours)
            transport = (made.telling if protocol is Buffered else made).transport
            transport.set_write_buffer_limits(100_000, 1000)
            written = b"x" * 1_000_000
            transport.write(written)
            read = 0
            while read < len(written) and not transport.is_closing():
                read += len(await loop.sock_recv(peer, 65536))
            peer.send(b"data")
            await asyncio.sleep(0.005)
            peer.shutdown(socket.SHUT_WR)
            await made.gone
            await asyncio.sleep(0.005)

    return program


async def in_the_protocol_factory(loop: Loop, fail: Fail, seen: Seen) -> None:
    server = await loop.create_server(fail, "127.0.0.1", 0)
    for _ in range(2):
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            while seen.count("fails") == 0:
                await asyncio.sleep(0.001)
            seen.append("connected")
    server.close()


async def in_a_stream_s_callback(loop: Loop, fail: Fail, seen: Seen) -> None:
    server = await asyncio.start_server(fail, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.setblocking(False)
        while "fails" not in seen:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.005)
    server.close()


def datagrams(where: str) -> Program:
    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        made = Telling(where, fail, seen)
        await loop.create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
        transport = made.transport
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            peer.sendto(b"data", transport.get_extra_info("sockname"))
            await asyncio.sleep(0.005)
        # Too long, which is told at once.
        loop.call_soon(transport.sendto, bytes(70_000), ("127.0.0.1", 9))
        await asyncio.sleep(0.005)
        transport.close()
        await made.gone

    return program


def full_datagrams(where: str) -> Program:
    """Datagrams that wait until there is room, then until nobody is there any more."""

    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/peer"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
                peer.bind(path)
                peer.setblocking(False)
                made = Telling(where, fail, seen)
                await loop.create_datagram_endpoint(
                    lambda: made, family=socket.AF_UNIX, remote_addr=path
                )
                transport = made.transport
                transport.set_write_buffer_limits(high=500)

                def fill() -> None:
                    # What 3.13.0 says of an empty buffer is a little more than nothing.
                    while transport.get_write_buffer_size() < 100:
                        transport.sendto(bytes(1000))

                def drain() -> None:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            peer.recv(1000)

                for act in (fill, drain, fill):
                    loop.call_soon(act)
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.005)
            transport.close()
            await made.gone

    return program


def piped(where: str) -> Program:
    """Pipes on which everything happens once: data, flow control, the ends."""

    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        ours, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        reads, writes = Telling(where, fail, seen), Telling(where, fail, seen)
        await loop.connect_write_pipe(lambda: writes, os.fdopen(theirs, "wb", 0))
        writes.transport.set_write_buffer_limits(1000)
        loop.call_soon(writes.transport.write, b"x" * 10_000)
        await asyncio.sleep(0.005)
        os.set_blocking(ours, False)
        read = 0
        while read < 10_000:
            with contextlib.suppress(BlockingIOError):
                read += len(os.read(ours, 5000))
            await asyncio.sleep(0)
        await loop.connect_read_pipe(lambda: reads, os.fdopen(ours, "rb", 0))
        loop.call_soon(writes.transport.write, b"data")
        await asyncio.sleep(0.005)
        writes.transport.close()
        await writes.gone
        await reads.gone
        await asyncio.sleep(0.005)

    return program


def child(where: str) -> Program:
    async def program(loop: Loop, fail: Fail, seen: Seen) -> None:
        made = Telling(where, fail, seen)
        transport, _ = await loop.subprocess_exec(
            lambda: made, "sh", "-c", "read line; echo $line", stderr=None
        )
        stdin: Any = transport.get_pipe_transport(0)
        stdin.write(b"data\n")
        await made.gone
        # Which of the two pipes ends first, or the process, is the system's affair.
        seen[:] = sorted(seen)

    return program


CALLBACKS: dict[str, Callable[[Loop, Fail], object]] = {
    "call_soon": lambda loop, fail: loop.call_soon(fail),
    "call_later": lambda loop, fail: loop.call_later(0.001, fail),
    "call_at": lambda loop, fail: loop.call_at(loop.time(), fail),
    "call_soon_threadsafe": from_a_thread,
    "done callback": by_done_callback,
    "exception handler": in_exception_handler,
    "task factory": in_task_factory,
}
PROGRAMS: dict[str, Program] = {
    **{name: of_callback(schedule) for name, schedule in CALLBACKS.items()},
    "reader": watched("reader"),
    "writer": watched("writer"),
    "task": in_a_task,
    "task of a group": in_a_task_of_a_group,
    "executor": in_the_executor,
    "signal handler": in_a_signal_handler_of_the_loop,
    "asynchronous generator": in_a_generator_s_end,
    "protocol factory": in_the_protocol_factory,
    "stream's callback": in_a_stream_s_callback,
}
METHODS = ["connection_made", "connection_lost", "data_received", "eof_received"]
METHODS += ["pause_writing", "resume_writing"]
PROGRAMS |= {name: connected(name) for name in METHODS}
PROGRAMS |= {name: connected(name, Buffered) for name in ("get_buffer", "buffer_updated")}
PROGRAMS |= {f"{name} of a pipe": piped(name) for name in METHODS}
PROGRAMS |= {
    f"{name} of datagrams": datagrams(name)
    for name in ("connection_made", "datagram_received", "error_received", "connection_lost")
}
PROGRAMS |= {
    f"{name} of datagrams that wait": full_datagrams(name)
    for name in ("pause_writing", "resume_writing", "error_received", "connection_lost")
}
PROGRAMS |= {
    name: child(name) for name in ("pipe_data_received", "pipe_connection_lost", "process_exited")
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_what_raises_is_met_as_in_the_standard_library(
    program: Program, error: type[BaseException]
) -> None:
    expected = observed(asyncio.SelectorEventLoop, program, error)
    assert "fails" in expected
    assert observed(new_event_loop, program, error) == expected
