"""A consumer parked on an empty queue, and a producer that computes and seldom blocks.

The producer holds the interpreter. When its `put` wakes the consumer, somebody has to decide who
goes on: if the producer does, the item lies there for up to a switch interval (5 ms by default);
if it yields each time, it loses time of its own. Both sides are measured, so that neither can be
bought with the other unseen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, Metric

GROUP = "busy producer"

_clock = time.perf_counter


def _work(spins: int) -> int:
    """Pure Python that never blocks and never gives the interpreter up by itself."""
    total = 0
    for number in range(spins):
        total += number
    return total


def _spins(seconds: float) -> int:
    """How much of the work takes so long, at its undisturbed best."""
    spins = 20_000
    best = min(_timed_work(spins) for _ in range(7))
    return max(1, round(spins * seconds / best))


def _timed_work(spins: int) -> float:
    start = _clock()
    _work(spins)
    return _clock() - start


def _produce(put: Callable[[float], Any], items: int, spins: int) -> float:
    """The producer's time per item."""
    start = _clock()
    for _ in repeat(None, items):
        _work(spins)
        put(_clock())
    return (_clock() - start) / items


def _prepare(
    period: float, items: int
) -> Callable[[Contender, Effort], Callable[[], Sequence[Sequence[float]]]]:
    def prepare(contender: Contender, effort: Effort) -> Callable[[], Sequence[Sequence[float]]]:
        count, spins = effort.count(items), _spins(period)

        def turn() -> Sequence[Sequence[float]]:
            put, get = contender.bound(contender.make("Queue"), "put", "get")
            latencies: list[float] = []

            def consume() -> None:
                for _ in repeat(None, count):
                    stamp = get()
                    latencies.append(_clock() - stamp)

            consumer = threading.Thread(target=consume, daemon=True)
            consumer.start()
            time.sleep(0.01)  # let it park: the first item is measured too
            watched = _produce(put, count, spins)
            consumer.join()
            unwatched_put, _ = contender.bound(contender.make("Queue"), "put", "get")
            alone = _produce(unwatched_put, count, spins)
            return [latencies, latencies, [watched], [alone]]

        return turn

    return prepare


def _bench(period: float, items: int) -> Bench:
    every = f"an item every {period * 1e3:g} ms"
    return Bench(
        GROUP,
        (
            Metric(f"{every}: put → get, median"),
            Metric(f"{every}: put → get, 99th percentile", quantile=0.99),
            Metric(f"{every}: the producer's time per item"),
            Metric(f"{every}: the same, nobody waiting", control=True),
        ),
        ("Queue",),
        _prepare(period, items),
    )


ROWS = (_bench(0.010, 30), _bench(0.001, 150))
