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
    from collections.abc import Callable, Iterable, Iterator, Mapping
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


# The states of a timer.
_OWN = "own"  # its thread was started by `start`, or it is yet to be started
_PENDING = "pending"  # the clock sleeps for it
_HANDED = "handed"  # its thread is being started, runs or has ended
_OVER = "over"  # it was cancelled while it was pending, or stayed behind at a fork


class Timer(_stdlib.Thread):
    """A thread that calls a function after some time, unless it is cancelled before.

    Stands in for `threading.Timer`. It needs no thread before it is due: one thread sleeps for all
    timers, so starting and cancelling one is cheap. Each callback runs in a thread of its own,
    which is the timer.

    Blocking: `start` and `cancel` don't. Fork: in the child no timer of the parent is alive.
    Interpreter exit waits for the timers that are no daemons, and for their callbacks.

    Deviations: a timer that was cancelled before anybody joined it or asked for its `ident` never
    had a thread, and has no `ident`. When the system has no thread to give, it is not `start` that
    fails: the callback is late. A subclass that overrides `run` gets its thread at once, as in the
    standard library. On CPython 3.12, which starts no thread while it exits, the functions that are
    due then are called one after another by the main thread.

    Args:
        interval: seconds on the monotonic clock from `start` to the call.
        function: what is called; what it raises goes to `threading.excepthook`.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """

    __module__ = "threading"

    _state: str = _OWN
    _deadline: float = 0.0  # once the clock has waited for it
    _number: int
    _started: Event
    _event: Any  # what `finished` is at first

    def __init__(
        self,
        interval: float,
        function: Callable[..., object],
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.interval = interval
        self.function = function
        self.args: Iterable[Any] = args if args is not None else []
        self.kwargs: Mapping[str, Any] = kwargs if kwargs is not None else {}
        self._event = _clock().Finished()
        self.finished: Event = self._event

    def cancel(self) -> None:
        """Call nothing, if the function was not called yet; as `threading.Timer.cancel`."""
        self.finished.set()

    def run(self) -> None:
        """Wait until the timer is due and call the function, unless it is cancelled."""
        own = self._state is _OWN
        self.finished.wait(self.interval if own else max(0.0, self._deadline - _time.monotonic()))
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)
        self.finished.set()

    def start(self) -> None:
        """Begin to wait; as `threading.Thread.start`.

        Raises:
            RuntimeError: it was started before.
        """
        if not _clock().take(self):
            super().start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the function has returned or the timer is cancelled.

        As `threading.Thread.join`; a wait releases the GIL and answers signals.

        Args:
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.

        Raises:
            RuntimeError: it was not started, or the function itself calls this.
        """
        if self._has_thread():
            super().join(timeout)

    def is_alive(self) -> bool:
        """Whether it is started, and neither cancelled nor done."""
        state = self._state
        if state is _OWN:
            return super().is_alive()
        # It is being started while the event of the thread's start is not set.
        return state is _PENDING or (
            state is _HANDED and (not self._started.is_set() or super().is_alive())
        )

    @property
    def ident(self) -> int | None:
        """The identity of its thread, which this starts; None before `start`."""
        self._has_thread()
        return super().ident

    @property
    def native_id(self) -> int | None:
        """The system's number of its thread, which this starts; None before `start`."""
        self._has_thread()
        return super().native_id

    def __repr__(self) -> str:
        text = super().__repr__()
        if self._state is _OVER:
            head, _, tail = text.rpartition(", started")
            return f"{head}, stopped{tail}"
        return text

    def _begin(self) -> None:
        """Start the thread of a timer that was just handed over, or have the clock wait on."""
        try:
            super().start()
        except BaseException:
            _clock().put_back(self)
            raise

    def _has_thread(self) -> bool:
        """Whether it has a thread, if it is started at all; a pending timer gets it now."""
        return self._state is _OWN or _clock().give_thread(self)


_timer: Any = None


def _clock() -> Any:
    """The module that sleeps for timers, imported when the first one is made."""
    global _timer
    if _timer is None:
        # Kept, as nothing can be imported when the interpreter finalizes.
        import juggler._timer as imported

        _timer = imported
    return _timer


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
