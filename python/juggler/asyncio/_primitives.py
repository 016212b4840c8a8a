"""The futures, locks and queues of `juggler.asyncio`: native, all of them.

In one module, for the sake of those who import ``asyncio`` and have them put in place: `futures`,
`locks` and `queues`, which describe them, are imported by those who name them.
"""

from juggler._juggler import AsyncBarrier as Barrier
from juggler._juggler import AsyncBoundedSemaphore as BoundedSemaphore
from juggler._juggler import AsyncCondition as Condition
from juggler._juggler import AsyncEvent as Event
from juggler._juggler import AsyncFuture as Future
from juggler._juggler import AsyncLifoQueue as LifoQueue
from juggler._juggler import AsyncLock as Lock
from juggler._juggler import AsyncPriorityQueue as PriorityQueue
from juggler._juggler import AsyncQueue as Queue
from juggler._juggler import AsyncSemaphore as Semaphore

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Future",
    "LifoQueue",
    "Lock",
    "PriorityQueue",
    "Queue",
    "Semaphore",
]
