"""Locks and values that processes share: uncontended, and counted by two processes at once."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.contenders import Contender, version
from harness.measure import Bench, Effort, Metric, Turn
from harness.timing import statement

GROUP = "shared between processes"

_clock = time.perf_counter
_fork = multiprocessing.get_context("fork")


def _contenders() -> tuple[Contender, ...]:
    from juggler.multiprocessing import sharedctypes, synchronize

    names = ("Lock", "RLock", "Semaphore", "Event", "Value")
    ours = {
        **{name: getattr(synchronize, name) for name in names[:-1]},
        "Value": sharedctypes.Value,
        "AtomicValue": sharedctypes.Value,
    }
    return (
        Contender("stdlib", "this interpreter's", {name: getattr(_fork, name) for name in names}),
        Contender("juggler", version("juggler"), ours),
    )


def _row(name: str, needs: str, source: str, setup: str) -> Bench:
    prepare = statement(source, setup)

    def wrapped(contender: Contender, effort: Effort) -> Turn:
        sample = prepare(contender, effort)
        return lambda: [[sample()]]

    return Bench(GROUP, (Metric(name),), (needs,), wrapped, _contenders())


def _increment(value: Any, times: int) -> None:
    for _ in repeat(None, times):
        with value.get_lock():
            value.value += 1


def _fetch_add(value: Any, times: int) -> None:
    for _ in repeat(None, times):
        value.fetch_add(1)


def _counted_by_two(name: str, needs: str, count: Callable[[Any, int], None], full: int) -> Bench:
    """Seconds per addition of two processes that count in the same value, starts included."""

    def prepare(contender: Contender, effort: Effort) -> Turn:
        each = effort.count(full) // 2

        def turn() -> list[list[float]]:
            value = contender.classes[needs]("q", 0)
            children = [_fork.Process(target=count, args=(value, each)) for _ in range(2)]
            start = _clock()
            for child in children:
                child.start()
            for child in children:
                child.join()
            took = _clock() - start
            assert value.value == 2 * each
            return [[took / (2 * each)]]

        return turn

    return Bench(GROUP, (Metric(name),), (needs,), prepare, _contenders())


_LOCKED = "with value.get_lock(): value.value += 1"

ROWS = [
    _row("Lock: with", "Lock", "with lock: pass", "lock = Lock()"),
    _row("Lock: acquire + release", "Lock", "lock.acquire(); lock.release()", "lock = Lock()"),
    _row("RLock: with", "RLock", "with lock: pass", "lock = RLock()"),
    _row("Semaphore: with", "Semaphore", "with lock: pass", "lock = Semaphore(2)"),
    _row("Event: set + clear", "Event", "event.set(); event.clear()", "event = Event()"),
    _row("Value: increment under its lock", "Value", _LOCKED, "value = Value('q', 0)"),
    _row("Value: fetch_add", "AtomicValue", "value.fetch_add(1)", "value = AtomicValue('q', 0)"),
    _counted_by_two("Value: increment under its lock, 2 processes", "Value", _increment, 1_000_000),
    _counted_by_two("Value: fetch_add, 2 processes", "AtomicValue", _fetch_add, 2_000_000),
]
