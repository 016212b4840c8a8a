"""Futures: what the standard library's own tests leave open, and how ours meet its."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import sys
import weakref
from collections.abc import Generator
from typing import Any

import pytest

from juggler.asyncio import EventLoop, Future, Task, shield, sleep


async def _wait_for(future: asyncio.Future[Any]) -> Any:
    return await future


def test_it_passes_for_the_standard_librarys(loop: EventLoop) -> None:
    future: Future[int] = Future(loop=loop)
    assert isinstance(future, asyncio.Future)
    assert asyncio.isfuture(future)
    assert isinstance(future, collections.abc.Awaitable)
    assert not isinstance(future, collections.abc.Iterator)
    assert not asyncio.iscoroutine(future)


def test_a_loop_makes_them(loop: EventLoop) -> None:
    future = loop.create_future()
    assert type(future) is Future
    assert future.get_loop() is loop
    assert "_asyncio_future_blocking" in dir(future)


@pytest.mark.parametrize("make", [Future, asyncio.Future])
@pytest.mark.parametrize("task", [Task, asyncio.Task], ids=["our-task", "stock-task"])
def test_either_task_awaits_either_future(any_loop: Any, make: Any, task: Any) -> None:
    future = make(loop=any_loop)
    waiting = task(_wait_for(future), loop=any_loop)
    any_loop.call_soon(future.set_result, "done")
    assert any_loop.run_until_complete(waiting) == "done"


def test_callbacks_run_in_order_and_in_their_context(loop: EventLoop) -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="outer")
    context = contextvars.copy_context()
    context.run(variable.set, "inner")
    seen: list[tuple[int, str]] = []
    future = loop.create_future()
    future.add_done_callback(lambda _: seen.append((1, variable.get())))
    future.add_done_callback(lambda _: seen.append((2, variable.get())), context=context)
    future.add_done_callback(lambda _: seen.append((3, variable.get())))
    future.set_result(None)
    assert seen == []
    loop.run_until_complete(_wait_for(future))
    assert seen == [(1, "outer"), (2, "inner"), (3, "outer")]


def test_comparing_callbacks_may_change_them(loop: EventLoop) -> None:
    future = loop.create_future()

    class Nosy:
        def __eq__(self, other: object) -> bool:
            future.set_result(None)  # the callbacks are on their way before they can be removed
            return True

        __hash__ = None  # type: ignore[assignment]

        def __call__(self, _: object) -> None: ...

    seen: list[object] = []
    future.add_done_callback(seen.append)
    assert future.remove_done_callback(Nosy()) == 0
    assert future._callbacks is None
    loop.run_until_complete(_wait_for(future))
    assert seen == [future]


def test_awaiting_it_by_hand_needs_a_task(loop: EventLoop) -> None:
    future = loop.create_future()
    coroutine = _wait_for(future)
    assert coroutine.send(None) is future
    with pytest.raises(RuntimeError, match="await wasn't used with future"):
        coroutine.send(None)


@pytest.mark.parametrize("value", [None, 1, (1, 2), StopIteration("value"), ValueError("value")])
def test_any_result_comes_through(loop: EventLoop, value: object) -> None:
    """A result travels as the value of a StopIteration, whose argument it may look like."""
    future = loop.create_future()
    future.set_result(value)
    assert loop.run_until_complete(_wait_for(future)) is value
    later = loop.create_future()
    loop.call_soon(later.set_result, value)
    assert loop.run_until_complete(_wait_for(later)) is value

    def iterate() -> Generator[Any, None, Any]:
        return (yield from future)

    with pytest.raises(StopIteration) as caught:
        next(iterate())
    assert caught.value.value is value


def test_an_heir_may_be_awaited_in_its_own_way(loop: EventLoop) -> None:
    class Doubling(Future[int]):
        def __await__(self) -> Generator[Any, None, int]:
            return 2 * (yield from super().__await__())

    class Plain(Future[int]):
        pass

    for future, expected in ((Doubling(loop=loop), 42), (Plain(loop=loop), 21)):
        loop.call_soon(future.set_result, 21)
        assert loop.run_until_complete(_wait_for(future)) == expected


def test_an_heirs_own_callbacks_are_used(loop: EventLoop) -> None:
    added = []

    class Noting(Future[None]):
        def add_done_callback(self, fn: Any, *, context: Any = None) -> None:
            added.append(fn)
            super().add_done_callback(fn, context=context)

    future = Noting(loop=loop)
    task = loop.create_task(_wait_for(future))
    loop.call_soon(future.set_result, None)
    loop.run_until_complete(task)
    assert [fn.__self__.done() for fn in added if isinstance(fn.__self__, Task)] == [True]


def test_an_exception_that_nobody_sees_is_reported(loop: EventLoop) -> None:
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    error = ValueError("unseen")
    loop.create_future().set_exception(error)
    gc.collect()
    (context,) = reported
    assert context["message"] == "Future exception was never retrieved"
    assert context["exception"] is error
    seen = loop.create_future()
    seen.set_exception(ValueError("seen"))
    seen.exception()
    del seen
    assert len(reported) == 1


def test_it_may_come_back_to_life_in_the_report(loop: EventLoop) -> None:
    kept: list[Any] = []
    loop.set_exception_handler(lambda _, context: kept.append(context["future"]))
    loop.create_future().set_exception(ValueError("unseen"))
    assert repr(kept[0]) == "<Future finished exception=ValueError('unseen')>"
    reference = weakref.ref(kept.pop())
    assert reference() is None


def test_a_cycle_is_collected(loop: EventLoop) -> None:
    future = loop.create_future()
    future.itself = future
    future.add_done_callback(future.set_result)
    reference = weakref.ref(future)
    del future
    gc.collect()
    assert reference() is None


def test_without_init_it_says_so() -> None:
    future = Future.__new__(Future)
    for use in (future.get_loop, future.__await__, lambda: future.set_result(None), future.cancel):
        with pytest.raises(RuntimeError, match="not initialized"):
            use()
    assert future._state == "PENDING"
    assert not future.done()


def test_a_second_loop_is_refused(loop: EventLoop) -> None:
    other = asyncio.new_event_loop()
    future: Future[None] = Future(loop=other)
    with pytest.raises(RuntimeError, match="attached to a different loop"):
        loop.run_until_complete(loop.create_task(_wait_for(future)))
    other.close()


def test_debug_mode_notes_where_it_was_made(loop: EventLoop) -> None:
    loop.set_debug(True)
    frames = loop.create_future()._source_traceback
    assert frames[-1].name == "test_debug_mode_notes_where_it_was_made"
    loop.set_debug(False)
    assert loop.create_future()._source_traceback is None


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph is new in 3.14")
def test_the_call_graph_knows_who_waits(loop: EventLoop) -> None:
    async def inner() -> Any:
        return asyncio.capture_call_graph()

    async def main() -> None:
        task = loop.create_task(inner())
        graph = (await asyncio.gather(task))[0]
        assert graph.future is task
        assert [call.future for call in graph.awaited_by] == []  # nothing waits any more: it runs
        waited = loop.create_future()
        waiting = loop.create_task(_wait_for(waited))
        await asyncio.sleep(0)
        assert waited._asyncio_awaited_by == {waiting}
        graph = asyncio.capture_call_graph(waited)
        assert [call.future for call in graph.awaited_by] == [waiting]
        shielding = loop.create_task(_wait_for(shield(waited)))
        await asyncio.sleep(0)
        assert waited._asyncio_awaited_by == {waiting, shielding}
        waited.set_result(None)
        await asyncio.gather(waiting, shielding)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph is new in 3.14")
def test_the_call_graph_goes_down_to_a_sleep(loop: EventLoop) -> None:
    async def naps() -> None:
        await sleep(60)

    async def main() -> None:
        for sleeper, functions in ((naps(), [naps.__name__]), (sleep(60), [])):
            task = loop.create_task(sleeper)
            await asyncio.sleep(0)
            graph = asyncio.capture_call_graph(task)
            assert [call.frame.f_code.co_name for call in graph.call_stack] == functions
            assert repr(task.get_name()) in asyncio.format_call_graph(task)
            task.cancel()

    loop.run_until_complete(main())


def test_its_parameters_are_the_standard_librarys() -> None:
    for name in ("add_done_callback", "cancel", "set_result", "set_exception"):
        ours, theirs = (
            list(inspect.signature(getattr(cls, name)).parameters)
            for cls in (Future, asyncio.futures._PyFuture)
        )
        assert ours == theirs
