"""The first calls of a map under measurement."""

from __future__ import annotations

import sys
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

from juggler._juggler import Probe
from juggler._map.choosing import Facts
from juggler._map.travel import Traces, cost, writes_globals

ENOUGH = 0.005
"""Seconds of calls after which threads, or nothing, can be chosen."""
SURE = 0.03
"""Seconds of calls after which processes can be, which are dear if that is wrong."""
PATIENCE = 0.05
"""Seconds after which something is chosen, whatever was seen."""
CALLS = 4096
"""So many short calls are enough."""
LOOK = 0.002
"""Seconds between two looks at a call that goes on."""
_SAMPLES = 3


class _Reading(NamedTuple):
    """What `Probe.read` returns: nanoseconds and counts."""

    wall: int = 0
    running: int = 0
    queued: int = 0
    process: int = 0
    faults: int = 0
    looks: int = 0
    held: int | None = 0

    def since(self, other: _Reading) -> _Reading:
        held = None if self.held is None else self.held - (other.held or 0)
        numbers = (now - before for now, before in zip(self[:6], other[:6], strict=True))
        return _Reading(*numbers, held)


class Measuring:
    """What is seen of the first calls of a function, one after the other."""

    def __init__(self, function: Any) -> None:
        self.probe = Probe()
        self.began = perf_counter()
        self._function = function
        self._traces = Traces(function)
        self._items: list[Any] = []
        self._results: list[Any] = []
        # After the first call, which may be unlike the others, and after the last that ended.
        self._first = _Reading()
        self._last = _Reading()
        self._calls = 0

    def send(self, items: list[Any], star: bool) -> None:
        """Some items are sent."""
        self._traces.add([one for item in items for one in item] if star else items)
        self._items += items[: _SAMPLES - len(self._items)]

    def came(self, results: list[Any]) -> None:
        """Their results came."""
        if results:
            self._calls += len(results)
            self._last = _Reading(*self.probe.read())
            if self._first.wall == 0 and len(results) == 1:
                self._first = self._last
            self._results += results[: _SAMPLES - len(self._results)]

    @property
    def seconds(self) -> float:
        """How long this has taken."""
        return perf_counter() - self.began

    def enough(self) -> bool:
        """Whether a choice can be made."""
        seen = _Reading(*self.probe.read()).wall / 1e9
        if self.seconds >= PATIENCE or self._calls >= CALLS or seen >= SURE:
            # What takes so long to begin with is a slow source.
            return self._calls > 0 or seen >= ENOUGH
        if seen < ENOUGH:
            return False
        facts = self._facts()
        waits = facts.running < 0.5 and (facts.gil or 0.0) < 0.5
        return waits or self._calls >= 3

    def facts(self, pickled: bool) -> Facts:
        """What was seen.

        Args:
            pickled: whether to find out what it costs to send items to processes, and whether
                that can be.
        """
        facts = self._facts()
        pickle: float | None = None
        obstacle: str | None = None
        if pickled:
            obstacle = writes_globals(self._function) or self._traces.changed()
            if obstacle is None:
                answer = cost(self._function, self._items, self._results)
                if isinstance(answer, str):
                    obstacle = answer
                else:
                    pickle = answer
        return replace(facts, pickle=pickle, obstacle=obstacle, measuring=self.seconds)

    def _facts(self) -> Facts:
        seen = _Reading(*self.probe.read())
        last, calls = self._last, self._calls
        if calls >= 3 and self._first.wall:
            seen, last = seen.since(self._first), last.since(self._first)
            calls -= 1
        span = max(1, seen.wall - seen.queued)
        seconds = (last.wall - last.queued) / calls if calls else span
        running = min(1.0, seen.running / span)
        others = seen.process / max(1, seen.running) if running > 0.1 else 1.0
        gil: float | None = None
        if not _has_gil():
            gil = 0.0
        elif seen.held is not None and seen.looks >= 5:
            gil = seen.held / seen.looks
        return Facts(
            calls=self._calls,
            seconds=max(seconds, 1) / 1e9,
            running=running,
            gil=gil,
            threads=others if others > 1.3 else 1.0,
            faults=seen.faults * 1e9 / span,
            queued=seen.queued / max(1, seen.wall),
        )


def _has_gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return True if enabled is None else bool(enabled())
