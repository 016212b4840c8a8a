"""Queues as a program uses them: type checked, and run."""

from __future__ import annotations

import queue as stdlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any, assert_type

from juggler import queue


@dataclass(order=True)
class Job:
    priority: int
    name: str = field(compare=False)


class Newest(queue.Queue[str]):
    """Keeps its items in its own order, through the hooks."""

    def _init(self, maxsize: int) -> None:
        self.items: deque[str] = deque(maxlen=maxsize or None)

    def _qsize(self) -> int:
        return len(self.items)

    def _put(self, item: str) -> None:
        self.items.appendleft(item)

    def _get(self) -> str:
        return self.items.popleft()


def drain(source: queue.Queue[int]) -> list[int]:
    items = []
    while True:
        try:
            items.append(source.get_nowait())
        except queue.Empty:
            return items
        source.task_done()


def main() -> None:
    numbers: queue.Queue[int] = queue.Queue(maxsize=2)
    numbers.put(1)
    numbers.put(2, block=True, timeout=1.0)
    try:
        numbers.put_nowait(3)
    except stdlib.Full as error:  # one class, whichever module names it
        assert_type(error, queue.Full)
    assert_type(numbers.statistics(), queue.QueueStatistics)
    assert_type(numbers.qsize(), int)
    assert drain(numbers) == [1, 2]
    numbers.join()
    numbers.shutdown(immediate=True)
    try:
        numbers.get()
    except queue.ShutDown:
        assert_type(numbers.is_shutdown, bool)

    stack = queue.LifoQueue[str]()
    stack.put("item")
    assert_type(stack.get(timeout=60), str)

    jobs: queue.PriorityQueue[Job] = queue.PriorityQueue()
    jobs.put(Job(2, "second"))
    jobs.put(Job(1, "first"))
    assert_type(jobs.get(), Job)
    assert [job.name for job in jobs.queue] == ["second"]

    newest = Newest()
    newest.put("old")
    newest.put("new")
    assert_type(newest.get(), str)
    assert newest.qsize() == 1

    simple: queue.SimpleQueue[Any] = queue.SimpleQueue()
    assert_type(simple.empty(), bool)


if __name__ == "__main__":
    main()
