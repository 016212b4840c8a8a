"""Timers that need no thread while they wait: stands in for ``threading.Timer``.

The standard library starts a thread for each timer, which sleeps until the timer is due. Here one
thread, the *clock*, sleeps for all of them, and a timer's own thread starts when the timer is due;
most timers are cancelled before. The callback then runs as it does there, in a thread that is the
timer itself, so a slow callback delays nobody.

Who looks at the thread of a timer that is not due (``join``, ``ident``, ``native_id``, the
interpreter at exit) has it started at once, to wait for the rest of the time as the standard
library's does. So nothing that a thread can do needs a second implementation here.

A timer is in ``threading._limbo``, the table of the threads that are being started, from its start
until its thread runs or it is cancelled, and so is counted and enumerated. The lock of that table
guards the clock, too. It is reentrant: a signal handler may cancel a timer in the middle of
anything. No thread is started and nothing waited for while it is held.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import allocate_lock, start_new_thread
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from time import monotonic

from juggler._juggler import Event

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractContextManager
    from typing import Any, Final

# The states of a timer.
_OWN: Final = "own"  # its thread was started by `start`, or it is yet to be started
_PENDING: Final = "pending"  # the clock sleeps for it
_HANDED: Final = "handed"  # its thread is being started, runs or has ended
_OVER: Final = "over"  # it was cancelled while it was pending, or stayed behind at a fork

# For how long the clock stays when no timer is pending, in seconds. A program that starts and
# cancels timers all the time should not start it each time; but threads are in the way of a fork.
_LINGER = 0.2
# After how many seconds to try again when the system has no thread to give.
_RETRY = 0.05
# The heap may hold as many cancelled timers as pending ones, and so many more.
_SLACK = 64

_limbo: dict[threading.Thread, threading.Thread] = threading._limbo  # type: ignore[attr-defined]
_exiting = False


def _table() -> AbstractContextManager[object]:
    """The lock of the table of threads; another one in a forked child."""
    return threading._active_limbo_lock  # type: ignore[attr-defined,no-any-return]


class _Clock:
    """The thread that sleeps for all timers, and what it knows of them.

    It sleeps until ``wakes_at``. Who starts a timer that is due earlier wakes it, and so does who
    cancels the last timer, because the clock is to end then; but not if the clock ``dozes``: after
    it was woken it first sleeps for `_LINGER` only, and looks again. So a program that starts and
    cancels timers in turn wakes it a few times a second, however often it does.

    The methods but `run` are called with the lock of the table held.
    """

    def __init__(self) -> None:
        self.pending: dict[int, Timer] = {}  # by the number in the heap
        self.heap: list[tuple[float, int]] = []  # deadlines, also of cancelled timers
        self.numbers = count()  # timers that are due together go in the order of their start
        self.running = False
        self.ident = 0  # of the thread, while it runs
        self.wakes_at = -inf  # while it is awake
        self.dozes = True
        self.closed = False  # it starts no more timers
        self.alarm = allocate_lock()  # held, and released to wake it

    def add(self, timer: Timer, deadline: float) -> None:
        timer._number = number = next(self.numbers)
        self.pending[number] = timer
        heappush(self.heap, (deadline, number))
        if len(self.heap) > 2 * len(self.pending) + _SLACK:
            self.heap[:] = [entry for entry in self.heap if entry[1] in self.pending]
            heapify(self.heap)
        if deadline < self.wakes_at:
            self.wake()

    def remove(self, timer: Timer) -> None:
        del self.pending[timer._number]
        if not self.pending and not self.dozes and self.wakes_at > -inf:
            self.wake()

    def wake(self) -> None:
        self.wakes_at = -inf
        try:  # noqa: SIM105  (importing contextlib costs more than this whole module)
            self.alarm.release()
        except RuntimeError:
            pass  # it is open already: a signal handler woke the clock a moment ago

    def take_due(self, now: float) -> list[Timer]:
        due: list[Timer] = []
        while (
            not self.closed
            and self.heap
            and (self.heap[0][0] <= now or self.heap[0][1] not in self.pending)
        ):
            timer = self.pending.pop(heappop(self.heap)[1], None)
            if timer is not None:
                timer._leave(_HANDED)
                due.append(timer)
        return due

    def run(self) -> None:
        woken = True
        self.ident = threading.get_ident()
        try:
            while True:
                with _table():
                    self.wakes_at = -inf
                    now = monotonic()
                    due = self.take_due(now)
                    if self.closed or not (due or woken or self.pending):
                        self.ended()
                        return
                    if not due:
                        until = self.heap[0][0] if self.pending else inf
                        if woken:
                            until = min(until, now + _LINGER)
                        self.wakes_at, self.dozes = until, woken
                        # Whoever woke it when it was about to wake by itself has left this open.
                        self.alarm.acquire(False)
                if due:
                    for timer in due:
                        try:  # noqa: SIM105
                            timer._begin()
                        except Exception:
                            pass
                    del due, timer
                    woken = True
                else:
                    woken = self.alarm.acquire(timeout=max(0.0, until - now))
        except BaseException:
            self.ended()
            raise

    def ended(self) -> None:
        # Another thread may get this identity.
        self.ident = 0
        self.running = False


_clock = _Clock()


class _Finished(Event):
    """The event of a timer, by which it is cancelled: programs also set it themselves."""

    _timer: Timer | None = None  # while it is pending

    def set(self) -> None:
        super().set()
        timer = self._timer
        if timer is not None:
            with _table():
                if timer._state is _PENDING:
                    _limbo.pop(timer, None)
                    _clock.remove(timer)
                    timer._leave(_OVER)


class _Started(Event):
    """The event that a thread sets when it runs, and which `Thread.start` waits for.

    The clock does not: it would be woken for each of a thousand timers that are due at once.
    """

    def wait(self, timeout: float | None = None) -> bool:
        return threading.get_ident() == _clock.ident or super().wait(timeout)


class Timer(threading.Thread):
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
    _event: _Finished  # what `finished` is at first

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
        self._event = _Finished()
        self.finished: Event = self._event

    def cancel(self) -> None:
        """Call nothing, if the function was not called yet; as `threading.Timer.cancel`."""
        self.finished.set()

    def run(self) -> None:
        """Wait until the timer is due and call the function, unless it is cancelled."""
        own = self._state is _OWN
        self.finished.wait(self.interval if own else max(0.0, self._deadline - monotonic()))
        if not self.finished.is_set():
            self.function(*self.args, **self.kwargs)
        self.finished.set()

    def start(self) -> None:
        """Begin to wait; as `threading.Thread.start`.

        Raises:
            RuntimeError: it was started before.
        """
        with _table():
            if self._state is not _OWN:
                raise RuntimeError("threads can only be started once")
            pending = self._needs_no_thread()
            if pending:
                if not _clock.running:
                    # Does not get further than the lock that is held here.
                    start_new_thread(_clock.run, ())
                    _clock.running = True
                if sys.version_info >= (3, 14) and sys.flags.thread_inherit_context:
                    self._context = self._context or copy_context()
                self._enter(monotonic() + self.interval)
        if not pending:
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

    def _needs_no_thread(self) -> bool:
        """Whether the clock can wait for it: all is as this class has it."""
        interval: object = getattr(self, "interval", None)
        finished = getattr(self, "finished", self)
        return (
            type(self).run is Timer.run
            and "run" not in self.__dict__
            and finished is getattr(self, "_event", None)
            and not self._event.is_set()
            # What else it may be, the standard library's thread finds out.
            and (type(interval) is float or type(interval) is int)
            and 0 < interval <= threading.TIMEOUT_MAX
            and not _exiting
        )

    def _enter(self, deadline: float) -> None:
        """Have the clock wait for it; with the lock of the table held."""
        self._state = _PENDING
        self._deadline = deadline
        self._started.set()
        self._event._timer = self
        _limbo[self] = self
        _clock.add(self, deadline)

    def _leave(self, state: str) -> None:
        """Be no longer pending; with the lock of the table held."""
        self._state = state
        self._event._timer = None
        if state is _HANDED:
            # Not set, as `Thread.start` wants it.
            self._started = _Started()

    def _begin(self) -> None:
        """Start the thread of a timer that was just handed over, or have the clock wait on."""
        try:
            super().start()
        except BaseException:
            with _table():
                # Whether it was the start that failed, not the wait for it that a signal ended.
                if self not in _limbo and not self._started.is_set():
                    self._enter(max(self._deadline, monotonic() + _RETRY))
            raise

    def _run_here(self) -> None:
        with _table():
            # The clock would take it, but could not start it either.
            _clock.closed = True
            if self._state is not _PENDING:
                return
            _limbo.pop(self, None)
            _clock.remove(self)
            self._leave(_OVER)
        try:
            self.run()
        except BaseException:
            self._invoke_excepthook(self)  # type: ignore[attr-defined]

    def _has_thread(self) -> bool:
        """Whether it has a thread, if it is started at all; a pending timer gets it now."""
        while True:
            with _table():
                state = self._state
                if state is _PENDING:
                    _clock.remove(self)
                    self._leave(_HANDED)
            if state is _PENDING:
                self._begin()
            elif state is _HANDED:
                # Another thread is starting it, or has.
                self._started.wait()
            if self._state is not _PENDING:
                return self._state is not _OVER


def _at_exit() -> None:
    """Have the interpreter wait for the timers, by giving each the thread that it waits for."""
    global _exiting
    with _table():
        _exiting = True
        # Also those that the clock is about to start.
        timers = [thread for thread in _limbo if isinstance(thread, Timer) and not thread.daemon]
    for timer in sorted(timers, key=lambda timer: timer._deadline):
        try:
            timer._has_thread()
        except RuntimeError:
            # On 3.12 no thread starts any more.
            timer._run_here()


def _after_fork_in_child() -> None:
    global _clock
    _clock = _Clock()
    for thread in list(threading._dangling):  # type: ignore[attr-defined]
        # Among those that the clock has started, some had not begun to run.
        if isinstance(thread, Timer) and (
            thread._state is _PENDING or (thread._state is _HANDED and not thread._started.is_set())
        ):
            thread._leave(_OVER)


# Before the interpreter joins the threads that are no daemons.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
os.register_at_fork(after_in_child=_after_fork_in_child)
