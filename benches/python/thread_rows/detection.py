"""What deadlock detection costs: juggler with it off and on, each in an interpreter of its own.

Detection is a switch of the whole process, so on and off cannot take turns inside of one.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace

from harness.contenders import MAKERS, Contender
from harness.measure import Bench, Effort, Metric, Turn
from thread_rows import contended, uncontended
from thread_rows.child import ask

GROUP = "deadlock detection"

_NAMES = (
    "Lock: with",
    "Lock: acquire + release",
    "RLock: with",
    "RLock: with, held already",
    "Condition: with + notify",
    "Queue: put + get",
    "Lock: 4 threads",
    "Queue: 1 producer, 1 consumer",
)

_SOURCES = {source.metrics[0].name: source for source in (*uncontended.ROWS, *contended.ROWS)}


def _entrants() -> tuple[Contender, ...]:
    """Off is the baseline; the standard library shows what a program had before."""
    off = replace(MAKERS["juggler"](), name="juggler, off")
    on = replace(off, name="juggler, on", classes=off.classes if _can_detect() else {})
    return off, on, MAKERS["stdlib"]()


def _can_detect() -> bool:
    try:
        return hasattr(importlib.import_module("juggler.threading"), "detect_deadlocks")
    except ImportError:
        return False


def _bench(name: str, entrants: tuple[Contender, ...]) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        arguments = (
            "thread_rows.detection",
            contender.name,
            name,
            str(effort.seconds),
            str(effort.share),
        )
        return lambda: [[ask(*arguments)]]

    source = _SOURCES[name]
    return Bench(GROUP, (Metric(name),), source.needs, prepare, entrants=entrants)


def rows() -> tuple[Bench, ...]:
    """The benches, against what this build of juggler has."""
    entrants = _entrants()
    return tuple(_bench(name, entrants) for name in _NAMES)


def _sample(chosen: str, name: str, seconds: str, share: str) -> float:
    maker, _, detection = chosen.partition(", ")
    contender = MAKERS[maker]()
    if detection == "on":
        importlib.import_module("juggler.threading").detect_deadlocks()
    effort = Effort(seconds=float(seconds), share=float(share))
    turn = _SOURCES[name].prepare(contender, effort)
    turn()  # the first pays for specialisation and caches
    [[sample]] = turn()
    return sample


if __name__ == "__main__":
    print(_sample(*sys.argv[1:]))
