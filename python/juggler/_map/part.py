"""A part of a map: some items that go to a worker together, and what runs them there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from juggler import _juggler

if TYPE_CHECKING:
    from juggler._map.measuring import Watch


class Failure:
    """What a call raised, in the place of its result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Part:
    """Some items on their way.

    Attributes:
        first: the number of its first item.
        todo: what is yet to run, in lists of items that go together, and failures in between.
        outcomes: results and failures so far, in the order of the items.
        failed: whether there are failures among them.
        future: that of the list that runs.
        whole: whether everything is there.
    """

    __slots__ = ("failed", "first", "future", "outcomes", "size", "todo", "whole")

    def __init__(self, items: list[Any], first: int) -> None:
        self.first = first
        self.size = len(items)
        self.todo: deque[list[Any] | Failure] = deque([items])
        self.outcomes: list[Any] = []
        self.failed = False
        self.future: Any = None
        self.whole = False

    def fail(self, failure: Failure) -> None:
        """Its next outcome is a failure."""
        self.outcomes.append(failure)
        self.failed = True


class Keywords:
    """Calls a function with the keywords that an item is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, item: dict[str, Any]) -> Any:
        """One call."""
        return self.function(**item)


class Awaited:
    """Calls a coroutine function, and runs the coroutine in an event loop of this thread."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call."""
        from juggler import asyncio

        return asyncio.run(self.function(*args, **kwargs))


Ran = tuple[list[Any], int, bool]
"""Outcomes, how many nanoseconds the calls took, and whether there are failures among them: nobody
has to look for those that are not there."""


def run(function: Callable[..., Any], items: list[Any], star: bool, stop: bool) -> Ran:
    """Call the function with each item.

    Args:
        function: what to call.
        items: tuples, if ``star``.
        star: whether an item is all the arguments.
        stop: whether to end with the first failure.
    """
    outcomes, error, took = _juggler._run_chunk(function, items, star)
    failed = error is not None
    while error is not None:
        outcomes.append(Failure(error))
        if stop or len(outcomes) == len(items):
            break
        more, error, longer = _juggler._run_chunk(function, items[len(outcomes) :], star)
        outcomes += more
        took += longer
    return outcomes, took, failed


def run_watched(
    probe: Watch, function: Callable[..., Any], items: list[Any], star: bool, stop: bool
) -> Ran:
    """`run` under measurement."""
    probe.begin()
    try:
        return run(function, items, star, stop)
    finally:
        probe.end()


class _Packed:
    """A failure on its way between processes."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def run_away(data: bytes, items: list[Any], star: bool, stop: bool) -> Any:
    """`run` in a worker process, of a function that comes as a message."""
    from juggler._processes import exceptions, worker

    outcomes, took, failed = run(worker.function_of(data), items, star, stop)
    for at, outcome in enumerate(outcomes if failed else ()):
        if type(outcome) is Failure:
            outcomes[at] = _Packed(exceptions.pack_exception(outcome.error))
    return worker.Chunk((outcomes, failed, took))


def unpack(chunk: tuple[list[Any], bool, int]) -> Ran:
    """What `run` would have returned, of what `run_away` did."""
    from juggler._processes import exceptions, worker

    outcomes, failed, took = chunk
    if outcomes and type(outcomes[0]) is worker.Apart:  # then all are
        for at, outcome in enumerate(outcomes):
            try:
                outcomes[at] = outcome.load()
            except Exception as refusal:
                outcomes[at], failed = Failure(refusal), True
    for at, outcome in enumerate(outcomes if failed else ()):
        if type(outcome) is _Packed:
            outcomes[at] = Failure(exceptions.unpack_exception(outcome.data))
    return outcomes, took, failed
