"""Futures and executors: stands in for the standard library's ``concurrent.futures``.

Native: `Future`, `ThreadPoolExecutor`, `wait`, `as_completed`. `Future` and `ThreadPoolExecutor`
also are subclasses of the standard library's, so ``isinstance`` holds, asyncio takes them, and
each library's `wait` and `as_completed` accept the other's futures. Everything else is the
standard library's own object.

Beyond the running version's standard library: ``ThreadPoolExecutor.map(buffersize=)`` and a
default ``max_workers`` that counts the processors this process may use, on every version; and
``ThreadPoolExecutor.statistics()``.

Blocking: `submit` does not give the GIL up, but for at most 0.5 ms to a worker that had slept for
0.25 ms or more (in the main thread, from 3.13 on, when that one is awake). A wait gives it up,
answers signals (Ctrl-C ends it at once in the main thread) and measures its timeout on the
monotonic clock. Calls begin in the order in which they were submitted; the worker that worked last
takes the next one.

Deviations:

* The arguments of a call are let go of before its future has the result, not after.
* ``shutdown(cancel_futures=True)`` also tells whoever waits for the cancelled futures in `wait` or
  `as_completed`, who would wait for ever in the standard library.
* A worker outlives a callback that raises what is no ``Exception``; it is logged.
* Futures that are queued when an initializer fails get their exception even if the executor is
  gone.
* After a fork, the child's executors start new workers; the calls that were queued are the
  parent's to make, and the child finds their futures cancelled.
* ``Future._done_callbacks`` gives a copy; setting it works.
"""

from __future__ import annotations

import concurrent.futures as _stdlib
import sys as _sys
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Executor,
    InvalidStateError,
    TimeoutError,
)

from juggler import _juggler
from juggler._juggler import ThreadPoolExecutorStatistics, as_completed, wait

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from typing import Any

if TYPE_CHECKING:
    # What follows at runtime from the standard library's module, spelled out: type checkers read
    # literals only. tests/typing holds the two together on every version.
    import sys

    from juggler._processes.errors import MemoryLimitExceeded, WorkerDied
    from juggler._processes.executor import PoolView, ProcessPoolExecutor
    from juggler._processes.statistics import ProcessPoolExecutorStatistics, WorkerStatistics
    from juggler._thread_pool import BrokenThreadPool

    __all__ = [
        "ALL_COMPLETED",
        "FIRST_COMPLETED",
        "FIRST_EXCEPTION",
        "BrokenExecutor",
        "BrokenThreadPool",
        "CancelledError",
        "Executor",
        "Future",
        "InvalidStateError",
        "MemoryLimitExceeded",
        "PoolView",
        "ProcessPoolExecutor",
        "ProcessPoolExecutorStatistics",
        "ThreadPoolExecutor",
        "ThreadPoolExecutorStatistics",
        "TimeoutError",
        "WorkerDied",
        "WorkerStatistics",
        "as_completed",
        "wait",
    ]
    if sys.version_info >= (3, 14):
        from concurrent.futures import InterpreterPoolExecutor

        __all__ += ["InterpreterPoolExecutor"]
else:
    # The parts that are imported when they are first used, as in the standard library: that of
    # processes imports `multiprocessing`, that of threads `queue`.
    _LATER = {
        "BrokenThreadPool": "juggler._thread_pool",
        "MemoryLimitExceeded": "juggler._processes.errors",
        "PoolView": "juggler._processes.executor",
        "ProcessPoolExecutor": "juggler._processes.executor",
        "ProcessPoolExecutorStatistics": "juggler._processes.statistics",
        "ThreadPoolExecutor": "juggler._thread_pool",
        "WorkerDied": "juggler._processes.errors",
        "WorkerStatistics": "juggler._processes.statistics",
    }
    __all__ = [
        *_stdlib.__all__,
        *({"InvalidStateError"} - {*_stdlib.__all__}),  # 3.11 forgot to export it
        "ThreadPoolExecutorStatistics",
        *(name for name in _LATER if name not in _stdlib.__all__),
    ]


if TYPE_CHECKING:
    from juggler._juggler import Future, ThreadPoolExecutor
else:

    class Future(_juggler.Future, _stdlib.Future):
        """The result of a call that may still be running.

        Stands in for `concurrent.futures.Future`, and is a subclass of it: none of that class's own
        code runs, unless a program uses the private `_condition` or `_waiters`; then every change
        is made holding the condition, as there.

        Blocking: only `result` and `exception` do, and not when the future is done. Fork: a future
        that is done is done in the child; see `ThreadPoolExecutor` for the others.
        """

        __slots__ = ()


_juggler._set_future_class(Future)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            __import__(_LATER[name])
            value = globals()[name] = getattr(_sys.modules[_LATER[name]], name)
            return value
        # The standard library's other executors, which it imports when they are first used, and its
        # private names; but not what the import system keeps in a module: this is no package.
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return getattr(_stdlib, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *dir(_stdlib)})
