"""The first calls of a map under measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from threading import get_native_id
from time import perf_counter
from typing import Any, NamedTuple

from juggler._juggler import Probe
from juggler._map.choosing import Facts, chunk
from juggler._map.travel import Traces, cost, writes_globals

ENOUGH = 0.005
"""Seconds after which something can be chosen if three calls have ended: the first may be unlike
the others."""
SURE = 0.03
"""Seconds after which one call that has ended is enough."""
PATIENCE = 0.05
"""Seconds after which something is chosen, whatever was seen."""
SHORT = 20e-6
"""Calls shorter than this, in seconds, are not worth to be handed over, whatever they do."""
FEW = 64
"""So many of these are enough."""
LOOK = 0.002
"""Seconds between two looks at a call that goes on."""
WAITS = 0.2
"""Who computes, and holds the GIL, for a smaller share than this needs nothing but threads."""
_SAMPLES = 256
"""Items and results of so many calls are kept while these are measured. Only of short calls there
are more than a few."""


class _Reading(NamedTuple):
    """What `Probe.read` returns: nanoseconds and counts."""

    wall: int = 0
    running: int = 0
    queued: int = 0
    process: int = 0
    faults: int = 0
    looks: int = 0
    held: int | None = 0

    @property
    def without_queue(self) -> int:
        """Nanoseconds in which it ran or was blocked."""
        return max(1, self.running, self.wall - self.queued)

    def since(self, other: _Reading) -> _Reading:
        held = None if self.held is None else self.held - (other.held or 0)
        return _Reading(
            self.wall - other.wall,
            self.running - other.running,
            self.queued - other.queued,
            self.process - other.process,
            self.faults - other.faults,
            self.looks - other.looks,
            held,
        )


class Watch:
    """A probe, and whose calls it watches."""

    def __init__(self) -> None:
        self._probe = Probe()
        self._thread = 0

    def begin(self) -> None:
        """This thread begins with what is to be watched."""
        self._thread = get_native_id()
        self._probe.begin()

    def end(self) -> None:
        """It has ended that."""
        self._probe.end()

    def read(self) -> _Reading:
        """What was seen so far, also of a call that goes on."""
        return _Reading(*self._probe.read())

    def is_blocked(self) -> bool:
        """Whether its thread waits now, and not for a processor: that shows only afterwards."""
        try:
            with open(f"/proc/self/task/{self._thread}/stat", "rb") as stat:
                return stat.read().rpartition(b")")[2].split()[0] != b"R"
        except OSError:
            return True


class Evidence:
    """Whether calls can be made in another process, as the first of them show."""

    def __init__(self, function: Any) -> None:
        self.results: list[Any] = []
        self._function = function
        self._traces = Traces(function)
        self._items: list[Any] = []

    def add(self, items: list[Any], star: bool) -> None:
        """These items are sent to calls."""
        self._traces.add([one for item in items for one in item] if star else items)
        self._items += items[: _SAMPLES - len(self._items)]

    def weigh(self, facts: Facts, samples: int = _SAMPLES) -> Facts:
        """The facts, with what it costs to send items to processes, or why that can't be.

        Args:
            facts: what was measured.
            samples: how many items it is found out with, at most.
        """
        obstacle = writes_globals(self._function) or self._traces.changed()
        if obstacle is not None:
            return replace(facts, obstacle=obstacle)
        items, results = self._items[:samples], self.results[:samples]
        answer = cost(self._function, items, results, chunk(facts))
        if isinstance(answer, str):
            return replace(facts, obstacle=answer)
        return replace(facts, pickle=answer)


class Measuring:
    """What is seen of the first calls of a function, one after the other.

    Args:
        function: the function.
        ours: nanoseconds of processor time that are not the calls'; None if nobody knows, so that
            it can't be told whether calls have threads of their own.
    """

    def __init__(self, function: Any, ours: Callable[[], int] | None) -> None:
        self.probe = Watch()
        self.began = perf_counter()
        self._ours = ours
        self._spent = ours() if ours else 0
        self.evidence = Evidence(function)
        # After the first call, which may be unlike the others, and after the last that ended.
        self._first = _Reading()
        self._last = _Reading()
        self._calls = 0
        self._shortest = float("inf")

    def send(self, items: list[Any], star: bool) -> None:
        """Some items are sent."""
        self.evidence.add(items, star)

    def came(self, results: list[Any], took: int) -> None:
        """Their results came; the calls took so many nanoseconds."""
        if results:
            self._shortest = min(self._shortest, took / len(results))
            self._calls += len(results)
            self._last = self.probe.read()
            if self._first.wall == 0 and len(results) == 1:
                self._first = self._last
            self.evidence.results += results[: _SAMPLES - len(self.evidence.results)]

    @property
    def together(self) -> int:
        """How many calls to make next: one, until it is known that they are short."""
        if not self._calls:
            return 1
        return max(1, min(256, int(ENOUGH * 1e9 / 4 / self._shortest)))

    @property
    def calls(self) -> int:
        """How many calls have ended."""
        return self._calls

    @property
    def seconds(self) -> float:
        """How long this has taken."""
        return perf_counter() - self.began

    def enough(self) -> bool:
        """Whether a choice can be made."""
        seen, calls = self.probe.read().wall / 1e9, self._calls
        if self.seconds >= PATIENCE:
            return calls > 0 or seen >= ENOUGH
        if calls >= FEW and seen < SHORT * calls:
            return True
        if seen < ENOUGH:
            return False
        if calls >= 3 or (calls and seen >= SURE):
            return True
        # It waits, perhaps still: threads cost nothing, even if that misleads.
        facts = self._facts()
        waits = facts.running < WAITS and (facts.gil or 0.0) < WAITS
        return waits and self.probe.is_blocked()

    def facts(self, pickled: bool) -> Facts:
        """What was seen.

        Args:
            pickled: whether to find out what it costs to send items to processes, and whether
                that can be.
        """
        facts = replace(self._facts(), measuring=self.seconds)
        return self.evidence.weigh(facts) if pickled else facts

    def _seen(self) -> _Reading:
        """What was seen; without the call that goes on, if that may wait for a processor."""
        return self._last if self._calls and not self.probe.is_blocked() else self.probe.read()

    def _facts(self) -> Facts:
        seen = self._seen()
        last, calls = self._last, self._calls
        if calls >= 3 and self._first.wall:
            seen, last = seen.since(self._first), last.since(self._first)
            calls -= 1
        span = seen.without_queue
        nanoseconds = last.without_queue / calls if calls else span
        if nanoseconds < 100_000:
            # Whatever came in between is much to such a call.
            nanoseconds = min(nanoseconds, self._shortest)
        process = seen.process - (self._ours() - self._spent) if self._ours else 0
        gil: float | None = None
        if not _has_gil():
            gil = 0.0
        elif seen.held is not None and seen.looks >= 5:
            gil = seen.held / seen.looks
        return Facts(
            calls=self._calls,
            seconds=max(nanoseconds, 1) / 1e9,
            running=min(1.0, seen.running / span),
            gil=gil,
            busy=max(0.0, process / span),
            faults=seen.faults * 1e9 / span,
            queued=seen.queued / max(1, seen.wall),
        )


def _has_gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return True if enabled is None else bool(enabled())
