"""Watched descriptors, and how a busy loop looks at them."""

import asyncio
import gc
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from juggler.asyncio import EventLoop, new_event_loop

Loop = asyncio.AbstractEventLoop
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two sockets that don't block, connected to each other."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


def run_for(loop: Loop, seconds: float = 0.005) -> None:
    """Run a while."""
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def test_a_reader_is_called_while_there_is_something_to_read(any_loop: Loop, pair: Pair) -> None:
    a, b = pair
    seen: list[bytes] = []

    def read() -> None:
        seen.append(a.recv(1))
        if len(seen) == 3:
            any_loop.stop()

    any_loop.add_reader(a, read)
    any_loop.call_soon(b.send, b"abc")
    any_loop.run_forever()
    assert seen == [b"a", b"b", b"c"]
    assert any_loop.remove_reader(a.fileno())
    assert not any_loop.remove_reader(a)
    b.send(b"d")
    run_for(any_loop)
    assert seen == [b"a", b"b", b"c"]


def test_a_writer_is_called_while_there_is_room(any_loop: Loop, pair: Pair) -> None:
    a, b = pair
    written, read = 0, 0

    def write() -> None:
        nonlocal written
        written += a.send(bytes(100_000))
        if written > 2_000_000:
            any_loop.remove_writer(a)

    def take() -> None:
        nonlocal read
        read += len(b.recv(100_000))
        if read == written > 2_000_000:
            any_loop.stop()

    any_loop.add_writer(a, write)
    any_loop.add_reader(b, take)
    any_loop.run_forever()
    assert read == written
    any_loop.remove_reader(b)


def test_a_new_watcher_takes_the_old_one_s_place(any_loop: Loop, pair: Pair) -> None:
    a, b = pair
    b.send(b"x")
    any_loop.add_reader(a, pytest.fail, "replaced")
    any_loop.add_writer(a, any_loop.stop)
    any_loop.add_reader(a, any_loop.stop)
    any_loop.run_forever()
    assert any_loop.remove_reader(a)
    any_loop.run_forever()
    assert any_loop.remove_writer(a)


def test_a_watcher_that_is_removed_in_the_same_turn_is_not_called(
    any_loop: Loop, pair: Pair
) -> None:
    a, b = pair
    seen: list[int] = []

    def read(number: int, other: socket.socket) -> None:
        seen.append(number)
        any_loop.remove_reader(other)

    any_loop.add_reader(a, read, 1, b)
    any_loop.add_reader(b, read, 2, a)
    a.send(b"x")
    b.send(b"x")
    run_for(any_loop)
    assert len(set(seen)) == 1
    any_loop.remove_reader(a)
    any_loop.remove_reader(b)


def test_a_cancelled_watcher_is_taken_out(loop: EventLoop, pair: Pair) -> None:
    a, b = pair
    watch: Any = loop._add_reader  # returns its handle, as the standard library's does
    handle = watch(a.fileno(), pytest.fail, "cancelled")
    handle.cancel()
    b.send(b"x")
    run_for(loop)
    assert not loop.remove_reader(a)


def test_a_peer_that_hangs_up_is_something_to_read(any_loop: Loop, pair: Pair) -> None:
    a, b = pair
    any_loop.add_reader(a, any_loop.stop)
    b.close()
    any_loop.run_forever()
    assert a.recv(1) == b""
    any_loop.remove_reader(a)


def test_what_cannot_be_watched_is_refused(any_loop: Loop) -> None:
    with open(__file__) as file, pytest.raises(PermissionError):
        any_loop.add_reader(file, print)
    with pytest.raises(OSError, match="Bad file descriptor"):
        any_loop.add_reader(12345, print)
    for wrong in (-1, "no descriptor"):
        with pytest.raises(ValueError, match="file"):
            any_loop.add_reader(wrong, print)  # type: ignore[arg-type]


def test_a_closed_descriptor_s_number_can_be_watched_again(loop: EventLoop) -> None:
    a, b = socket.socketpair()
    number = a.fileno()
    loop.add_reader(a, pytest.fail, "closed")
    a.close()
    b.close()
    c, d = socket.socketpair()
    with c, d:
        assert c.fileno() == number
        loop.add_reader(c, loop.stop)
        d.send(b"x")
        loop.run_forever()
        assert loop.remove_reader(c)


