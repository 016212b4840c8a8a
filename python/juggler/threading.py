"""Threads and their primitives: stands in for the standard library's ``threading``.

Native: `Lock`, `RLock`, `Condition`, `Semaphore`, `BoundedSemaphore`, `Event`, `Barrier`; one
thread sleeps for every `Timer`. Beyond the standard library: `ReadWriteLock`, `acquire_all`,
`detect_deadlocks`, and `statistics()` on every primitive. Everything else, whatever the running
version has, is the standard library's own object.

Blocking, for all of them: an uncontended call never gives the GIL up; a wait gives it up, answers
signals (Ctrl-C ends it at once in the main thread) and measures its timeout on the monotonic
clock. While the interpreter is finalizing, a wait without a timeout raises
`PythonFinalizationError` (`RuntimeError` before 3.13) instead of hanging. A forked child finds the
primitives as the standard library's would be: held ones stay held, waiters of the parent are gone.
"""

from __future__ import annotations

import sys as _sys
import threading as _stdlib
import time as _time

from juggler._juggler import (
    Barrier,
    BarrierStatistics,
    BoundedSemaphore,
    Condition,
    ConditionStatistics,
    DeadlockError,
    Event,
    EventStatistics,
    LockOrderWarning,
    LockStatistics,
    ReadWriteLock,
    ReadWriteLockSide,
    ReadWriteLockStatistics,
    RLock,
    RLockStatistics,
    Semaphore,
    SemaphoreStatistics,
    trace_start,
    trace_stop,
)
from juggler._timer import Timer

TYPE_CHECKING = False  # importing `typing` costs more than this whole module

if TYPE_CHECKING or _sys.version_info >= (3, 13):
    from juggler._juggler import Lock
else:
    # A function before 3.13, here as there; the class of what it returns can't be called.
    from juggler._juggler import allocate_lock as Lock  # noqa: N812

    Lock.__module__ = "threading"

if TYPE_CHECKING:
    # What follows at runtime from the standard library's module, spelled out: type checkers read
    # literals only. tests/typing holds the two together on every version.
    import sys
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import Any, Protocol

    class _Acquirable(Protocol):
        def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
        def release(self) -> None: ...

    from threading import (
        TIMEOUT_MAX,
        BrokenBarrierError,
        ExceptHookArgs,
        Thread,
        ThreadError,
        active_count,
        current_thread,
        enumerate,
        excepthook,
        get_ident,
        get_native_id,
        getprofile,
        gettrace,
        local,
        main_thread,
        setprofile,
        settrace,
        stack_size,
    )

    __all__ = [
        "TIMEOUT_MAX",
        "Barrier",
        "BarrierStatistics",
        "BoundedSemaphore",
        "BrokenBarrierError",
        "Condition",
        "ConditionStatistics",
        "DeadlockError",
        "Event",
        "EventStatistics",
        "ExceptHookArgs",
        "Lock",
        "LockOrderWarning",
        "LockStatistics",
        "RLock",
        "RLockStatistics",
        "ReadWriteLock",
        "ReadWriteLockSide",
        "ReadWriteLockStatistics",
        "Semaphore",
        "SemaphoreStatistics",
        "Thread",
        "ThreadError",
        "Timer",
        "acquire_all",
        "active_count",
        "current_thread",
        "detect_deadlocks",
        "enumerate",
        "excepthook",
        "get_ident",
        "get_native_id",
        "getprofile",
        "gettrace",
        "local",
        "main_thread",
        "setprofile",
        "settrace",
        "stack_size",
    ]
    if sys.version_info >= (3, 12):
        from threading import setprofile_all_threads, settrace_all_threads

        __all__ += ["setprofile_all_threads", "settrace_all_threads"]
    if sys.version_info >= (3, 15):
        from threading import concurrent_tee, serialize_iterator, synchronized_iterator

        __all__ += ["concurrent_tee", "serialize_iterator", "synchronized_iterator"]
else:
    __all__ = [
        *_stdlib.__all__,
        "BarrierStatistics",
        "ConditionStatistics",
        "DeadlockError",
        "EventStatistics",
        "LockOrderWarning",
        "LockStatistics",
        "RLockStatistics",
        "ReadWriteLock",
        "ReadWriteLockSide",
        "ReadWriteLockStatistics",
        "SemaphoreStatistics",
        "acquire_all",
        "detect_deadlocks",
    ]

    def __getattr__(name: str) -> Any:
        # Names of the standard library's module, also those that only some versions have.
        return getattr(_stdlib, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_stdlib)})


def detect_deadlocks(enabled: bool = True) -> None:
    """Turn the detection of deadlocks on or off, for all threads; ``juggler run`` turns it on.

    While it is on, a wait without a timeout that closes a cycle raises `DeadlockError` in one of
    the cycle's threads instead of hanging all of them; it knows locks, conditions, ``Thread.join``
    and the futures of `juggler.futures.ThreadPoolExecutor`. Two locks that are taken in both orders
    are warned of once, with a `LockOrderWarning`, even if they never hung. A lock that a thread
    holds when detection is turned on is not known to be held.

    Off, it costs nothing that can be measured; on, a fraction of a microsecond for each lock
    that is taken, and up to 0.1 ms for each wait of a condition.
    Never blocks. A forked child goes on with what its parent had turned on. The standard library
    has no counterpart.

    Args:
        enabled: False turns detection off, and with it the counting for ``juggler run --report``.
    """
    if enabled:
        trace_start(report=False, detect=True)
    else:
        trace_stop()


def acquire_all(*locks: _Acquirable, timeout: float | None = None) -> AbstractContextManager[None]:
    """Hold several locks in a ``with`` block, without deadlock in whatever order they are named.

    Waits for one lock while holding none, tries the others, and lets go of all when one is taken,
    to wait for that one next: a thread in here never holds a lock while it waits, so it is part of
    no cycle. This is the algorithm of C++'s ``std::lock``. Waits as the locks do: with the GIL
    released, answering signals; not fair, as a lock that is busy all the time may keep the rest
    waiting. Whatever ends the wait, none of the locks is held then. The standard library has no
    counterpart.

    Args:
        locks: anything with ``acquire(blocking, timeout)`` and ``release()``. One that is named
            twice is taken once: moving something from an account to itself needs no care.
        timeout: seconds (monotonic clock) for all of them together; None waits for ever.

    Raises:
        TimeoutError: the locks were not free together in time.
    """
    from contextlib import contextmanager  # costs more than all the rest of this module

    return contextmanager(_hold_all)(locks, timeout)


def _hold_all(locks: tuple[_Acquirable, ...], timeout: float | None) -> Iterator[None]:
    deadline = None if timeout is None else _time.monotonic() + timeout
    order = list({id(lock): lock for lock in locks}.values())
    while True:
        held: list[_Acquirable] = []
        try:
            for lock in order:
                if held:
                    taken = lock.acquire(False)
                elif deadline is None:
                    taken = lock.acquire()
                else:
                    taken = lock.acquire(True, max(0.0, deadline - _time.monotonic()))
                if not taken:
                    if deadline is not None and _time.monotonic() >= deadline:
                        raise TimeoutError(
                            f"{len(order)} locks were not free together within {timeout} s: "
                            f"still waiting for {lock!r}"
                        )
                    order = [*order[len(held) :], *order[: len(held)]]
                    break
                held.append(lock)
            else:
                yield
                return
        finally:
            for lock in reversed(held):
                lock.release()
