"""Peers that stop half-way, read nothing or send without end; ten thousand of them; forks."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
from asyncio import constants
from itertools import pairwise
from typing import Any

import pytest

from juggler.asyncio import EventLoop, open_connection, run, start_server

Loop = asyncio.AbstractEventLoop
KIB = 1024


def descriptors() -> set[str]:
    """The descriptors that are open."""
    return set(os.listdir("/proc/self/fd"))


def small_buffers(sock: socket.socket) -> None:
    """Have the system keep little, so that what is kept elsewhere is to be seen."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, 16 * KIB)


def test_a_peer_that_stops_sending_still_gets_its_answer(any_loop: Loop) -> None:
    answer = bytes(range(256)) * 4096

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"question"
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            client = socket.create_connection(server.sockets[0].getsockname())
            with client:
                client.setblocking(False)
                client.send(b"question")
                client.shutdown(socket.SHUT_WR)
                received = bytearray()
                while chunk := await asyncio.get_running_loop().sock_recv(client, 65536):
                    received += chunk
                assert received == answer

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("native", [True, False], ids=["juggler's streams", "asyncio's streams"])
def test_a_peer_that_reads_nothing_stalls_who_writes(loop: EventLoop, native: bool) -> None:
    async def main() -> None:
        ours, peer = socket.socketpair()
        small_buffers(ours)
        small_buffers(peer)
        connect: Any = open_connection if native else asyncio.open_connection
        _, writer = await connect(sock=ours)
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                writer.write(bytes(4 * KIB))
                written += 4 * KIB
                await writer.drain()

        with peer:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(write(), 0.1)
            # What the transport and the system keep, not more: the rest was never written.
            assert 64 * KIB < writer.transport.get_write_buffer_size() <= 68 * KIB
            assert written < 256 * KIB
            writer.transport.abort()
            with pytest.raises(ConnectionError):
                await writer.drain()

    loop.run_until_complete(main())


@pytest.mark.parametrize("native", [True, False], ids=["juggler's streams", "asyncio's streams"])
def test_a_peer_that_floods_fills_the_reader_to_its_limit(loop: EventLoop, native: bool) -> None:
    total = 32 * KIB * KIB

    async def main() -> None:
        ours, peer = socket.socketpair()
        small_buffers(ours)
        small_buffers(peer)
        sent = 0

        def flood() -> None:
            nonlocal sent
            block = bytes(16 * KIB)
            while sent < total:
                sent += peer.send(block)
            peer.close()

        connect: Any = open_connection if native else asyncio.open_connection
        reader, writer = await connect(sock=ours, limit=64 * KIB)
        thread = threading.Thread(target=flood)
        thread.start()
        before = -1
        while sent != before:  # until the peer makes no progress any more
            before = sent
            await asyncio.sleep(0.05)
        # Twice the limit, and what one read may add to that.
        assert 64 * KIB < len(reader._buffer) <= 2 * 64 * KIB + 256 * KIB
        assert sent < 1024 * KIB
        received = 0
        while chunk := await reader.read(100 * KIB):
            assert len(chunk) <= 100 * KIB
            received += len(chunk)
        thread.join()
        assert received == sent == total
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(main())


def test_ten_thousand_connections_opened_and_dropped() -> None:
    connections, batch = 10_000, 100
    made = lost = 0
    reset = struct.pack("ii", 1, 0)

    class Counting(asyncio.Protocol):
        transport: asyncio.Transport

        def connection_made(self, transport: Any) -> None:
            nonlocal made
            made += 1
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal lost
            lost += 1

    def drop(address: Any) -> None:
        for start in range(0, connections, batch):
            clients = [socket.create_connection(address) for _ in range(batch)]
            for number, client in enumerate(clients, start):
                if number % 2:
                    client.send(b"x")
                if number % 3:
                    # Also spares the system the memory of ten thousand ends.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                client.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Counting, "127.0.0.1", 0, backlog=1000)
        address = server.sockets[0].getsockname()
        await asyncio.to_thread(int)
        before = descriptors()
        await asyncio.to_thread(drop, address)
        while lost < connections:
            await asyncio.sleep(0.01)
        assert (made, lost) == (connections, connections)
        assert descriptors() == before
        reader, writer = await open_connection(*address)
        writer.write(b"still there")
        assert await reader.readexactly(11) == b"still there"
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())


