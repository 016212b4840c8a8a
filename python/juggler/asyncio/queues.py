"""Queues between the tasks of a loop: stands in for the standard library's ``asyncio.queues``.

Native: `Queue`, `LifoQueue`, `PriorityQueue`, with ``shutdown`` on every version.

Fairness and the order of wake-ups are the standard library's. A subclass may override what it
overrides there; a queue of such a class, or whose ``_queue`` was asked for, works as the standard
library's do, and as slowly.

Deviations: ``maxsize`` must be a number, and a fraction is rounded up. `PriorityQueue` survives a
comparison that raises.
"""

from __future__ import annotations

import sys
from asyncio import queues as _stdlib
from asyncio.queues import QueueEmpty, QueueFull

from juggler.asyncio._primitives import LifoQueue, PriorityQueue, Queue

if sys.version_info >= (3, 13):
    from asyncio.queues import QueueShutDown
else:

    class QueueShutDown(Exception):
        """Raised by put and get of a queue that was shut down; as in 3.13's library."""

        __module__ = "asyncio.queues"


__all__ = ["LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull", "QueueShutDown"]

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stdlib, name)
