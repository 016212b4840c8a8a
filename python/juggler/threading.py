"""Threads and their primitives: stands in for the standard library's ``threading``.

Native: `Lock`, `RLock`, `Condition`, `Semaphore`, `BoundedSemaphore`, `Event`, `Barrier`. Beyond the standard
library: `ReadWriteLock`, `acquire_all`, `detect_deadlocks`, and `statistics()` on every primitive. Everything else, whatever the
running version has, is the standard library's own object.

Blocking, for all of them: an uncontended call never gives the GIL up; a wait gives it up, answers signals
(Ctrl-C ends it at once in the main thread) and measures its timeout on the monotonic clock. A forked child
finds the primitives as the standard library's would be: held ones stay held, waiters of the parent are gone.
"""

from __future__ import annotations

import sys as _sys
import threading as _stdlib
import time as _time
from contextlib import contextmanager as _contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from juggler._juggler import (
    Barrier,
    BoundedSemaphore,
    Condition,
    DeadlockError,
    Event,
    LockOrderWarning,
    ReadWriteLock,
    RLock,
    Semaphore,
    trace_start,
    trace_stop,
)

if TYPE_CHECKING or _sys.version_info >= (3, 13):
    from juggler._juggler import Lock
else:
    # A function before 3.13, here as there; the class of what it returns can't be called.
    from juggler._juggler import allocate_lock as Lock

    Lock.__module__ = "threading"

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import *  # noqa: F403

_EXTRAS = (
    "DeadlockError",
    "LockOrderWarning",
    "ReadWriteLock",
    "acquire_all",
    "detect_deadlocks",
)

__all__ = [*_stdlib.__all__, *_EXTRAS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    # Names of the standard library's module, also those that only some versions have.
    return getattr(_stdlib, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_stdlib)})


def detect_deadlocks(enabled: bool = True) -> None:
    """Turn the detection of deadlocks on or off, for all threads.

    While it is on, a wait without a timeout that closes a cycle raises `DeadlockError` in one of the cycle's
    threads instead of hanging all of them; it knows locks, conditions, ``Thread.join`` and the futures of
    `juggler.futures.ThreadPoolExecutor`. Two locks that are taken in both orders are warned of once, with a
    `LockOrderWarning`, even if they never hung. A lock that a thread holds when detection is turned on is not
    known to be held.

    Off, it costs nothing that can be measured; on, about a microsecond for each lock that is taken.
    """
    if enabled:
        trace_start(report=False, detect=True)
    else:
        trace_stop()


class _Acquirable(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
    def release(self) -> None: ...


@_contextmanager
def acquire_all(*locks: _Acquirable, timeout: float | None = None) -> Iterator[None]:
    """Hold several locks in a ``with`` block, without deadlock whatever the order they are named in.

    Waits for one lock while holding none, tries the others, and lets go of all when one is taken, to wait for
    that one next: a thread in here never holds a lock while it waits, so it is part of no cycle. This is the
    algorithm of C++'s ``std::lock``.

    Args:
        locks: anything with ``acquire(blocking, timeout)`` and ``release()``. A lock named twice must be
            reentrant.
        timeout: seconds (monotonic clock) for all of them together; None waits for ever.

    Raises:
        TimeoutError: the locks were not free together in time; none is held.
    """
    deadline = None if timeout is None else _time.monotonic() + timeout
    first = 0
    while True:
        held: list[_Acquirable] = []
        order = [*locks[first:], *locks[:first]]
        try:
            for position, lock in enumerate(order):
                if position == 0 and deadline is None:
                    taken = lock.acquire()
                elif position == 0 and deadline is not None:
                    taken = lock.acquire(True, max(0.0, deadline - _time.monotonic()))
                    if not taken:
                        raise TimeoutError(
                            f"{len(locks)} locks were not free together within {timeout} s: "
                            f"still waiting for {lock!r}"
                        )
                else:
                    taken = lock.acquire(False)
                if not taken:
                    first = (first + position) % len(locks)
                    break
                held.append(lock)
            else:
                yield
                return
        finally:
            for lock in reversed(held):
                lock.release()
