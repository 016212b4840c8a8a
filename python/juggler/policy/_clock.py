"""Time, chance and waiting, as policies have them: the machine's, or a test's."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from juggler._juggler import Event

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
SECOND = 1_000_000_000
"""In nanoseconds, in which everything inside is counted."""


class Waiter(Protocol):
    """Who waits to be woken, once."""

    def wake(self) -> bool:
        """Wake it; false if it cannot be woken any more and its turn belongs to the next."""


Steps: TypeAlias = Generator[tuple[Waiter | None, int | None], bool, T]
"""What a policy does, with each wait as a step: for whom, and until when. It is sent whether it was
woken. So the same steps are taken by threads and by coroutines."""


class ThreadWaiter:
    """A thread that waits."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = Event()

    def wake(self) -> bool:
        """Wake it."""
        self.event.set()
        return True


class Stopped(BaseException):
    """A `Stop` ended this wait; no policy tries again."""


class Stop:
    """Ends the waits of policies, in all threads that run under it."""

    def __init__(self) -> None:
        self.stopped = False
        self._waiting: set[Event] = set()

    def stop(self) -> None:
        """End all waits, also those to come, with `Stopped`."""
        self.stopped = True
        for event in list(self._waiting):
            event.set()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """What this thread does meanwhile is under it."""
        before = _stop.set(self)
        try:
            yield
        finally:
            _stop.reset(before)

    def check(self) -> None:
        """Raise if it has come."""
        if self.stopped:
            raise Stopped

    @contextlib.contextmanager
    def ends(self, event: Event) -> Iterator[None]:
        """While this thread waits for an event."""
        self._waiting.add(event)
        try:
            self.check()
            yield
            self.check()
        finally:
            self._waiting.discard(event)


_stop: ContextVar[Stop | None] = ContextVar("juggler.policy.stop", default=None)


class TaskWaiter:
    """A task that waits, which any thread may wake."""

    __slots__ = ("_loop", "future", "woken")

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()
        self.woken = False

    def wake(self) -> bool:
        """Wake it, unless its loop is closed."""
        import asyncio

        if asyncio._get_running_loop() is self._loop:
            self._wake()
            return True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        self.woken = True
        self.look_up()

    def look_up(self) -> None:
        """Have the task run; in its loop's thread."""
        if not self.future.done():
            self.future.set_result(None)

    async def wait(self, seconds: float | None) -> None:
        """Wait until it is woken or the time is over, more or less."""
        if self.woken:
            return
        if self.future.done():
            self.future = self._loop.create_future()
        if seconds is None:
            await self.future
            return
        alarm = self._loop.call_later(seconds, self.look_up)
        try:
            await self.future
        finally:
            alarm.cancel()


class States(Generic[T]):
    """A policy's state on each clock: times of one clock mean nothing on another."""

    def __init__(self, make: Callable[[], T]) -> None:
        self.make = make
        self.system = make()


class Clock:
    """The machine's clock, which policies use unless a `VirtualClock` is in its place."""

    def time(self) -> float:
        """The time in seconds since an arbitrary moment; it never goes back."""
        return self.time_ns() / SECOND

    def time_ns(self) -> int:
        """The time in nanoseconds."""
        return monotonic_ns()

    def random(self) -> float:
        """A random number from 0 to 1, 1 excluded: what jitter is drawn from."""
        return random.random()

    def sleep(self, seconds: float) -> None:
        """Wait in this thread; the GIL is released and signals are answered.

        Args:
            seconds: how long, on this clock.
        """
        until = self.time_ns() + round(seconds * SECOND)
        self._walk(_sleep(until))

    def _state(self, states: States[T]) -> T:
        """A policy's state on this clock."""
        return states.system

    def _new_thread_waiter(self) -> Waiter:
        return ThreadWaiter()

    def _wait(self, waiter: Any, until: int | None) -> bool:
        """Wait until woken, or until a time; whether it was woken."""
        stop = _stop.get()
        if stop is None:
            return self._wait_on(waiter, until)
        with stop.ends(waiter.event):
            return self._wait_on(waiter, until)

    def _wait_on(self, waiter: Any, until: int | None) -> bool:
        if until is None:
            return bool(waiter.event.wait())
        while not waiter.event.wait((until - self.time_ns()) / SECOND):
            if self.time_ns() >= until:
                return False
        return True

    async def _wait_async(self, waiter: TaskWaiter, until: int | None) -> bool:
        while True:
            left = None if until is None else (until - self.time_ns()) / SECOND
            if waiter.woken or (left is not None and left <= 0):
                return waiter.woken
            await waiter.wait(left)

    def _start(self, function: Callable[[], object], name: str) -> None:
        """Call a function in a thread of its own."""
        threading.Thread(target=function, name=name).start()

    def _taking_part(self) -> contextlib.AbstractContextManager[None]:
        """While this thread waits for threads that it starts."""
        return contextlib.nullcontext()

    def _walk(self, steps: Steps[T]) -> T:
        """Take the steps in this thread."""
        try:
            waiter, until = next(steps)
            while True:
                try:
                    woken = self._wait(waiter or self._new_thread_waiter(), until)
                except BaseException as error:
                    waiter, until = steps.throw(error)
                else:
                    waiter, until = steps.send(woken)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def _walk_async(self, steps: Steps[T]) -> T:
        """Take the steps in this task."""
        try:
            waiter, until = next(steps)
            while True:
                try:
                    task_waiter = waiter if isinstance(waiter, TaskWaiter) else TaskWaiter()
                    woken = await self._wait_async(task_waiter, until)
                except BaseException as error:
                    waiter, until = steps.throw(error)
                else:
                    waiter, until = steps.send(woken)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def _sleep(until: int) -> Steps[None]:
    yield None, until


SYSTEM = Clock()
_clocks = [SYSTEM]


def current() -> Clock:
    """The clock that policies use now, in all threads."""
    return _clocks[-1]


def put_on(clock: Clock) -> None:
    """Have policies use this clock."""
    _clocks.append(clock)


def take_off(clock: Clock) -> None:
    """Have policies use the clock from before."""
    # Not always the last one: tests in several threads may have one each.
    del _clocks[len(_clocks) - 1 - _clocks[::-1].index(clock)]
