"""Operations of an *open* queue: one whose parts the program uses, or whose class overrides a hook.

The algorithms are those of the standard library's ``queue.Queue``: every operation holds ``mutex``,
waits on the three conditions that share it, and reaches the items only through ``_init``,
``_qsize``, ``_put`` and ``_get``.
The native class calls these functions; nothing else does.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from juggler.queue import Empty, Full, ShutDown

if TYPE_CHECKING:
    from juggler.queue import Queue


def init_fifo(queue: Queue[Any], _maxsize: int) -> None:
    """What ``Queue._init`` does."""
    queue.queue = deque()


def init_list(queue: Queue[Any], _maxsize: int) -> None:
    """What ``LifoQueue._init`` and ``PriorityQueue._init`` do."""
    queue.queue = []


def put(queue: Queue[Any], item: Any, block: object, timeout: float | None) -> None:
    """Put an item; Full if there was no room in time, ShutDown if the queue was shut down."""
    with queue.not_full:
        if queue.is_shutdown:
            raise ShutDown
        if queue.maxsize > 0:
            deadline = _deadline(timeout) if block else 0.0
            while queue._qsize() >= queue.maxsize:
                if not _wait(queue.not_full, deadline):
                    raise Full
                if queue.is_shutdown:
                    raise ShutDown
        queue._put(item)
        queue.unfinished_tasks += 1
        queue.not_empty.notify()


def get(queue: Queue[Any], block: object, timeout: float | None) -> Any:
    """Take an item; Empty if none came in time, ShutDown if the queue is shut down and empty."""
    with queue.not_empty:
        if queue.is_shutdown and not queue._qsize():
            raise ShutDown
        deadline = _deadline(timeout) if block else 0.0
        while not queue._qsize():
            if not _wait(queue.not_empty, deadline):
                raise Empty
            if queue.is_shutdown and not queue._qsize():
                raise ShutDown
        item = queue._get()
        queue.not_full.notify()
        return item


def task_done(queue: Queue[Any]) -> None:
    """Mark an item as done."""
    with queue.all_tasks_done:
        unfinished = queue.unfinished_tasks - 1
        if unfinished < 0:
            raise ValueError("task_done() called too many times")
        queue.unfinished_tasks = unfinished
        if unfinished == 0:
            queue.all_tasks_done.notify_all()


def join(queue: Queue[Any]) -> None:
    """Wait until every item is done."""
    with queue.all_tasks_done:
        while queue.unfinished_tasks:
            queue.all_tasks_done.wait()


def shutdown(queue: Queue[Any], immediate: bool) -> None:
    """Refuse puts, and gets once the queue is empty; with ``immediate`` empty it at once."""
    with queue.mutex:
        queue.is_shutdown = True
        if immediate:
            while queue._qsize():
                queue._get()
                if queue.unfinished_tasks > 0:
                    queue.unfinished_tasks -= 1
            queue.all_tasks_done.notify_all()
        queue.not_empty.notify_all()
        queue.not_full.notify_all()


def qsize(queue: Queue[Any]) -> int:
    """How many items are inside."""
    with queue.mutex:
        return queue._qsize()


def empty(queue: Queue[Any]) -> bool:
    """Whether nothing is inside."""
    with queue.mutex:
        return not queue._qsize()


def full(queue: Queue[Any]) -> bool:
    """Whether a put would have to wait."""
    with queue.mutex:
        return 0 < queue.maxsize <= queue._qsize()


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _wait(condition: Any, deadline: float | None) -> bool:
    """Wait to be notified; False, without waiting, when the deadline has passed."""
    if deadline is None:
        condition.wait()
        return True
    remaining = deadline - time.monotonic()
    if remaining <= 0.0:
        return False
    condition.wait(remaining)
    return True
