"""Tasks and the waits over them: stands in for ``asyncio.tasks``. See `juggler.asyncio`."""

from __future__ import annotations

import asyncio
import weakref
from asyncio.tasks import (
    _register_task,
    _unregister_task,
)

from juggler import _juggler
from juggler._juggler import AsyncTask as Task
from juggler._juggler import gather

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Task", "gather"]


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


_tell_all_tasks()
