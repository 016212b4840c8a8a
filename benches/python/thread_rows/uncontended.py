"""One thread alone: what an operation costs where nobody else wants the object."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import count, cycle
from operator import add
from typing import Any

from harness.measure import Bench, bench
from harness.timing import statement

GROUP = "uncontended"

_WITH = "with lock: pass"
_ACQUIRE = "lock.acquire(); lock.release()"
_PUT_GET = "queue.put(1); queue.get()"


def _ascending_tuples() -> Mapping[str, Any]:
    """Tuples whose priority grows slowly, made by C iterators: the classical hold model.

    What is put lands anywhere in the heap, as it would in a scheduler; items that always belong
    at the top would leave most of the heap untouched.
    """
    source = random.Random(7)
    jitter = [source.randrange(1000) for _ in range(4096)]
    return {"item": zip(map(add, count(), cycle(jitter)), count()).__next__}


def _callback(future: object) -> None:
    pass


def _row(name: str, needs: str, source: str, setup: str = "pass", **names: Any) -> Bench:
    return bench(GROUP, name, (needs,), statement(source, setup, lambda: names))


ROWS = (
    _row("Lock: with", "Lock", _WITH, "lock = Lock()"),
    _row("Lock: acquire + release", "Lock", _ACQUIRE, "lock = Lock()"),
    _row("Lock: create", "Lock", "Lock()"),
    _row("RLock: with", "RLock", _WITH, "lock = RLock()"),
    _row("RLock: acquire + release", "RLock", _ACQUIRE, "lock = RLock()"),
    _row("RLock: with, held already", "RLock", _WITH, "lock = RLock(); lock.acquire()"),
    _row("RLock: create", "RLock", "RLock()"),
    _row("Semaphore: with", "Semaphore", _WITH, "lock = Semaphore(2)"),
    _row("Semaphore: acquire + release", "Semaphore", _ACQUIRE, "lock = Semaphore(2)"),
    _row("BoundedSemaphore: with", "BoundedSemaphore", _WITH, "lock = BoundedSemaphore(2)"),
    _row("Event: set + clear", "Event", "event.set(); event.clear()", "event = Event()"),
    _row("Event: is_set", "Event", "event.is_set()", "event = Event()"),
    _row("Event: wait, set already", "Event", "event.wait()", "event = Event(); event.set()"),
    _row(
        "Condition: with + notify",
        "Condition",
        "with condition: condition.notify()",
        "condition = Condition()",
    ),
    _row("Barrier(1): wait", "Barrier", "barrier.wait()", "barrier = Barrier(1)"),
    _row("Queue: put + get", "Queue", _PUT_GET, "queue = Queue()"),
    _row(
        "Queue: put_nowait + get_nowait",
        "Queue",
        "queue.put_nowait(1); queue.get_nowait()",
        "queue = Queue()",
    ),
    _row("Queue: create", "Queue", "Queue()"),
    _row("LifoQueue: put + get", "LifoQueue", _PUT_GET, "queue = LifoQueue()"),
    _row("PriorityQueue: put + get, int", "PriorityQueue", _PUT_GET, "queue = PriorityQueue()"),
    bench(
        GROUP,
        "PriorityQueue: put + get, 1,000 tuples",
        ("PriorityQueue",),
        statement(
            "queue.put(item()); queue.get()",
            "queue = PriorityQueue()\nfor _ in repeat(None, 1000): queue.put(item())",
            _ascending_tuples,
        ),
    ),
    _row(
        "Future: create + set_result + result",
        "Future",
        "future = Future(); future.set_result(1); future.result()",
    ),
    _row(
        "Future: create + callback + set_result",
        "Future",
        "future = Future(); future.add_done_callback(callback); future.set_result(1)",
        callback=_callback,
    ),
)
