"""Tasks and the waits over them: stands in for ``asyncio.tasks``. See `juggler.asyncio`."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import sys
import weakref
from asyncio import coroutines, futures
from asyncio.tasks import (
    _register_task,
    _unregister_task,
)

from juggler import _juggler
from juggler._juggler import AsyncTask as Task
from juggler._juggler import _async_as_completed as as_completed
from juggler._juggler import create_task, gather, shield, sleep, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import Any

__all__ = [
    "Task",
    "as_completed",
    "create_eager_task_factory",
    "create_task",
    "eager_task_factory",
    "gather",
    "shield",
    "sleep",
    "wait",
    "wait_for",
]


stdlib_eager_task_factory: Any = getattr(asyncio, "eager_task_factory", None)


class _ScheduledTasks(weakref.WeakSet["asyncio.Task[Any]"]):
    """The tasks that the standard library's `all_tasks` does not know by itself."""

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        yield from super().__iter__()
        yield from _juggler._pending_tasks()


def _tell_all_tasks() -> None:
    """Have the set that `asyncio.all_tasks` looks into give our tasks as well.

    Since 3.14 it is in a module's private state. A weak set can be found from what it holds: the
    callback of its reference knows it.
    """

    class Probe:
        pass

    probe: Any = Probe()
    _register_task(probe)
    try:
        for reference in weakref.getweakrefs(probe):
            callback: Any = reference.__callback__
            callback.__defaults__[0]().__class__ = _ScheduledTasks
    finally:
        _unregister_task(probe)


async def wait(
    fs: Iterable[asyncio.Future[Any]],
    *,
    timeout: float | None = None,
    return_when: str = asyncio.ALL_COMPLETED,
) -> tuple[set[asyncio.Future[Any]], set[asyncio.Future[Any]]]:
    """Wait until futures or tasks are done; as `asyncio.wait`.

    Args:
        fs: the futures and tasks, of the running loop.
        timeout: how many seconds to wait at most; None: without end. No error is raised when they
            are over.
        return_when: FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED.

    Returns:
        Those that are done, and those that are not.
    """
    if futures.isfuture(fs) or coroutines.iscoroutine(fs):
        raise TypeError(f"expect a list of futures, not {type(fs).__name__}")
    if not fs:
        raise ValueError("Set of Tasks/Futures is empty.")
    if return_when not in (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED):
        raise ValueError(f"Invalid return_when value: {return_when}")
    watched = set(fs)
    if any(map(coroutines.iscoroutine, watched)):
        raise TypeError("Passing coroutines is forbidden, use tasks explicitly.")
    loop = asyncio.get_running_loop()
    left = 1 if return_when == asyncio.FIRST_COMPLETED else len(watched)
    watch = _juggler._Watch(watched, left, return_when == asyncio.FIRST_EXCEPTION, loop)
    waiter = watch.begin()
    timer = None if timeout is None else loop.call_later(timeout, _release, waiter)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        watch.end()
    done = {future for future in watched if future.done()}
    return done, watched - done


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def create_eager_task_factory(
    custom_task_constructor: Callable[..., asyncio.Task[Any]],
) -> Callable[..., asyncio.Task[Any]]:
    """Make a task factory whose tasks run at once, until they wait for something.

    Stands in for `asyncio.create_eager_task_factory`, which came with 3.12.

    Args:
        custom_task_constructor: what makes a task, by the signature of `Task`.
    """

    def factory(
        loop: asyncio.AbstractEventLoop,
        coro: Coroutine[Any, Any, Any],
        *,
        eager_start: bool = True,
        **kwargs: Any,
    ) -> asyncio.Task[Any]:
        return custom_task_constructor(coro, loop=loop, eager_start=eager_start, **kwargs)

    return factory


def eager_task_factory(
    loop: asyncio.AbstractEventLoop, coro: Any, *, eager_start: bool = True, **kwargs: Any
) -> Task[Any]:
    """Make a task that runs at once, until it waits for something.

    Stands in for `asyncio.eager_task_factory`: ``loop.set_task_factory(eager_task_factory)``.
    """
    return Task(coro, loop=loop, eager_start=eager_start, **kwargs)


def _pass_for_coroutine_function(cls: Any) -> None:
    """Have a class whose instances are coroutines pass for a coroutine function."""
    collections.abc.Coroutine.register(cls)
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(cls)
    if hasattr(coroutines, "_is_coroutine"):  # what asyncio.iscoroutinefunction looks for
        cls._is_coroutine = coroutines._is_coroutine


_tell_all_tasks()
_pass_for_coroutine_function(sleep)
