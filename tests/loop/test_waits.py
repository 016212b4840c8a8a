"""gather, wait, sleep and task groups, on loops of ours and of the standard library's."""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import warnings
from typing import Any
from unittest import mock

import pytest

import juggler.asyncio
from juggler.asyncio import EventLoop, Task, TaskGroup, gather, sleep, wait


async def _return(value: object, delay: float = 0) -> Any:
    await sleep(delay)
    return value


async def _fail(delay: float = 0) -> None:
    await sleep(delay)
    raise ValueError("failed")


def test_gather_keeps_the_order(any_loop: Any) -> None:
    async def main() -> None:
        stock = asyncio.Task(_return("stock"), loop=any_loop)
        ours: Task[Any] = Task(_return("ours"), loop=any_loop)
        future = any_loop.create_future()
        future.set_result("future")
        delayed = _return("delayed", 0.002)
        results = await gather(delayed, stock, ours, future, stock, delayed)
        assert results == ["delayed", "stock", "ours", "future", "stock", "delayed"]

    any_loop.run_until_complete(main())


def test_equal_awaitables_are_gathered_once(any_loop: Any) -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

        def __await__(self) -> Any:
            awaited.append(self)
            return sleep(0, id(self)).__await__()

    async def main() -> None:
        first = Equal()
        assert await gather(first, Equal(), _return(3)) == [id(first), id(first), 3]

    awaited: list[Equal] = []
    any_loop.run_until_complete(main())
    assert len(awaited) == 1


def test_the_first_error_is_the_gatherings(any_loop: Any) -> None:
    async def main() -> None:
        late = asyncio.ensure_future(_return("late", 0.002))
        with pytest.raises(ValueError, match="failed"):
            await gather(late, _fail())
        assert not late.done()
        assert await late == "late"
        error, value = await gather(_fail(), _return(1), return_exceptions=True)
        assert isinstance(error, ValueError)
        assert value == 1

    any_loop.run_until_complete(main())


def test_cancelling_a_gathering_cancels_all(any_loop: Any) -> None:
    async def main() -> None:
        children = [asyncio.ensure_future(sleep(3600)) for _ in range(3)]
        gathering = gather(*children, return_exceptions=True)
        await sleep(0)
        assert gathering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathering
        assert all(child.cancelled() for child in children)
        assert not gathering.cancel()

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("delay", [0, -1, 0.001])
def test_sleep_gives_its_result(any_loop: Any, delay: float) -> None:
    assert any_loop.run_until_complete(sleep(delay, "result")) == "result"


def test_sleep_is_never_too_short(loop: EventLoop) -> None:
    async def main() -> None:
        for delay in (1e-9, 1e-6, 1e-4, 1e-3):
            began = loop.time()
            await sleep(delay)
            assert loop.time() - began >= delay

    loop.run_until_complete(main())


def test_sleep_passes_for_a_coroutine(loop: EventLoop) -> None:
    sleeping = sleep(0)
    assert asyncio.iscoroutine(sleeping)
    assert inspect.isawaitable(sleeping)
    assert not isinstance(sleeping, collections.abc.Generator)
    sleeping.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.iscoroutinefunction(sleep)
    with mock.patch("juggler.asyncio.sleep") as patched:
        assert isinstance(patched, mock.AsyncMock)
    task = loop.create_task(sleep(0))
    assert "coro=<sleep()>" in repr(task)
    loop.run_until_complete(task)


def test_a_sleep_that_nobody_awaits_is_reported() -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'sleep' was never awaited"):
        sleep(1)


def test_a_sleep_is_awaited_once(any_loop: Any) -> None:
    async def main() -> None:
        sleeping = sleep(0)
        await sleeping
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await sleeping

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("delay", ["1", None, float("nan")])
def test_a_bad_delay_is_refused_when_awaited(any_loop: Any, delay: Any) -> None:
    sleeping = sleep(delay)
    with pytest.raises((TypeError, ValueError)):
        any_loop.run_until_complete(sleeping)


def test_cancelled_sleeps_do_not_fill_the_timers(loop: EventLoop) -> None:
    async def main() -> None:
        for _ in range(1000):
            task = loop.create_task(sleep(3600))
            await sleep(0)
            task.cancel()
            await asyncio.wait([task])
        left = [item for item in gc.get_referents(loop) if isinstance(item, asyncio.Future)]
        assert len(left) < 200

    loop.run_until_complete(main())


def test_wait_tells_the_done_from_the_others(any_loop: Any) -> None:
    async def main() -> None:
        fast, slow = (asyncio.ensure_future(_return(0, delay)) for delay in (0, 3600))
        stock = asyncio.Task(_return(1), loop=any_loop)
        assert await wait({fast, slow}, return_when=asyncio.FIRST_COMPLETED) == ({fast}, {slow})
        assert await wait([stock, slow], timeout=0.01) == ({stock}, {slow})
        failing = asyncio.ensure_future(_fail())
        assert await wait([failing, slow], return_when=asyncio.FIRST_EXCEPTION) == (
            {failing},
            {slow},
        )
        assert slow._callbacks is None
        slow.cancel()
        assert await wait([slow, fast]) == ({slow, fast}, set())
        failing.exception()

    any_loop.run_until_complete(main())


def test_a_group_waits_for_its_tasks(any_loop: Any) -> None:
    async def main() -> None:
        async with TaskGroup() as group:
            tasks = [group.create_task(_return(number, number / 1000)) for number in range(3)]
            named = group.create_task(_return("named"), name="name")
        assert [task.result() for task in tasks] == [0, 1, 2]
        assert named.get_name() == "name"
        assert isinstance(group, asyncio.TaskGroup)
        with pytest.raises(RuntimeError, match="finished"):
            group.create_task(late := _return(1))
        late.close()

    any_loop.run_until_complete(main())


def test_a_failing_member_cancels_the_others(any_loop: Any) -> None:
    members: list[asyncio.Task[Any]] = []

    async def group_of_two() -> None:
        async with TaskGroup() as group:
            members.append(group.create_task(sleep(3600)))
            members.append(group.create_task(_fail(0.001)))
            await sleep(3600)

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await group_of_two()
        assert [str(error) for error in caught.value.exceptions] == ["failed"]
        assert members[0].cancelled()
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    any_loop.run_until_complete(main())


def test_a_cancelled_parent_cancels_its_group(any_loop: Any) -> None:
    async def parent(members: list[asyncio.Task[Any]]) -> None:
        async with TaskGroup() as group:
            members.append(group.create_task(sleep(3600)))

    async def main() -> None:
        members: list[asyncio.Task[Any]] = []
        task: Task[None] = Task(parent(members), loop=any_loop)
        await sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert members[0].cancelled()

    any_loop.run_until_complete(main())


def test_the_modules_names_are_ours() -> None:
    names = "Future Task TaskGroup as_completed create_task gather shield sleep wait wait_for"
    for name in names.split():
        assert getattr(juggler.asyncio, name) is not getattr(asyncio, name)
        assert name in juggler.asyncio.__all__
