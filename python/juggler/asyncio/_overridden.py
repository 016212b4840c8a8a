"""What the primitives do when a program has overridden a part of them.

The standard library's primitives are made of methods that call each other, so that a subclass, or
an attribute set on an object, changes what the others do. Ours call no method; where one was
overridden, these functions call all of them, as the standard library does.
"""

from __future__ import annotations

from asyncio.exceptions import CancelledError
from collections.abc import Callable

from juggler.asyncio.queues import QueueEmpty, QueueFull, QueueShutDown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from juggler._juggler import AsyncCondition, AsyncQueue


async def enter(lock: Any) -> None:
    """``__aenter__`` of a lock, a semaphore or a condition."""
    await lock.acquire()


async def leave(lock: Any) -> None:
    """``__aexit__`` of a lock, a semaphore or a condition."""
    lock.release()


async def wait(condition: AsyncCondition) -> bool:
    """``Condition.wait`` with a lock that is not ours."""
    if not condition.locked():
        raise RuntimeError("cannot wait on un-acquired lock")
    future = condition._get_loop().create_future()
    condition.release()
    try:
        try:
            condition._waiters.append(future)
            try:
                await future
                return True
            finally:
                condition._waiters.remove(future)
        finally:
            # The lock must be held at the end, however often the task is cancelled.
            cancelled = None
            while True:
                try:
                    await condition.acquire()
                    break
                except CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                try:
                    raise cancelled
                finally:
                    cancelled = None  # it refers to this frame
    except BaseException:
        # It may have been notified, which somebody else is to know then.
        condition._notify(1)
        raise


async def wait_for(condition: AsyncCondition, predicate: Callable[[], Any]) -> Any:
    """``Condition.wait_for``."""
    while not (result := predicate()):
        await condition.wait()
    return result


def wake_next(waiters: Any) -> None:
    """Wake the first who waits and is not cancelled."""
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)
            break


def put_nowait(queue: AsyncQueue[Any], item: Any) -> None:
    """``Queue.put_nowait``."""
    if queue._is_shutdown:
        raise QueueShutDown
    if queue.full():
        raise QueueFull
    queue._put(item)
    queue._unfinished_tasks += 1
    queue._finished.clear()
    queue._wakeup_next(queue._getters)


def get_nowait(queue: AsyncQueue[Any]) -> Any:
    """``Queue.get_nowait``."""
    if queue.empty():
        if queue._is_shutdown:
            raise QueueShutDown
        raise QueueEmpty
    item = queue._get()
    queue._wakeup_next(queue._putters)
    return item


def drain(queue: AsyncQueue[Any]) -> None:
    """Throw all items away, for ``Queue.shutdown``."""
    while not queue.empty():
        queue._get()
        if queue._unfinished_tasks > 0:
            queue._unfinished_tasks -= 1
