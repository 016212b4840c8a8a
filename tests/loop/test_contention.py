"""A loop beside threads that compute: both get on, and the interpreter is as it was afterwards."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import juggler.asyncio

pytestmark = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to wait for"
)


class _Computing(threading.Thread):
    def __init__(self) -> None:
        super().__init__()
        self.units = 0
        self.over = False

    def run(self) -> None:
        while not self.over:
            for _ in range(100):
                pass
            self.units += 1


@contextmanager
def _computing() -> Iterator[_Computing]:
    thread = _Computing()
    thread.start()
    try:
        yield thread
    finally:
        thread.over = True
        thread.join()


@pytest.fixture(autouse=True)
def _usual_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


async def _sleeps(count: int) -> None:
    """Has the loop sleep so many times."""
    for _ in range(count):
        await asyncio.sleep(0.0001)


async def _is_noticed() -> None:
    """Has the loop sleep until it has had to wait for who computes, as it will soon."""
    while sys.getswitchinterval() >= 0.001:
        await _sleeps(1)


def test_the_switch_interval_is_short_only_meanwhile() -> None:
    with _computing():
        juggler.asyncio.run(asyncio.wait_for(_is_noticed(), 30))
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_it_is_as_before_once_nobody_computes() -> None:
    async def main() -> None:
        with _computing():
            await _is_noticed()
        while sys.getswitchinterval() < 0.001:
            await _sleeps(1)
        assert sys.getswitchinterval() == pytest.approx(0.005)

    juggler.asyncio.run(asyncio.wait_for(main(), 30))


def test_what_the_program_sets_stays() -> None:
    async def main() -> None:
        await _is_noticed()
        sys.setswitchinterval(0.02)

    with _computing():
        juggler.asyncio.run(asyncio.wait_for(main(), 30))
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_a_shorter_one_of_the_programs_is_left_alone() -> None:
    sys.setswitchinterval(0.0001)
    with _computing():
        juggler.asyncio.run(_sleeps(20))
        assert sys.getswitchinterval() == pytest.approx(0.0001)


def test_a_loop_alone_changes_nothing() -> None:
    async def main() -> None:
        await _sleeps(20)
        assert sys.getswitchinterval() == pytest.approx(0.005)

    juggler.asyncio.run(main())


def test_two_loops_beside_each_other_leave_it_as_it_was() -> None:
    with _computing():
        threads = [
            threading.Thread(target=juggler.asyncio.run, args=(_sleeps(50),)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_the_thread_gets_on_while_the_loop_never_rests() -> None:
    """The loop is woken as soon as it sleeps; the thread is to be no worse off than by halves."""

    async def main(thread: _Computing) -> int:
        units, end = thread.units, time.monotonic() + 1
        while time.monotonic() < end:
            await asyncio.sleep(0.00001)
        return thread.units - units

    with _computing() as thread:
        beside = juggler.asyncio.run(main(thread))
        units = thread.units
        time.sleep(1)
        alone = thread.units - units
    # Half, less what the switching costs and the machine's other work.
    assert beside > alone * 0.25


_CLIENT = """
import socket, sys, time
peer, answers, end = socket.socket(fileno=int(sys.argv[1])), 0, time.monotonic() + 1
while time.monotonic() < end:
    peer.sendall(b"?")
    answers += len(peer.recv(1))
print(answers)
"""


def test_requests_that_follow_each_other_are_served_in_one_go() -> None:
    """A loop that waited for the interpreter with each would answer 200 in the second."""

    async def main() -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _CLIENT, str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
            )
            theirs.close()
            while request := await reader.read(1):
                writer.write(request)
            writer.close()
            return int((await client.communicate())[0])

    with _computing() as thread:
        units = thread.units
        answers = juggler.asyncio.run(asyncio.wait_for(main(), 60))
        assert thread.units > units
    assert answers > 1000


def test_a_loop_that_is_woken_now_and_then_costs_the_thread_little() -> None:
    async def main(thread: _Computing) -> int:
        units = thread.units
        for _ in range(10):
            await asyncio.sleep(0.1)
        return thread.units - units

    def share() -> float:
        with _computing() as thread:
            beside = juggler.asyncio.run(main(thread))
            units = thread.units
            time.sleep(1)
            return beside / (thread.units - units)

    # All but what the other work of the machine takes, which is more at some times.
    assert any(share() > 0.6 for _ in range(5))
