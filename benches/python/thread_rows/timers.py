"""`Timer`: what starting, waiting and firing cost."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.contenders import MAKERS, Contender
from harness.measure import Bench, Effort, Metric, bench
from thread_rows.child import ask
from thread_rows.memory import resident

GROUP = "timers"

_TIMERS = 1_000
_NEEDS = ("Timer",)
# Seconds: long enough for all to be started, short enough to wait for.
_SOON = 0.2
_LONG = 60

_clock = time.perf_counter


def _nothing() -> None:
    pass


def _one_by_one(contender: Contender, effort: Effort) -> Callable[[], float]:
    """Timers as time limits use them: around each of many operations."""
    count, timer = effort.count(_TIMERS), contender.classes["Timer"]

    def sample() -> float:
        start = _clock()
        for _ in repeat(None, count):
            limit = timer(_LONG, _nothing)
            limit.start()
            limit.cancel()
        return (_clock() - start) / count

    return sample


def _together(contender: Contender, effort: Effort) -> Callable[[], float]:
    """Time limits of operations that run at the same time."""
    count, timer = effort.count(_TIMERS), contender.classes["Timer"]

    def sample() -> float:
        start = _clock()
        timers = [timer(_LONG, _nothing) for _ in repeat(None, count)]
        for each in timers:
            each.start()
        for each in timers:
            each.cancel()
        for each in timers:
            each.join()
        return (_clock() - start) / count

    return sample


def _due_at_once(contender: Contender, effort: Effort) -> Callable[[], float]:
    """From the moment in which all are due to the last call made."""
    count, timer = effort.count(_TIMERS), contender.classes["Timer"]

    def sample() -> float:
        calls: list[float] = []
        due = _clock() + _SOON
        timers = [
            timer(due - _clock(), lambda: calls.append(_clock())) for _ in repeat(None, count)
        ]
        for each in timers:
            each.interval = max(0.001, due - _clock())
            each.start()
        for each in timers:
            each.finished.wait()
        return (max(calls) - due) / count

    return sample


def _late(contender: Contender, effort: Effort) -> Callable[[], float]:
    """How long after it is due the function of a lone timer is called."""
    count, timer = effort.count(20), contender.classes["Timer"]

    def sample() -> float:
        delays = []
        for _ in repeat(None, count):
            calls: list[float] = []
            each = timer(0.002, lambda calls: calls.append(_clock()), (calls,))
            start = _clock()
            each.start()
            each.finished.wait()
            delays.append(calls[0] - start - 0.002)
        return statistics.median(delays)

    return sample


def _memory(contender: Contender, effort: Effort) -> Callable[[], list[list[float]]]:
    arguments = ("thread_rows.timers", contender.name, str(effort.count(_TIMERS)))
    return lambda: [[ask(*arguments)]]


def _bytes_each(timer: Any, count: int) -> float:
    """Resident bytes per pending timer in this process, which should be a fresh one."""
    slots: list[object] = [0] * count

    def start() -> object:
        each = timer(_LONG, _nothing)
        each.daemon = True
        each.start()
        return each

    first = start()
    before = resident()
    for number in range(count):
        slots[number] = start()
    grown = resident() - before
    del first
    return grown / count


ROWS: tuple[Bench, ...] = (
    bench(GROUP, "Timer: start + cancel", _NEEDS, _one_by_one),
    bench(GROUP, "1,000 timers: start, cancel, join", _NEEDS, _together),
    bench(GROUP, "1,000 timers due at once: the last call", _NEEDS, _due_at_once),
    bench(GROUP, "Timer: how late its call is", _NEEDS, _late),
    Bench(GROUP, (Metric("Timer, one pending", unit="B"),), _NEEDS, _memory, most_rounds=3),
)


if __name__ == "__main__":
    chosen, instances = sys.argv[1:]
    print(_bytes_each(MAKERS[chosen]().classes["Timer"], int(instances)), flush=True)
    # Not by way of `exit`, which would let the stacks of a thousand threads run.
    os._exit(0)
