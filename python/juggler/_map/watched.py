"""A function that a program hands over: its first calls under measurement, wherever they run."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from juggler._map.choosing import Facts
from juggler._map.measuring import Measuring

_CALLS = 20
"""So many calls of a function are measured in a process at most,"""
_FEW = 5
"""so many are enough if they took `_ENOUGH`, which is long enough to see who holds the GIL,"""
_ENOUGH = 0.03
_SECONDS = 0.5
"""and one is if it took so long."""
_WAITS = 0.05
"""Who computes for a smaller share of the time than this waits, and not for the GIL of others."""


class Watched:
    """Stands in for a function that is handed over, and measures the first calls.

    It is pickled like any object, so it goes wherever the function would have gone. What another
    process has seen it leaves in a file, which is complete whenever the process is killed.

    Args:
        function: the function.
        key: names it among those of the program.
        folder: where other processes leave what they have seen.
        patience: seconds that a call waits for another one that is being measured to end. If 0, it
            may run as long as the program, and is measured among whatever else runs.
    """

    def __init__(
        self, function: Callable[..., Any], key: int, folder: str, patience: float
    ) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._key = key
        self._folder = folder
        self._home = os.getpid()
        self._patience = patience

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A call, measured if it is one of the first."""
        function = self._function
        first = _seen.get(self._key) or _seen.setdefault(self._key, _FirstCalls(function))
        if not first.is_open:
            return function(*args, **kwargs)
        if not self._patience:
            result = first.call_among_others(args, kwargs)
        elif not _alone.acquire(timeout=self._patience):
            return function(*args, **kwargs)
        else:
            try:
                result = first.call(args, kwargs)
            finally:
                _alone.release()
        if os.getpid() != self._home:
            self._leave(first.facts())
        return result

    def _leave(self, facts: Facts | None) -> None:
        path = Path(self._folder, f"{self._key}-{os.getpid()}")
        with contextlib.suppress(OSError):  # the program has ended meanwhile
            path.with_suffix(".new").write_bytes(pickle.dumps(facts))
            path.with_suffix(".new").replace(path)


class _FirstCalls:
    """The first calls of a function in this process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._begun = 0
        self._measuring: Measuring | None = None
        self._facts: Facts | None = None

    @property
    def is_open(self) -> bool:
        """Whether more calls should be measured."""
        return self._begun < _CALLS and self._facts is None

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call under measurement, in this thread, unless there were enough."""
        if not self.is_open:
            return self._function(*args, **kwargs)
        measuring = self._measuring = self._measuring or Measuring(self._function, None)
        self._begun += 1
        result = _measure(measuring, self._function, args, kwargs)
        least = _ENOUGH if self._begun >= _FEW else _SECONDS
        if self._begun == _CALLS or measuring.probe.read().wall > least * 1e9:
            # What was called is let go of, and nobody looks at the GIL any more.
            self._facts, self._measuring = self.facts(), None
        return result

    def call_among_others(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call under measurement, in this thread, while others have the GIL, too."""
        self._begun += 1
        measuring = Measuring(self._function, lambda: 0)
        result = _measure(measuring, self._function, args, kwargs)
        facts = measuring.facts(pickled=True)
        # Else it may have waited for the GIL of those that computed meanwhile: who computes gets a
        # part of the time.
        if not (_WAITS < facts.running < 0.5 < facts.busy):
            self._facts = replace(facts, busy=0.0)
        return result

    def facts(self) -> Facts | None:
        """What was seen; None if no call has ended."""
        if self._measuring is None or not self._measuring.calls:
            return self._facts
        return self._measuring.facts(pickled=True)


def _measure(
    measuring: Measuring, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    measuring.send([args], star=True)
    began = perf_counter_ns()
    measuring.probe.begin()
    try:
        result = function(*args, **kwargs)
    finally:
        measuring.probe.end()
    measuring.came([result], perf_counter_ns() - began)
    return result


def facts(key: int, folder: str) -> Facts | None:
    """What was seen of a function by the process that has seen most of it."""
    found = [_seen[key].facts()] if key in _seen else []
    for path in Path(folder).glob(f"{key}-*[0-9]"):
        found.append(pickle.loads(path.read_bytes()))
    return max(filter(None, found), key=lambda one: one.calls, default=None)


_seen: dict[int, _FirstCalls] = {}
# One call at a time is measured, so that none waits for another one's GIL.
_alone = threading.Lock()


def _after_fork_in_child() -> None:
    global _alone
    _seen.clear()
    _alone = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