def test_a_server_without_descriptors_waits_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    pause = 0.05
    monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", pause)
    told: list[float] = []
    greeted = 0

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        writer.write(b"hello")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (greet(reader, writer) if freed.is_set() else freed.wait())
        writer.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(loop.time()))
        server = await start_server(hold, "127.0.0.1", 0)
        clients = [socket.socket() for _ in range(50)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (clients[-1].fileno() + 10, hard))
        try:
            for client in clients:
                client.setblocking(False)
                client.connect_ex(server.sockets[0].getsockname())
            while len(told) < 4:
                await asyncio.sleep(0.01)
            # One try after each pause, and nothing in between.
            assert all(later - earlier >= pause * 0.9 for earlier, later in pairwise(told))
            assert greeted == 0
            freed.set()  # those that were accepted go, and the others come
            for client in clients:
                answer = await loop.sock_recv(client, 5)
                assert answer in (b"", b"hello")
                client.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 0 < greeted < 50
        server.close()
        await server.wait_closed()

    freed = asyncio.Event()
    run(main())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_while_the_loop_serves_leaves_the_parent_alone() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def ask(reader: Any, writer: Any, line: bytes) -> bytes:
        writer.write(line)
        answer: bytes = await reader.readline()
        return answer

    async def serve_and_ask() -> bool:
        async with await start_server(echo, "127.0.0.1", 0) as server:
            reader, writer = await open_connection(*server.sockets[0].getsockname())
            answer = await ask(reader, writer, b"child\n")
            writer.close()
            return answer == b"child\n"

    def child(writer: Any, server: asyncio.Server) -> None:
        """Let go of all that is the parent's, and have a loop of one's own."""
        status = 1
        try:
            writer.transport.abort()
            server.close()
            status = 0 if run(serve_and_ask()) else 2
        finally:
            os._exit(status)

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        async with await start_server(echo, "127.0.0.1", 0) as server:
            ticking = asyncio.create_task(tick())
            reader, writer = await open_connection(*server.sockets[0].getsockname())
            assert await ask(reader, writer, b"before\n") == b"before\n"
            pid = os.fork()
            if pid == 0:
                child(writer, server)
            before = ticks
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert await ask(reader, writer, b"after\n") == b"after\n"
            assert await serve_and_ask()
            while ticks == before:
                await asyncio.sleep(0)
            ticking.cancel()
            writer.close()
            await writer.wait_closed()

    run(main())


PENDING = """
import asyncio, gc, logging, os, socket, sys, threading, warnings
from juggler.asyncio import new_event_loop

warnings.simplefilter("ignore")  # that nobody has closed the transports
logging.disable()  # or ended the tasks
sys.unraisablehook = lambda _: None  # or the child, whose transport complains up to 3.12
ran = []

class Marker:
    def __del__(self):
        ran.append("freed")

async def waiting(marker):
    try:
        await asyncio.sleep(60)
    finally:
        ran.append("task closed")

async def main():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    a, b = socket.socketpair()
    await asyncio.open_connection(sock=a)
    reader, _ = await asyncio.open_connection(sock=b)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    asyncio.create_task(reader.read())
    asyncio.create_task(waiting(Marker()))
    child = await asyncio.create_subprocess_exec("sleep", "60", stdout=-1)
    await asyncio.sleep(0.01)
    return child.pid

def pester():
    try:
        while True:
            loop.call_soon_threadsafe(int)
    except RuntimeError:
        ran.append("refused")

def refused(use, *args):
    try:
        use(*args)
    except RuntimeError as error:
        assert "closed" in str(error)
        ran.append("refused")

before = os.listdir("/proc/self/fd")
loop = new_event_loop()
pid = loop.run_until_complete(main())
loop.call_soon(ran.append, "ready")
loop.call_later(0, ran.append, "timer")
future = loop.create_future()
future.add_done_callback(lambda _: ran.append("future"))
future.set_result(None)
thread = threading.Thread(target=pester)
thread.start()
loop.close()
thread.join()
os.kill(pid, 9)
refused(loop.call_soon, int)
refused(loop.call_soon_threadsafe, int)
refused(loop.call_later, 1, int)
del loop, future
for _ in range(3):
    gc.collect()
assert os.listdir("/proc/self/fd") == before
print(*sorted(ran))
"""


def test_a_loop_closed_with_work_pending_lets_go_of_all() -> None:
    command = [sys.executable, "-c", PENDING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "freed refused refused refused refused task closed\n"


LEAKS = """
import gc, os, sys, tempfile, threading
from juggler import asyncio, _juggler

async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
    writer.close()

async def main(path):
    loop = asyncio.get_running_loop()
    queue, lock = asyncio.Queue(), asyncio.Lock()
    async def produce():
        async with lock:
            for number in range(10):
                await queue.put(number)
    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        for _ in range(10):
            await queue.get()
    server = await asyncio.start_unix_server(serve, path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"line\\n" * 1000)
    await reader.readexactly(5000)
    forever = asyncio.create_task(asyncio.sleep(60))
    loop.call_later(60, print)
    loop.call_soon_threadsafe(int)
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    except TimeoutError:
        pass
    writer.close()
    await writer.wait_closed()
    server.close()

def state():
    gc.collect()
    page = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * page
    descriptors = len(os.listdir("/proc/self/fd"))
    return descriptors, sys.getallocatedblocks(), memory, threading.active_count()

def loops(count, path):
    for number in range(count):
        path_of_its_own = f"{path}/{number}"
        asyncio.run(main(path_of_its_own))

with tempfile.TemporaryDirectory() as path:
    loops(200, path)
    before = state()
    for number in os.listdir(path):
        os.unlink(f"{path}/{number}")
    loops(1000, path)
after = state()
assert not list(_juggler._pending_tasks())
print(*(b - a for a, b in zip(before, after)))
"""


def test_a_thousand_loops_leave_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKS], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    opened, blocks, memory, threads = map(int, done.stdout.split())
    assert (opened, threads) == (0, 0)
    # One of either kind for each loop would be a leak; the allocators' own needs are less.
    assert blocks < 500 and memory < 1000 * KIB, (blocks, memory)
