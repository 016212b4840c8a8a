"""Queues between threads: stands in for the standard library's ``queue``.

Native: `Queue`, `LifoQueue`, `PriorityQueue`, with ``shutdown`` on every version. `SimpleQueue` is
the standard library's own, which is written in C.

Blocking: a call that need not wait never gives the GIL up, but for one case; a wait gives it up,
answers signals (Ctrl-C ends it at once in the main thread) and measures its timeout on the
monotonic clock. The one case: a thread that puts an item for a getter that had slept for a
quarter of a millisecond or more lets that one run first, for at most 0.5 ms (the main thread, from
3.13 on, as soon as that one is awake, and computes until then). Under the GIL a busy producer would
otherwise keep it waiting for a whole switch interval (5 ms).

Deviations: ``maxsize`` must be a number; a float is rounded up. `PriorityQueue` survives a
comparison that raises.
"""

from __future__ import annotations

import queue as _stdlib
import sys
from queue import Empty, Full, SimpleQueue

from juggler._juggler import LifoQueue, PriorityQueue, Queue, QueueStatistics

if sys.version_info >= (3, 13):
    from queue import ShutDown
else:

    class ShutDown(Exception):
        """Raised by put and get of a queue that was shut down; as `queue.ShutDown` of 3.13."""

        __module__ = "queue"


__all__ = [
    "Empty",
    "Full",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "QueueStatistics",
    "ShutDown",
    "SimpleQueue",
]

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stdlib, name)
