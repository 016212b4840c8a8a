"""What a function is, what it should run on, and what that would gain: `juggler.advise`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

from juggler._map import choosing, models, options, workers
from juggler._map.choosing import Facts
from juggler._map.measuring import Measuring

_CALLS = 200
"""So many calls are enough."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What is known of a function.

    Attributes:
        function: its name.
        kind: what it does, as the predicate of a sentence: it waits, with the GIL or without it; it
            computes, likewise; it is bound by page faults; it is a coroutine function.
        model: what it should run on, on this machine.
        gains: by which factor that is faster than one call after the other, by the number of
            processors: for 2, 4, and as many as there are here.
        stops: what stands in the way of more.
        facts: what was measured; None of a coroutine function, which needs no measuring.
    """

    function: str
    kind: str
    model: str
    gains: dict[int, float]
    stops: str
    facts: Facts | None

    def __str__(self) -> str:
        """A sentence with the numbers."""
        text = f"{self.function} {self.kind}: run it on {self.model}"
        if self.facts is not None:
            text += f" ({choosing.describe(self.facts)})"
            gains = (f"{gain:.1f}x with {cores} processors" for cores, gain in self.gains.items())
            text += f"; that promises {', '.join(gains)}"
        return f"{text}; {self.stops}" if self.stops else text

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


def advise(
    fn: Callable[[Any], object],
    items: Iterable[Any],
    *,
    seconds: float = 1.0,
    limit: int = models.THREADS,
) -> Advice:
    """Measure a function with some items, and say what it should run on.

    The calls are made one after the other, in this thread; what they do is done.

    Args:
        fn: a function, or a coroutine function, which is not called.
        items: its arguments, of which the first are taken.
        seconds: how long to measure; the call that is under way then is finished.
        limit: how many calls may be made at once.

    Raises:
        ValueError: there were no items.
    """
    options.check_function(fn, items)
    is_async = options.is_coroutine_function(fn)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return of(name, None if is_async else _measure(fn, items, seconds), limit)


def of(name: str, facts: Facts | None, limit: int = models.THREADS) -> Advice:
    """What to say of a function: of a coroutine function, if there are no facts."""
    if facts is None:
        return Advice(name, "is a coroutine function", "loop", {}, "", None)
    here = workers.cores()
    gains = {}
    for cores in sorted({2, 4, here}):
        promised = choosing.choose(facts, cores, limit)
        gains[cores] = max(1.0, promised.predicted.get(promised.model, 1.0))
    choice = choosing.choose(facts, here, limit)
    return Advice(name, _kind(facts), choice.model, gains, _stops(facts, choice.model), facts)


def _measure(fn: Callable[[Any], object], items: Iterable[Any], seconds: float) -> Facts:
    measuring = Measuring(fn, int)
    called = False
    for item in itertools.islice(items, _CALLS):
        called = True
        measuring.send([item], star=False)
        began = perf_counter_ns()
        measuring.probe.begin()
        try:
            result = fn(item)
        finally:
            measuring.probe.end()
        measuring.came([result], perf_counter_ns() - began)
        if measuring.seconds > seconds:
            break
    if not called:
        raise ValueError("there must be an item to measure with")
    return measuring.facts(pickled=True)


def _kind(facts: Facts) -> str:
    holds = choosing.holding(facts) >= 0.5
    if facts.running < 0.5:
        return "waits, holding the GIL" if holds else "waits"
    if choosing.is_bound_by_faults(facts):
        return "is bound by page faults"
    return "computes, holding the GIL" if holds else "computes without the GIL"


def _stops(facts: Facts, model: str) -> str:
    if facts.obstacle is not None:
        return f"processes are out of the question: {facts.obstacle}"
    if model == "serial":
        if choosing.uses_threads(facts):
            return "it uses the processors by itself"
        if facts.seconds < 10 * choosing.DISPATCH["threads"]:
            return "it is so short that handing calls over costs as much"
        return "more would cost as much as it brings"
    if model == "processes":
        if facts.pickle is not None and facts.pickle > 0.1 * facts.seconds:
            return "pickling its arguments and results is what limits it"
        return "the number of processors is what limits it"
    if choosing.is_bound_by_faults(facts):
        return "threads share one address space, in which page faults wait for each other"
    if facts.running < 0.5:
        return "how many calls are made at once is what limits it"
    return "the number of processors is what limits it"
