"""A clock for tests, on which waiting takes no time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
import threading
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from juggler.policy._clock import SECOND, Clock, States, TaskWaiter, ThreadWaiter, put_on, take_off

T = TypeVar("T")
_POLL = 0.001
"""Seconds of real time after which a loop that has to wait for threads looks again."""


class VirtualClock(Clock):
    """A clock for tests: it stands still while code runs, and jumps over every wait.

    As a context manager it takes the place of the machine's clock for all policies, in all threads;
    each policy's state begins anew on it. So a test of an hour of retries takes a moment, and its
    times are exact::

        with VirtualClock() as clock:
            with pytest.raises(ConnectionError):
                retry(3, backoff=10.0)(fails)()
            assert clock.time() == 20.0

    The clock jumps to the next moment at which somebody wants to go on, when nobody runs:

    * in the only thread, at each wait;
    * in threads that `run_threads` started, when all of them wait, in policies or in `sleep`;
    * in coroutines, on a loop of `run` or `new_event_loop`, when the loop has nothing to do. It
      has this clock's time, so `asyncio.sleep` and `asyncio.timeout` take none either.

    Other threads, those of a pool for instance, are not known to it: a wait there moves the clock
    on at once. What waits for something real (`time.sleep`, a lock, a socket in a thread) counts as
    running.

    Args:
        seed: of the random numbers that jitter is drawn from.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self._now = 0
        self._random = random.Random(seed)
        self._states: dict[object, Any] = {}
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._running = 0  # threads that take part and do not wait
        self._waiting: list[_VirtualWaiter] = []

    def __enter__(self) -> Self:
        """Be the clock of all policies."""
        put_on(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the clock from before its place back."""
        take_off(self)

    def time_ns(self) -> int:
        """The time in nanoseconds since the clock was made."""
        return self._now

    def random(self) -> float:
        """The next random number from 0 to 1, 1 excluded; the same ones for the same seed."""
        return self._random.random()

    def advance(self, seconds: float) -> None:
        """Let time pass: whoever waits until then goes on.

        Args:
            seconds: 0 or more.
        """
        with self._lock:
            self._set(self._now + round(seconds * SECOND))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end on a loop with this clock, as `asyncio.run` does.

        The clock is that of all policies meanwhile.
        """
        with self, asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            return runner.run(coroutine)

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop with this clock, for ``asyncio.Runner(loop_factory=...)`` and the like."""
        return _VirtualLoop(self)

    def run_threads(self, *functions: Callable[[], object]) -> list[Any]:
        """Call each function in a thread of its own, all at the same time, and wait for them.

        The clock is that of all policies meanwhile. A `RuntimeError` is raised in threads that wait
        for each other, with nobody left to wake them.

        Returns:
            What they returned, in the order of the functions.

        Raises:
            BaseException: what the first of them raised that failed.
        """
        results: list[Any] = [None] * len(functions)
        failures: list[BaseException] = []

        def run(index: int) -> None:
            try:
                results[index] = functions[index]()
            except BaseException as error:
                failures.append(error)

        with self:
            with self._lock:
                self._running += len(functions)
            threads = [
                threading.Thread(target=self._take_part, args=(lambda index=index: run(index),))
                for index in range(len(functions))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]
        return results

    def _take_part(self, function: Callable[[], object]) -> None:
        """Call a function in a thread that was counted already."""
        self._thread.counted = True
        try:
            function()
        finally:
            self._thread.counted = False
            with self._lock:
                self._running -= 1
                self._settle()

    @contextlib.contextmanager
    def _taking_part(self) -> Iterator[None]:
        if getattr(self._thread, "counted", False):
            yield
            return
        with self._lock:
            self._running += 1
        self._thread.counted = True
        try:
            yield
        finally:
            self._thread.counted = False
            with self._lock:
                self._running -= 1
                self._settle()

    def _start(self, function: Callable[[], object], name: str) -> None:
        with self._lock:
            self._running += 1
        threading.Thread(target=self._take_part, args=(function,), name=name).start()

    def _state(self, states: States[T]) -> T:
        with self._lock:
            if states not in self._states:
                self._states[states] = states.make()
            state: T = self._states[states]
            return state

    def _new_thread_waiter(self) -> _VirtualWaiter:
        return _VirtualWaiter(self)

    def _wait(self, waiter: _VirtualWaiter, until: int | None) -> bool:
        with self._lock:
            if waiter.woken or (until is not None and until <= self._now):
                return waiter.woken
            waiter.until = until
            waiter.counted = getattr(self._thread, "counted", False)
            self._running -= waiter.counted
            self._waiting.append(waiter)
            self._settle()
        try:
            waiter.event.wait()
        except BaseException:
            with self._lock:
                self._resume(waiter)
            raise
        if waiter.stuck:
            raise RuntimeError("all threads wait for each other, and nothing will wake them")
        return waiter.woken

    def _resume(self, waiter: _VirtualWaiter) -> None:
        """Have it run again, if it waits; with the lock held."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._running += waiter.counted
            waiter.event.set()

    def _settle(self) -> None:
        """Jump, if nobody runs; with the lock held."""
        if self._running or not self._waiting:
            return
        moments = [waiter.until for waiter in self._waiting if waiter.until is not None]
        if moments:
            self._set(max(self._now, min(moments)))
        elif all(waiter.counted for waiter in self._waiting):
            for waiter in tuple(self._waiting):
                waiter.stuck = True
                self._resume(waiter)

    def _set(self, now: int) -> None:
        """Set the time, and have those go on who waited for it; with the lock held."""
        self._now = now
        for waiter in tuple(self._waiting):
            if waiter.until is not None and waiter.until <= now:
                self._resume(waiter)

    def _jump(self, seconds: float) -> bool:
        """Let a loop that has nothing to do jump; says no while threads run that take part."""
        with self._lock:
            if self._running:
                return False
            moments = [waiter.until for waiter in self._waiting if waiter.until is not None]
            self._set(max(self._now, min([self._now + max(1, round(seconds * SECOND)), *moments])))
            return True

    async def _wait_async(self, waiter: TaskWaiter, until: int | None) -> bool:
        loop = asyncio.get_running_loop()
        if getattr(loop, "clock", None) is not self:
            raise RuntimeError(
                "under a VirtualClock, coroutines run on its own loop: use clock.run(...) or "
                "asyncio.Runner(loop_factory=clock.new_event_loop)"
            )
        return await super()._wait_async(waiter, until)


class _VirtualWaiter(ThreadWaiter):
    """A thread that waits on a virtual clock."""

    __slots__ = ("_clock", "counted", "stuck", "until", "woken")

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.counted = False
        self.stuck = False
        self.until: int | None = None
        self.woken = False

    def wake(self) -> bool:
        """Wake it: from now on it counts as running."""
        with self._clock._lock:
            self.woken = True
            self._clock._resume(self)
        return True


class _Selector(selectors.DefaultSelector):
    """Looks at the descriptors, and jumps instead of waiting for them."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(None)
        return [] if self.clock._jump(max(0.0, timeout)) else super().select(_POLL)


class _VirtualLoop(BaseSelectorEventLoop):
    """The standard library's loop with a virtual clock."""

    def __init__(self, clock: VirtualClock) -> None:
        selector = _Selector()
        selector.clock = clock
        super().__init__(selector)
        self.clock = clock

    def time(self) -> float:
        return self.clock.time()
