"""Task groups: stands in for ``asyncio.taskgroups``. See `juggler.asyncio`."""

from __future__ import annotations

from asyncio.taskgroups import TaskGroup as _StdlibTaskGroup

from juggler import _juggler

__all__ = ["TaskGroup"]


class TaskGroup(_juggler.TaskGroup, _StdlibTaskGroup):
    """Tasks that are waited for together, and cancelled together when one fails.

    Stands in for `asyncio.TaskGroup`, and is a subclass of it: making tasks and taking note of
    their ends is native, what happens when one fails is the running version's own code.
    """
