"""Tasks and the waits over them: seconds of processor time per task, sleep or wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench

GROUP = "tasks"

Main = Callable[[Contender, int], Coroutine[Any, Any, object]]


async def _noop() -> None: ...


async def _create_and_await(contender: Contender, tasks: int) -> None:
    create_task = contender.classes["create_task"]
    for _ in repeat(None, tasks):
        await create_task(_noop())


async def _gather(contender: Contender, tasks: int) -> None:
    await contender.make("gather", *[_noop() for _ in repeat(None, tasks)])


async def _sleep_zero(contender: Contender, sleeps: int) -> None:
    """A thousand tasks, each giving its turn away over and over."""
    sleep = contender.classes["sleep"]

    async def body() -> None:
        for _ in repeat(None, max(1, sleeps // 1000)):
            await sleep(0)

    await contender.make("gather", *[body() for _ in range(1000)])


async def _sleep_shortly(contender: Contender, sleeps: int) -> None:
    sleep = contender.classes["sleep"]
    await contender.make("gather", *[sleep(0.0001) for _ in repeat(None, sleeps)])


def _groups_of(size: int) -> Main:
    async def main(contender: Contender, tasks: int) -> None:
        for _ in repeat(None, max(1, tasks // size)):
            async with contender.make("TaskGroup") as group:
                for _ in repeat(None, size):
                    group.create_task(_noop())

    return main


async def _wait(contender: Contender, tasks: int) -> None:
    create_task, wait = contender.classes["create_task"], contender.classes["wait"]
    for _ in repeat(None, max(1, tasks // 10)):
        await wait([create_task(_noop()) for _ in range(10)])


async def _wait_for(contender: Contender, waits: int) -> None:
    wait_for, sleep = contender.classes["wait_for"], contender.classes["sleep"]
    for _ in repeat(None, waits):
        await wait_for(sleep(0), 10)


async def _wait_for_done(contender: Contender, waits: int) -> None:
    """What is waited for is done already."""
    wait_for = contender.classes["wait_for"]
    done = asyncio.get_running_loop().create_future()
    done.set_result(None)
    for _ in repeat(None, waits):
        await wait_for(done, 10)


async def _timeout(contender: Contender, waits: int) -> None:
    timeout, sleep = contender.classes["timeout"], contender.classes["sleep"]
    for _ in repeat(None, waits):
        async with timeout(10):
            await sleep(0)


async def _expired(contender: Contender, waits: int) -> None:
    timeout, sleep = contender.classes["timeout"], contender.classes["sleep"]
    for _ in repeat(None, waits):
        try:
            async with timeout(0):
                await sleep(10)
        except TimeoutError:
            pass


async def _shield(contender: Contender, waits: int) -> None:
    shield, sleep = contender.classes["shield"], contender.classes["sleep"]
    for _ in repeat(None, waits):
        await shield(sleep(0))


async def _as_completed(contender: Contender, tasks: int) -> None:
    as_completed = contender.classes["as_completed"]
    for _ in repeat(None, max(1, tasks // 1000)):
        for each in as_completed([_noop() for _ in repeat(None, 1000)]):
            await each


async def _future(contender: Contender, futures: int) -> None:
    """A future that a callback sets while a task waits for it."""
    loop = asyncio.get_running_loop()
    for _ in repeat(None, futures):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


def _prepare(main: Main, full: int) -> Callable[[Contender, Effort], Callable[[], float]]:
    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        operations = effort.count(full)

        def turn() -> float:
            loop = contender.make("new_event_loop")
            try:
                began = time.process_time()
                loop.run_until_complete(main(contender, operations))
                return (time.process_time() - began) / operations
            finally:
                loop.close()

        return turn

    return prepare


def _row(name: str, main: Main, operations: int, *needs: str) -> Bench:
    return bench(GROUP, name, ("new_event_loop", *needs), _prepare(main, operations))


ROWS = (
    _row("create_task + await of a no-op", _create_and_await, 10_000, "create_task"),
    _row("gather of 10,000", _gather, 10_000, "gather"),
    _row("sleep(0) over 1,000 tasks", _sleep_zero, 20_000, "sleep", "gather"),
    _row("sleep of 0.1 ms, 10,000 at once", _sleep_shortly, 10_000, "sleep", "gather"),
    _row("TaskGroup of 100", _groups_of(100), 10_000, "TaskGroup"),
    _row("TaskGroup of 3", _groups_of(3), 9_000, "TaskGroup"),
    _row("wait for 10 tasks", _wait, 10_000, "create_task", "wait"),
    _row("wait_for of sleep(0)", _wait_for, 10_000, "wait_for", "sleep"),
    _row("wait_for of what is done", _wait_for_done, 10_000, "wait_for"),
    _row("async with timeout", _timeout, 10_000, "timeout", "sleep"),
    _row("async with timeout, expired", _expired, 5_000, "timeout", "sleep"),
    _row("shield of sleep(0)", _shield, 10_000, "shield", "sleep"),
    _row("as_completed of 1,000", _as_completed, 10_000, "as_completed"),
    _row("future set by a callback", _future, 10_000),
)
