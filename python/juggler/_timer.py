"""The clock: one thread that sleeps for all timers of `juggler.threading.Timer`.

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

Imported when the first timer is made: every program has the class, and few make one.
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
from juggler.threading import _HANDED, _OVER, _OWN, _PENDING, Timer

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

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
                _leave(timer, _HANDED)
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


class Finished(Event):
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
                    _leave(timer, _OVER)


class _Started(Event):
    """The event that a thread sets when it runs, and which `Thread.start` waits for.

    The clock does not: it would be woken for each of a thousand timers that are due at once.
    """

    def wait(self, timeout: float | None = None) -> bool:
        return threading.get_ident() == _clock.ident or super().wait(timeout)


def take(timer: Timer) -> bool:
    """Have the clock wait for a timer that is started; whether it can.

    Raises:
        RuntimeError: it was started before.
    """
    with _table():
        if timer._state is not _OWN:
            raise RuntimeError("threads can only be started once")
        if not _needs_no_thread(timer):
            return False
        if not _clock.running:
            # Does not get further than the lock that is held here.
            start_new_thread(_clock.run, ())
            _clock.running = True
        if sys.version_info >= (3, 14) and sys.flags.thread_inherit_context:
            timer._context = timer._context or copy_context()
        _enter(timer, monotonic() + timer.interval)
        return True


def _needs_no_thread(timer: Timer) -> bool:
    """Whether the clock can wait for it: all is as its class has it."""
    interval: object = getattr(timer, "interval", None)
    finished = getattr(timer, "finished", timer)
    return (
        type(timer).run is Timer.run
        and "run" not in timer.__dict__
        and finished is getattr(timer, "_event", None)
        and not timer._event.is_set()
        # What else it may be, the standard library's thread finds out.
        and (type(interval) is float or type(interval) is int)
        and 0 < interval <= threading.TIMEOUT_MAX
        and not _exiting
    )


def _enter(timer: Timer, deadline: float) -> None:
    """Have the clock wait for it; with the lock of the table held."""
    timer._state = _PENDING
    timer._deadline = deadline
    timer._started.set()
    timer._event._timer = timer
    _limbo[timer] = timer
    _clock.add(timer, deadline)


def _leave(timer: Timer, state: str) -> None:
    """Be no longer pending; with the lock of the table held."""
    timer._state = state
    timer._event._timer = None
    if state is _HANDED:
        # Not set, as `Thread.start` wants it.
        timer._started = _Started()


def put_back(timer: Timer) -> None:
    """Have the clock wait on for a timer that was handed over and whose start has failed."""
    with _table():
        # Whether it was the start that failed, not the wait for it that a signal ended.
        if timer not in _limbo and not timer._started.is_set():
            _enter(timer, max(timer._deadline, monotonic() + _RETRY))


def give_thread(timer: Timer) -> bool:
    """Start the thread of a timer that is pending; whether it has one, if it was started at all."""
    while True:
        with _table():
            state = timer._state
            if state is _PENDING:
                _clock.remove(timer)
                _leave(timer, _HANDED)
        if state is _PENDING:
            timer._begin()
        elif state is _HANDED:
            # Another thread is starting it, or has.
            timer._started.wait()
        if timer._state is not _PENDING:
            return timer._state is not _OVER


def _run_here(timer: Timer) -> None:
    with _table():
        # The clock would take it, but could not start it either.
        _clock.closed = True
        if timer._state is not _PENDING:
            return
        _limbo.pop(timer, None)
        _clock.remove(timer)
        _leave(timer, _OVER)
    try:
        timer.run()
    except BaseException:
        timer._invoke_excepthook(timer)  # type: ignore[attr-defined]


def _at_exit() -> None:
    """Have the interpreter wait for the timers, by giving each the thread that it waits for."""
    global _exiting
    with _table():
        _exiting = True
        # Also those that the clock is about to start.
        timers = [thread for thread in _limbo if isinstance(thread, Timer) and not thread.daemon]
    for timer in sorted(timers, key=lambda timer: timer._deadline):
        try:
            give_thread(timer)
        except RuntimeError:
            # On 3.12 no thread starts any more.
            _run_here(timer)


def _after_fork_in_child() -> None:
    global _clock
    _clock = _Clock()
    for thread in list(threading._dangling):  # type: ignore[attr-defined]
        # Among those that the clock has started, some had not begun to run.
        if isinstance(thread, Timer) and (
            thread._state is _PENDING or (thread._state is _HANDED and not thread._started.is_set())
        ):
            _leave(thread, _OVER)


try:
    # Before the interpreter joins the threads that are no daemons.
    threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
except RuntimeError:  # it does so already, or has
    _exiting = True
os.register_at_fork(after_in_child=_after_fork_in_child)
