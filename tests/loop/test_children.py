"""Child processes and their streams."""

import asyncio as stdlib
import gc
import os
import signal
import sys
from typing import Any

import pytest

from juggler import asyncio
from juggler.asyncio import EventLoop
from juggler.asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process, SubprocessStreamProtocol


async def python(program: str, **options: Any) -> Process:
    """A child with all pipes that runs a Python program."""
    pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"import os, sys\n{program}", **{**pipes, **options}
    )


def streams(child: Process) -> tuple[Any, Any, Any]:
    """The streams of a child, none of which is None."""
    return child.stdin, child.stdout, child.stderr


def test_the_streams_are_native(loop: EventLoop) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        stdin, stdout, stderr = streams(child)
        assert isinstance(stdin, asyncio.StreamWriter)
        assert isinstance(stdout, asyncio.StreamReader)
        assert isinstance(stderr, asyncio.StreamReader)
        assert isinstance(stdin, stdlib.StreamWriter)
        for size in (1, 1000, 65_536, 1_000_000):
            stdin.write(b"%d" % (size % 10) * size)
            assert await stdout.readexactly(size) == b"%d" % (size % 10) * size
            await stdin.drain()
        stdin.close()
        await stdin.wait_closed()
        assert await stdout.read() == b""
        assert await child.wait() == 0

    loop.run_until_complete(main())


def test_what_a_child_says_at_once_comes_first(loop: EventLoop) -> None:
    async def main() -> None:
        # It may come before the streams are there, while they are made, and after that.
        program = 'i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done; echo "$0" >&2'
        expected = b"".join(b"%d\n" % number for number in range(300))
        for turn in range(30):
            child = await asyncio.create_subprocess_exec(
                "sh", "-c", program, f"turn {turn}", stdout=PIPE, stderr=PIPE
            )
            if turn % 3 == 0:
                await asyncio.sleep(0.01)
            assert await child.communicate() == (expected, b"turn %d\n" % turn)
        child = await asyncio.create_subprocess_shell(
            "echo out; echo err >&2", stdout=PIPE, stderr=STDOUT, stdin=DEVNULL
        )
        assert await child.communicate() == (b"out\nerr\n", None)

    loop.run_until_complete(main())


def test_a_child_that_floods_one_pipe_while_another_is_full(loop: EventLoop) -> None:
    async def main() -> None:
        child = await python(
            "for _ in range(50): os.write(2, bytes(20_000))\n"
            "data = sys.stdin.buffer.read()\n"
            "sys.stdout.buffer.write(data[::-1])"
        )
        data = bytes(range(256)) * 4000
        out, err = await asyncio.wait_for(child.communicate(data), 60)
        assert out == data[::-1]
        assert err == bytes(1_000_000)
        assert child.returncode == 0

    loop.run_until_complete(main())


def test_a_reader_with_a_small_limit_has_the_child_wait(loop: EventLoop) -> None:
    async def main() -> None:
        child = await python("for _ in range(50): os.write(1, b'x' * 20_000)", limit=1000)
        _, stdout, _ = streams(child)
        await asyncio.sleep(0.3)
        pipe: Any = child._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        assert not pipe.is_reading()
        assert child.returncode is None
        assert await stdout.read() == b"x" * 1_000_000
        assert await child.wait() == 0

    loop.run_until_complete(main())


def test_a_child_that_does_not_read(loop: EventLoop) -> None:
    async def main() -> None:
        child = await python("os.close(0); print('closed', flush=True); sys.stdin = None")
        stdin, stdout, _ = streams(child)
        stdin.write(bytes(1_000_000))
        assert await stdout.readline() == b"closed\n"
        await child.wait()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await stdin.drain()
        child = await python("os.close(0)")
        out, err = await child.communicate(bytes(1_000_000))
        assert (out, child.returncode) == (b"", 0), err

    loop.run_until_complete(main())


def test_a_child_that_is_killed(loop: EventLoop) -> None:
    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        _, stdout, _ = streams(child)
        child.kill()
        assert await stdout.read() == b""
        assert await child.wait() == -signal.SIGKILL

    loop.run_until_complete(main())


def test_who_derives_from_the_protocol_is_told_of_everything(loop: EventLoop) -> None:
    told: list[tuple[int, bytes]] = []

    class Derived(SubprocessStreamProtocol):
        def pipe_data_received(self, fd: int, data: bytes | str) -> None:
            assert isinstance(data, bytes)
            told.append((fd, data))
            super().pipe_data_received(fd, data)

    async def main() -> None:
        transport, protocol = await loop.subprocess_exec(
            lambda: Derived(1000, loop), "cat", stdin=PIPE, stdout=PIPE, stderr=None
        )
        child = Process(transport, protocol, loop)
        assert await child.communicate(b"passed on") == (b"passed on", None)
        assert told == [(1, b"passed on")]

    loop.run_until_complete(main())


def test_another_protocol_of_a_pipe_gets_what_comes(loop: EventLoop) -> None:
    class Takes(asyncio.Protocol):
        def __init__(self) -> None:
            self.data: asyncio.Queue[bytes] = asyncio.Queue()

        def data_received(self, data: bytes) -> None:
            self.data.put_nowait(data)

    async def main() -> None:
        child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        stdin, stdout, _ = streams(child)
        stdin.write(b"one\n")
        assert await stdout.readline() == b"one\n"
        pipe: Any = child._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        before, takes = pipe.get_protocol(), Takes()
        pipe.set_protocol(takes)
        stdin.write(b"two\n")
        assert await takes.data.get() == b"two\n"
        pipe.set_protocol(before)
        stdin.write(b"three\n")
        assert await stdout.readline() == b"three\n"
        stdin.close()
        await child.wait()

    loop.run_until_complete(main())


def test_children_leave_no_descriptor(loop: EventLoop) -> None:
    async def main() -> None:
        async def one(number: int) -> None:
            child = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            assert await child.communicate(b"%d" % number) == (b"%d" % number, None)

        await one(0)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(10):
            await asyncio.gather(*map(one, range(number)))
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    loop.run_until_complete(main())


def test_the_module_has_the_standard_library_s_names() -> None:
    for name in ("DEVNULL", "PIPE", "STDOUT", "Process"):
        assert getattr(asyncio.subprocess, name) is getattr(stdlib.subprocess, name)
    assert asyncio.subprocess.create_subprocess_exec is asyncio.create_subprocess_exec
    assert asyncio.create_subprocess_exec is not stdlib.create_subprocess_exec
