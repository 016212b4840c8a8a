"""`juggler.Pool`."""

import asyncio
import os
import threading
import time
from concurrent.futures import CancelledError
from typing import Any

import pytest
from calls import awaiting, double, process, sleepy, spin

import juggler


def test_workers_stay_between_calls() -> None:
    with juggler.Pool("processes", limit=1) as pool:
        first = {*pool.map(process, range(5))}
        assert {*pool.map(process, range(5))} == first
        assert pool.submit(process, 0).result() in first
        assert os.getpid() not in first


def test_threads_stay_between_calls() -> None:
    with juggler.Pool("threads", limit=2) as pool:
        before = {*pool.map(lambda _: sleepy(0.01) and threading.get_ident(), range(10))}
        again = {*pool.map(lambda _: sleepy(0.01) and threading.get_ident(), range(10))}
        assert again <= before and len(before) <= 2


def test_what_was_measured_is_remembered() -> None:
    with juggler.Pool() as pool:
        list(pool.map(sleepy, [0.01] * 20))
        list(pool.map(sleepy, [0.01] * 20))
        choice = juggler.last_choice()
        assert choice is not None and choice.why == "calls wait, as measured before"
        list(pool.map(sleepy, [0.01] * 20))
        assert str(juggler.last_choice()).count("as measured before") == 1


def test_single_calls() -> None:
    with juggler.Pool() as pool:
        assert pool.submit(double, 4).result() == 8
        assert pool.submit(awaiting(double), 4).result() == 8
        assert pool.submit(int, "ff", base=16).result() == 255
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
        with pytest.raises(TypeError, match="callable"):
            pool.submit(3)  # type: ignore[arg-type]


def test_a_known_function_goes_where_it_belongs() -> None:
    with juggler.Pool() as pool:
        list(pool.map(spin, [0.02] * 60))
        choice = juggler.last_choice()
        assert choice is not None
        assert (pool.submit(process, 0).result() == os.getpid()) is True
        away = pool.submit(spin, 0.001).result() != os.getpid()
        assert away is (choice.model == "processes")


@pytest.mark.parametrize("on", ["serial", "threads", "processes", "loop"])
def test_single_calls_everywhere(on: Any) -> None:
    with juggler.Pool(on) as pool:
        assert pool.submit(awaiting(double), 3).result() == 6
        if on != "loop":
            assert pool.submit(double, 3).result() == 6
        else:
            with pytest.raises(TypeError, match="coroutine function"):
                pool.submit(double, 3)


def test_a_pool_that_is_shut_down_takes_no_calls() -> None:
    pool = juggler.Pool("threads")
    assert list(pool.map(double, [1])) == [2]
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        pool.map(double, [1])
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(double, 1)
    assert "shut down" in repr(pool)


def test_shutdown_waits_for_the_calls() -> None:
    done = []
    pool = juggler.Pool("threads", limit=1)
    for _ in range(3):
        pool.submit(lambda: done.append(sleepy(0.02)))
    pool.shutdown()
    assert len(done) == 3


def test_shutdown_may_cancel_what_has_not_begun() -> None:
    gate, begun = threading.Event(), threading.Event()
    pool = juggler.Pool("threads", limit=1)

    def wait() -> bool:
        begun.set()
        return gate.wait(60)

    first = pool.submit(wait)
    second = pool.submit(double, 1)
    assert begun.wait(60)
    pool.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    gate.set()
    assert first.result() is True


def test_a_closed_map_leaves_its_pool_as_it_is() -> None:
    with juggler.Pool("threads", limit=2) as pool:
        for _ in pool.map(sleepy, [0.01] * 100):
            break
        assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]


def test_map_takes_a_pool() -> None:
    with juggler.Pool("threads") as pool:
        assert list(juggler.map(double, range(3), on=pool)) == [0, 2, 4]
        with pytest.raises(TypeError, match="the pool's"):
            juggler.map(double, range(3), on=pool, limit=3)
        with pytest.raises(TypeError, match="the pool's"):
            pool.map(double, range(3), limit=3)  # type: ignore[call-overload]


def test_two_maps_at_once() -> None:
    with juggler.Pool("threads", limit=4) as pool:
        one, two = pool.map(double, range(50)), pool.map(str, range(50))
        both = [(first, second) for first, second in zip(one, two, strict=True)]
    assert both == [(2 * n, str(n)) for n in range(50)]


def test_a_pool_is_left_behind_without_a_trace() -> None:
    before = threading.active_count()
    pool = juggler.Pool("threads", limit=2)
    assert list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
    del pool
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_a_wrong_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'processes'"):
        juggler.Pool("process")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be 1 or more"):
        juggler.Pool(limit=0)


def test_the_end_waits_for_coroutines() -> None:
    async def slow(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    with juggler.Pool() as pool:
        future = pool.submit(slow, 3)
    assert future.done() and future.result() == 3


def test_single_coroutines_keep_to_the_limit() -> None:
    now = most = 0

    async def call() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    with juggler.Pool("loop", limit=2) as pool:
        for future in [pool.submit(call) for _ in range(20)]:
            future.result()
    assert most == 2


@pytest.mark.parametrize("on", ["processes", "loop"])
def test_calls_are_ended_in_their_midst(on: Any) -> None:
    pool = juggler.Pool(on)
    fn: Any = time.sleep if on == "processes" else asyncio.sleep
    future = pool.submit(fn, 600)
    while on == "processes" and not future.running():
        time.sleep(0.001)
    pool.terminate_workers()
    with pytest.raises((RuntimeError, CancelledError)):
        future.result()
    pool.shutdown()
