"""The two ways to time: a statement in an unrolled loop, and several threads at once."""

from __future__ import annotations

import itertools
import os
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.contenders import Contender
from harness.measure import Effort

UNROLL = 10
"""Copies of the statement in the loop's body, so that the loop itself weighs next to nothing."""

REPEATS = 5
"""A turn is the best of so many short repeats: what disturbs a repeat only ever adds time."""

_TEMPLATE = """\
def timed(loops, clock):
{setup}
    turns = repeat(None, loops)
    start = clock()
    for _ in turns:
{body}
    return clock() - start
"""


def compiled(source: str, setup: str, names: Mapping[str, Any]) -> Callable[..., float]:
    """A function of (loops, clock) that runs the statement `loops * UNROLL` times."""
    text = _TEMPLATE.format(
        setup=textwrap.indent(setup, " " * 4),
        body=textwrap.indent("\n".join([source] * UNROLL), " " * 8),
    )
    scope: dict[str, Any] = {"repeat": itertools.repeat, **names}
    exec(compile(text, "<statement>", "exec"), scope)
    timed: Callable[..., float] = scope["timed"]
    return timed


def statement(
    source: str,
    setup: str = "pass",
    names: Callable[[], Mapping[str, Any]] = dict,
) -> Callable[[Contender, Effort], Callable[[], float]]:
    """Prepares turns that time one statement, written with the standard library's names.

    Args:
        source: The statement; several lines or `;` are fine.
        setup: Runs once before the clock starts, in the same function, so its names are locals.
        names: Gives further names that the source uses.
    """

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        scope = {**contender.classes, **names()}
        timed = compiled(contender.spell(source), contender.spell(setup), scope)
        clock = time.perf_counter
        loops = 1
        wanted = effort.seconds / REPEATS
        while (took := timed(loops, clock)) < wanted / 4:
            loops *= 4
        loops = max(1, round(loops * wanted / took))

        def sample() -> float:
            best = min(timed(loops, clock) for _ in range(REPEATS))
            return best / (loops * UNROLL)

        return sample

    return prepare


def empty_loop(effort: Effort) -> float:
    """Seconds that the loop adds to each statement. The tables do not subtract it."""
    sample = statement("pass")(Contender("empty", "", {}), effort)
    return min(sample() for _ in range(effort.rounds))


def on_one_processor(
    prepare: Callable[[Contender, Effort], Callable[[], float]],
) -> Callable[[Contender, Effort], Callable[[], float]]:
    """The same with no idle processor to rouse: what the classes cost themselves."""

    def pinned(contender: Contender, effort: Effort) -> Callable[[], float]:
        sample = prepare(contender, effort)

        def turn() -> float:
            usable = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {min(usable)})
            try:
                return sample()
            finally:
                os.sched_setaffinity(0, usable)

        return turn

    return pinned


def lasting(run: Callable[[int], float], least: int, effort: Effort) -> Callable[[], float]:
    """Samples of several threads at work that are long beside the threads' own start.

    Args:
        run: Does so many operations and returns the seconds that they took.
        least: Operations of a sample, a multiple of four threads; more where a contender is done
            with them too soon.

    Returns:
        The sample, in seconds per operation.
    """
    count = least * max(1, round(effort.seconds / run(least)))
    return lambda: run(count) / count


def race(*bodies: Callable[[], object]) -> float:
    """Runs each body in a thread of its own, all at once.

    The threads are the standard library's, whoever is measured, and they wait for each other
    before the clock starts.

    Returns:
        Seconds from the first start to the last end.

    Raises:
        ExceptionGroup: What the bodies raised.
    """
    gate = threading.Barrier(len(bodies))
    starts: list[float] = []
    ends: list[float] = []
    errors: list[Exception] = []

    def runner(body: Callable[[], object]) -> None:
        gate.wait()
        starts.append(time.perf_counter())
        try:
            body()
        except Exception as error:
            errors.append(error)
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=runner, args=(body,), daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise ExceptionGroup("threads of a race failed", errors)
    return max(ends) - min(starts)
