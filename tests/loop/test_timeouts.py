"""Timeouts, and whose tasks a loop makes: what the standard library's own tests leave open."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable, Generator
from typing import Any

import pytest

import juggler.asyncio
from juggler.asyncio import EventLoop, Task, new_event_loop, timeout, timeout_at, wait_for

Loops = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=["native", "stock tasks", "debug", "stdlib"])
def some_loop(request: pytest.FixtureRequest) -> Generator[asyncio.AbstractEventLoop]:
    makers: dict[str, Loops] = {
        "native": new_event_loop,
        "stock tasks": lambda: new_event_loop(native_tasks=False),
        "debug": new_event_loop,
        "stdlib": asyncio.SelectorEventLoop,
    }
    loop = makers[request.param]()
    loop.set_debug(request.param == "debug")
    yield loop
    loop.close()


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_a_timeout_cancels_what_is_inside_and_nothing_else(some_loop: Any) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        for give in (lambda: timeout(0.001), lambda: timeout(0), lambda: timeout(-1)):
            with pytest.raises(TimeoutError) as caught:
                async with give() as limit:
                    await _forever()
            assert limit.expired()
            assert isinstance(caught.value.__cause__, asyncio.CancelledError)
            assert task.cancelling() == 0
        async with timeout(0.01) as limit:
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        assert not limit.expired()

    some_loop.run_until_complete(main())


def test_it_can_be_put_off_and_called_off(some_loop: Any) -> None:
    async def main() -> None:
        async with timeout(0.001) as limit:
            limit.reschedule(None)
            await asyncio.sleep(0.005)
            assert limit.when() is None
        async with timeout_at(None) as limit:
            limit.reschedule(some_loop.time() + 60)
            assert repr(limit).startswith("<Timeout [active] when=")
        assert repr(limit) == "<Timeout [finished]>"
        with pytest.raises(RuntimeError, match="Cannot change state of finished Timeout"):
            limit.reschedule(1)

        async def brought_forward() -> None:
            async with timeout(60) as limit:
                limit.reschedule(some_loop.time())
                await _forever()

        with pytest.raises(TimeoutError):
            await brought_forward()

    some_loop.run_until_complete(main())


def test_who_cancels_from_outside_is_heard(some_loop: Any) -> None:
    async def limited() -> None:
        async with timeout(60):
            await _forever()

    async def main() -> None:
        task = asyncio.ensure_future(limited())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    some_loop.run_until_complete(main())


def test_timers_of_timeouts_that_are_over_do_not_pile_up(loop: EventLoop) -> None:
    alive: list[weakref.ref[Any]] = []

    async def main() -> None:
        for _ in range(1_000):
            async with timeout(3600) as limit:
                alive.append(weakref.ref(limit))
        del limit
        gc.collect()
        assert sum(each() is not None for each in alive) <= 600

    loop.run_until_complete(main())


class _Awaitable:
    def __init__(self, result: str) -> None:
        self.result = result

    def __await__(self) -> Generator[None, None, str]:
        yield
        return self.result


async def _returns(result: str) -> str:
    await asyncio.sleep(0)
    return result


def test_wait_for_takes_whatever_can_be_awaited(some_loop: Any) -> None:
    async def main() -> None:
        queue: juggler.asyncio.Queue[str] = juggler.asyncio.Queue()
        queue.put_nowait("queue")
        done = some_loop.create_future()
        done.set_result("future")
        assert await wait_for(_returns("coroutine"), 10) == "coroutine"
        assert await wait_for(_returns("without end"), None) == "without end"
        assert await wait_for(queue.get(), 10) == "queue"
        assert await wait_for(done, 10) == "future"
        assert await wait_for(some_loop.create_task(_returns("task")), 10) == "task"
        assert await wait_for(juggler.asyncio.sleep(0, "sleep"), 10) == "sleep"
        if sys.version_info >= (3, 12):
            assert await wait_for(_Awaitable("awaitable"), 10) == "awaitable"
            with pytest.raises(TypeError, match="await"):
                await wait_for(1, 10)  # type: ignore[arg-type]

    some_loop.run_until_complete(main())


def test_wait_for_cancels_what_it_waits_for(some_loop: Any) -> None:
    async def main() -> None:
        for seconds in (0.001, 0):
            task = some_loop.create_task(_forever())
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await wait_for(task, seconds)
            assert task.cancelled()
        inner = some_loop.create_task(_forever())
        outer = some_loop.create_task(wait_for(inner, 60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        outer.cancel()
        await asyncio.wait({outer})
        assert outer.cancelled()
        assert inner.cancelled()

    some_loop.run_until_complete(main())


def test_a_coroutine_that_suppresses_it_gives_its_result(loop: EventLoop) -> None:
    async def stubborn() -> str:
        try:
            await _forever()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "nevertheless"

    assert loop.run_until_complete(wait_for(stubborn(), 0.001)) == "nevertheless"


def test_opting_out_of_native_tasks() -> None:
    async def main() -> tuple[type, type]:
        future = asyncio.get_running_loop().create_future()
        task = juggler.asyncio.create_task(asyncio.sleep(0))
        await task
        assert task in {task, *asyncio.all_tasks()}
        return type(task), type(future)

    stock = (asyncio.tasks.Task, asyncio.futures.Future)
    assert juggler.asyncio.run(main(), native_tasks=False) == stock
    assert juggler.asyncio.run(main()) == (Task, juggler.asyncio.Future)
    with juggler.asyncio.Runner(native_tasks=False) as runner:
        assert runner.run(main()) == stock


def test_eager_tasks_are_native(loop: EventLoop) -> None:
    seen = []

    async def body() -> str:
        seen.append(asyncio.current_task())
        return "at once"

    async def main() -> None:
        loop.set_task_factory(juggler.asyncio.eager_task_factory)
        task = asyncio.create_task(body(), name="eager")
        assert task.done()
        assert (type(task), task.result(), task.get_name()) == (Task, "at once", "eager")
        assert seen == [task]

    loop.run_until_complete(main())
