"""Futures and executors: stands in for the standard library's ``concurrent.futures``.

Native: `Future`, `ThreadPoolExecutor`, `wait`, `as_completed`. `Future` and `ThreadPoolExecutor`
also are subclasses of the standard library's, so ``isinstance`` holds, asyncio takes them, and
each library's `wait` and `as_completed` accept the other's futures. Everything else is the
standard library's own object.

Beyond the running version's standard library: ``ThreadPoolExecutor.map(buffersize=)`` and a
default ``max_workers`` that counts the processors this process may use, on every version; and
``ThreadPoolExecutor.statistics()``.

Blocking: `submit` does not give the GIL up, but for at most 0.5 ms to a worker that had slept for
0.25 ms or more. A wait gives it up, answers signals (Ctrl-C ends it at once in the main
thread) and measures its timeout on the monotonic clock. Calls begin in the order in which they
were submitted; the worker that worked last takes the next one.

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
import importlib as _importlib
import os as _os
import threading as _threading
import weakref as _weakref
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
from concurrent.futures import thread as _thread
from concurrent.futures.thread import BrokenThreadPool

from juggler import _juggler
from juggler._juggler import ThreadPoolExecutorStatistics, as_completed, wait

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

if TYPE_CHECKING:
    # What follows at runtime from the standard library's module, spelled out: type checkers read
    # literals only. tests/typing holds the two together on every version.
    import sys

    from juggler._processes.errors import MemoryLimitExceeded, WorkerDied
    from juggler._processes.executor import PoolView, ProcessPoolExecutor
    from juggler._processes.statistics import ProcessPoolExecutorStatistics, WorkerStatistics

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
    # Beyond the standard library, and the modules that have them.
    _PROCESSES = {
        "MemoryLimitExceeded": "errors",
        "PoolView": "executor",
        "ProcessPoolExecutorStatistics": "statistics",
        "WorkerDied": "errors",
        "WorkerStatistics": "statistics",
    }
    __all__ = [
        *_stdlib.__all__,
        *({"InvalidStateError"} - {*_stdlib.__all__}),  # 3.11 forgot to export it
        "BrokenThreadPool",
        "ThreadPoolExecutorStatistics",
        *_PROCESSES,
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

    class ThreadPoolExecutor(_juggler.ThreadPoolExecutor, _thread.ThreadPoolExecutor):
        """A pool of threads that make calls.

        Stands in for `concurrent.futures.ThreadPoolExecutor`, and is a subclass of it, with
        `statistics()` besides.

        Fairness: calls begin in the order in which they were submitted. Fork: the child's executors
        start new workers; the calls that were queued are the parent's to make, and the child finds
        their futures cancelled. The threads end when `shutdown` is called, when the executor is
        garbage, and at interpreter exit; in each case after they have made the calls that are
        queued.

        Args:
            max_workers: the most threads. They are started as calls come in and none is idle. By
                default ``min(32, os.process_cpu_count() + 4)``.
            thread_name_prefix: the threads are named ``PREFIX_0``, ``PREFIX_1`` ...
            initializer: called first in every thread. If it raises, the pool is broken: queued and
                later calls get `BrokenThreadPool`.
            initargs: its arguments.
            ctxkwargs: what `prepare_context` takes besides, if a subclass overrides it (from 3.14).
        """

        __slots__ = ()


_juggler._set_future_class(Future)

# Who has to be joined at exit.
_workers: _weakref.WeakSet[_threading.Thread] = _weakref.WeakSet()


class _Starting(_threading.local):
    """How this thread starts workers.

    Attributes:
        daemons: as daemons; the program's end joins them all the same, unless whoever had them
            started takes them out of `_workers`.
    """

    daemons = False


_starting = _Starting()


def _start_worker(worker: Callable[[], None], name: str, threads: set[_threading.Thread]) -> None:
    thread = _threading.Thread(name=name, target=worker, daemon=_starting.daemons or None)
    thread.start()
    if _starting.daemons:
        # What it starts itself shall not be daemons for that.
        thread._daemonic = False  # type: ignore[attr-defined]
    threads.add(thread)
    _workers.add(thread)


_juggler._set_worker_starter(_start_worker)


def _at_exit() -> None:
    _juggler._close_pools()
    for thread in list(_workers):
        thread.join()


# Before the interpreter joins the threads that are no daemons, and before `atexit`, as the standard
# library does.
_threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _after_fork_in_child() -> None:
    _workers.clear()
    _juggler._forget_workers()


_os.register_at_fork(after_in_child=_after_fork_in_child)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name == "ProcessPoolExecutor" or name in _PROCESSES:
            # Imports `multiprocessing`, so only when it is used.
            module = _PROCESSES.get(name, "executor")
            value = getattr(_importlib.import_module(f"juggler._processes.{module}"), name)
            globals()[name] = value
            return value
        # The standard library's other executors, which it imports when they are first used, and its
        # private names; but not what the import system keeps in a module: this is no package.
        if name.startswith("__"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        return getattr(_stdlib, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_stdlib)})