def test_a_loop_with_much_to_do_sees_its_descriptors(any_loop: Loop, pair: Pair) -> None:
    a, b = pair
    turns = 0

    def go_on() -> None:
        nonlocal turns
        turns += 1
        if turns == 1000:
            b.send(b"x")
        any_loop.call_soon(go_on)

    any_loop.add_reader(a, any_loop.stop)
    any_loop.call_soon(go_on)
    any_loop.run_forever()
    assert turns >= 1000
    any_loop.remove_reader(a)


class Always:
    """A socket that is ready in every turn, until it is told to end."""

    def __init__(self, loop: Loop, pair: Pair) -> None:
        self.turns = 0
        self._pair, self._loop = pair, loop
        loop.add_reader(pair[0], self._read)
        pair[1].send(b"x")

    def _read(self) -> None:
        self.turns += 1
        assert self.turns < 1_000_000
        assert self._pair[0].recv(1) == b"x"
        self._pair[1].send(b"x")

    def end(self) -> None:
        """Watch it no longer."""
        self._loop.remove_reader(self._pair[0])
        self._loop.stop()


def test_a_descriptor_that_is_always_ready_leaves_room_for_others(
    any_loop: Loop, pair: Pair
) -> None:
    always = Always(any_loop, pair)
    seen: list[object] = []
    timed = threading.Event()
    c, d = socket.socketpair()

    def read() -> None:
        seen.append(c.recv(1))
        if seen[-1] == b"z":
            always.end()

    def time() -> None:
        seen.append("timer")
        timed.set()

    def other() -> None:
        timed.wait(30)
        any_loop.call_soon_threadsafe(seen.append, "thread")
        any_loop.call_soon_threadsafe(d.send, b"z")

    with c, d:
        any_loop.add_reader(c, read)
        any_loop.call_later(0.002, d.send, b"y")
        any_loop.call_later(0.03, time)
        thread = threading.Thread(target=other)
        thread.start()
        any_loop.run_forever()
        thread.join()
        any_loop.remove_reader(c)
    assert seen == [b"y", "timer", "thread", b"z"]
    assert always.turns > 3


def test_what_is_always_ready_can_be_replaced_and_removed(any_loop: Loop, pair: Pair) -> None:
    always = Always(any_loop, pair)
    run_for(any_loop)
    a, _ = pair
    seen: list[str] = []
    any_loop.add_reader(a, seen.append, "new")
    any_loop.add_writer(a, seen.append, "writer")
    turns = always.turns
    run_for(any_loop)
    assert set(seen) == {"new", "writer"}
    assert any_loop.remove_writer(a)
    seen.clear()
    run_for(any_loop)
    assert set(seen) == {"new"}
    assert any_loop.remove_reader(a)
    seen.clear()
    run_for(any_loop)
    assert (seen, always.turns) == ([], turns)


def test_a_few_turns_are_enough_to_see_a_descriptor(any_loop: Loop, pair: Pair) -> None:
    a, b = pair

    async def main() -> bool:
        seen = asyncio.Event()
        any_loop.add_reader(a, seen.set)
        b.send(b"x")
        for _ in range(3):
            await asyncio.sleep(0)
        any_loop.remove_reader(a)
        return seen.is_set()

    assert any_loop.run_until_complete(main())


def test_a_busy_loop_lets_other_threads_run(loop: EventLoop) -> None:
    done = threading.Event()

    def go_on() -> None:
        if done.is_set():
            loop.stop()
        loop.call_soon(go_on)

    thread = threading.Thread(target=done.set)
    loop.call_soon(go_on)
    thread.start()
    loop.run_forever()
    thread.join()


def test_watchers_and_descriptors_go_with_the_loop(pair: Pair) -> None:
    class Argument: ...

    def cycle(run: bool) -> weakref.ref[Argument]:
        loop = new_event_loop()
        argument = Argument()
        loop.add_reader(pair[0], print, argument)
        loop.add_signal_handler(10, print)
        if run:
            run_for(loop, 0)
        loop.close()
        return weakref.ref(argument)

    before = None
    for number in range(200):
        ref = cycle(number % 2 == 0)
        if before is None:
            gc.collect()
            before = len(os.listdir("/proc/self/fd"))
    assert ref() is None
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_descriptors_there_is_no_loop() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            new_event_loop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    loop = new_event_loop()
    loop.close()
