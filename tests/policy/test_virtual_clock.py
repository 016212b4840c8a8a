"""The clock that tests use."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from juggler import policy
from juggler.policy import Clock, VirtualClock


def test_the_machines_clock_is_the_monotonic_one() -> None:
    clock = Clock()
    before = time.monotonic()
    clock.sleep(0.002)
    assert before + 0.002 <= clock.time() <= time.monotonic()
    assert 0 <= clock.random() < 1


def test_sleeping_takes_no_time() -> None:
    clock = VirtualClock()
    began = time.monotonic()
    clock.sleep(100_000)
    assert clock.time() == 100_000.0
    assert time.monotonic() - began < 100_000


def test_it_takes_the_machines_clocks_place_and_gives_it_back() -> None:
    slow = policy.rate("1/h")
    with VirtualClock() as outer:
        slow.take(1)
        slow.take(1)
        with VirtualClock() as inner:
            slow.take(1)
            assert inner.time() == 0.0, "its state begins anew on each clock"
        slow.take(1)
        assert outer.time() == 7200.0
    slow.take(1)  # the first one on the machine's clock: an hour's wait would fail this test


def test_threads_wait_for_each_other_and_nobody_waits_in_vain() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []

    def sleeper(name: str, *pauses: float) -> None:
        for pause in pauses:
            clock.sleep(pause)
            seen.append((name, clock.time()))

    clock.run_threads(
        lambda: sleeper("a", 3, 3), lambda: sleeper("b", 1, 1), lambda: sleeper("c", 5)
    )
    assert seen == [("b", 1.0), ("b", 2.0), ("a", 3.0), ("c", 5.0), ("a", 6.0)]


def test_results_and_failures_of_threads() -> None:
    clock = VirtualClock()
    assert clock.run_threads(lambda: 1, lambda: 2) == [1, 2]

    def fails() -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        clock.run_threads(lambda: clock.sleep(1), fails)


def test_threads_that_wait_for_each_other_are_told() -> None:
    clock = VirtualClock()
    places = policy.limit(1)

    def enter_twice() -> None:
        with places, places:
            pytest.fail("entered twice")

    with pytest.raises(RuntimeError, match="nothing will wake them"):
        clock.run_threads(enter_twice, enter_twice)


def test_advancing_wakes_who_waits_until_then() -> None:
    clock = VirtualClock()
    order = []
    gate = threading.Barrier(2)

    def runs() -> None:
        # Counts as running while it waits for something real.
        gate.wait()
        order.append(clock.time())

    def sleeps() -> None:
        clock.sleep(10)
        order.append(clock.time())

    def advances() -> None:
        while not clock._waiting:
            time.sleep(0.001)
        clock.advance(10)
        while not order:
            time.sleep(0.001)
        gate.wait()

    clock.run_threads(runs, sleeps, advances)
    assert order == [10.0, 10.0]


def test_a_loop_has_its_time() -> None:
    clock = VirtualClock()

    async def main() -> tuple[float, float]:
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return clock.time(), asyncio.get_running_loop().time()

    assert clock.run(main()) == (3660.0, 3660.0)


def test_a_loop_waits_for_what_is_real() -> None:
    clock = VirtualClock()

    async def main() -> bytes:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        sender = threading.Timer(0.02, there.sendall, [b"hello\n"])
        sender.start()
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        there.close()
        sender.join()
        return line

    assert clock.run(main()) == b"hello\n"


def test_other_loops_are_refused_where_a_wait_would_be_real() -> None:
    async def main() -> None:
        slow = policy.rate("1/h")
        await slow.take_async(1)
        await slow.take_async(1)

    with VirtualClock(), pytest.raises(RuntimeError, match="use clock"):
        asyncio.run(main())


def test_runner_with_its_loop() -> None:
    with VirtualClock() as clock, asyncio.Runner(loop_factory=clock.new_event_loop) as runner:
        runner.run(policy.retry(3, backoff=10.0).call_async(asyncio.sleep, 5))
        assert clock.time() == 5.0
