"""What is used again, memory and exceptions, shows nothing of what it was before."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import juggler.asyncio
from juggler.asyncio import locks, queues

ROUNDS = 100


class Item:
    """Something that can be referred to weakly."""


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=juggler.asyncio.new_event_loop) as runner:
        yield runner


def full(*items: object) -> Any:
    queue = queues.Queue[Any]()
    for item in items:
        queue.put_nowait(item)
    return queue


def stop_of(advance: Callable[[], object]) -> StopIteration:
    try:
        advance()
    except StopIteration as stop:
        return stop
    raise AssertionError("it has not ended")


def test_nothing_holds_a_result_that_was_awaited(runner: asyncio.Runner) -> None:
    async def main() -> None:
        for _ in range(ROUNDS):
            queue = full(Item())
            item = await queue.get()
            alive = weakref.ref(item)
            del item
            assert alive() is None

    runner.run(main())


def test_a_result_that_is_caught_again_and_again_gathers_no_traces() -> None:
    lock = locks.Lock()
    for _ in range(ROUNDS):
        stop = stop_of(lambda: next(lock.acquire()))  # type: ignore[call-overload]
        assert stop.value is True
        assert stop.__context__ is None
        assert [name for *_, name, _ in traceback.extract_tb(stop.__traceback__)] == [
            "stop_of",
            "<lambda>",
        ]
        lock.release()


def test_nothing_holds_what_was_put_and_awaited(runner: asyncio.Runner) -> None:
    async def main() -> None:
        for _ in range(ROUNDS):
            queue, item = queues.Queue[Item](), Item()
            alive = weakref.ref(item)
            await queue.put(item)
            del item
            assert alive() is not None
            del queue
            assert alive() is None

    runner.run(main())


def test_an_exception_that_somebody_keeps_stays_as_it_is() -> None:
    kept = [stop_of(partial(lambda n: next(full(n).get()), number)) for number in range(ROUNDS)]
    assert [stop.value for stop in kept] == list(range(ROUNDS))
    assert [stop.args for stop in kept] == [(number,) for number in range(ROUNDS)]
    assert len(set(map(id, kept))) == ROUNDS


def test_an_exception_with_a_note_is_not_used_again() -> None:
    def note(stop: StopIteration) -> None:
        stop.add_note("mine")
        stop.__context__ = ValueError()

    for number in range(ROUNDS):
        stop = stop_of(partial(lambda n: next(full(n).get()), number))
        assert (stop.value, stop.args) == (number, (number,))
        assert not hasattr(stop, "__notes__")
        assert stop.__context__ is None
        note(stop)


def test_a_tracer_that_keeps_the_exceptions_has_them_all(runner: asyncio.Runner) -> None:
    """It sees the exception that carries a result, before the coroutine goes."""
    kept: list[BaseException] = []

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if event == "exception" and isinstance(arg[1], StopIteration):
            kept.append(arg[1])
        return trace

    async def main() -> list[int]:
        sys.settrace(trace)
        try:
            return await take()
        finally:
            sys.settrace(None)

    async def take() -> list[int]:
        return [await full(number).get() for number in range(10)]

    assert runner.run(main()) == list(range(10))
    values = [stop.value for stop in kept if isinstance(stop, StopIteration)]
    assert [value for value in values if isinstance(value, int)] == list(range(10))


def test_results_of_coroutines_within_coroutines(runner: asyncio.Runner) -> None:
    """Freeing the result of one awaits another, while the first one's exception is out."""
    taken: list[int] = []

    class Nested:
        def __init__(self, left: int) -> None:
            self.left = left

        def __del__(self) -> None:
            if self.left:
                inner = stop_of(lambda: next(full(Nested(self.left - 1)).get())).value
                taken.append(inner.left)

    async def main() -> None:
        await full(Nested(5)).get()

    runner.run(main())
    gc.collect()
    assert sorted(taken) == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("always::RuntimeWarning")
def test_each_call_that_is_not_awaited_warns() -> None:
    lock: Any = locks.Lock()
    for _ in range(ROUNDS):
        with pytest.warns(RuntimeWarning, match=r"'Queue\.get' was never awaited"):
            full().get()
        with pytest.warns(RuntimeWarning, match=r"'Lock\.acquire' was never awaited"):
            lock.acquire()


def test_a_call_in_a_cycle_is_collected_and_warns() -> None:
    for _ in range(3):
        item = Item()
        queue = full()
        item.call = queue.put(item)  # type: ignore[attr-defined]
        alive = weakref.ref(item)
        del item
        with pytest.warns(RuntimeWarning, match=r"'Queue\.put' was never awaited"):
            gc.collect()
        assert alive() is None


def test_each_failure_that_nobody_looks_at_is_reported() -> None:
    loop = juggler.asyncio.new_event_loop()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    errors = [ValueError(number) for number in range(ROUNDS)]
    for error in errors:
        loop.create_future().set_exception(error)
        silent = loop.create_future()
        silent.set_exception(error)
        assert silent.exception() is error
    loop.close()
    assert told == errors


def test_a_future_has_nothing_of_the_one_before() -> None:
    loop = juggler.asyncio.new_event_loop()
    for _ in range(ROUNDS):
        future = loop.create_future()
        assert not hasattr(future, "mark")
        assert not future.done()
        assert weakref.getweakrefcount(future) == 0
        future.mark = weakref.ref(future)  # type: ignore[attr-defined]
        future.add_done_callback(print)
        future.cancel()
    loop.close()


def test_handles_of_other_threads_can_be_cancelled_each_time() -> None:
    """Their locks are used again, too."""
    loop = juggler.asyncio.new_event_loop()
    ran: list[int] = []
    for number in range(ROUNDS):
        loop.call_soon_threadsafe(ran.append, number)
        handle = loop.call_soon_threadsafe(ran.append, -1)
        canceller = threading.Thread(target=handle.cancel)
        canceller.start()
        canceller.join()
        assert handle.cancelled()
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    loop.close()
    assert ran == list(range(ROUNDS))


@pytest.mark.skipif(sys.version_info < (3, 14), reason="such handles are of 3.14")
def test_who_cancels_a_handle_that_runs_waits_for_its_end() -> None:
    loop = juggler.asyncio.new_event_loop()
    for _ in range(10):
        order: list[str] = []
        runs = threading.Event()

        def callback(order: list[str] = order, runs: threading.Event = runs) -> None:
            runs.set()
            threading.Event().wait(0.01)
            order.append("ran")
            loop.stop()

        handle = loop.call_soon_threadsafe(callback)

        def cancel(handle: Any = handle, order: Any = order, runs: Any = runs) -> None:
            runs.wait()
            handle.cancel()
            order.append("cancelled")

        canceller = threading.Thread(target=cancel)
        canceller.start()
        loop.run_forever()
        canceller.join()
        assert order == ["ran", "cancelled"]
    loop.close()
