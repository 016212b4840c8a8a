"""Locks and their like for tasks: stands in for the standard library's ``asyncio.locks``.

Native: all of them. Fairness, the order of wake-ups and what becomes of a wake-up whose task is
cancelled are the standard library's, on every version those of the newest. They work with any
loop and any task, the standard library's too. None may be used from two threads at once.

Deviation: what the standard library writes as coroutine functions (`Lock.acquire` and its like)
are methods that return coroutines; ``inspect.iscoroutinefunction`` says no to them.
"""

from __future__ import annotations

from asyncio import locks as _stdlib

from juggler.asyncio._primitives import (
    Barrier,
    BoundedSemaphore,
    Condition,
    Event,
    Lock,
    Semaphore,
)

__all__ = ["Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore"]

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stdlib, name)
