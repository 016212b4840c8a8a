"""What processes wait with: stands in for the standard library's ``multiprocessing.synchronize``.

Every primitive is a word or a page of shared memory and needs no system call while nobody waits.
Ten thousand locks take one file descriptor; nothing has a name in ``/dev/shm``.

Blocking: a call that need not wait never gives the GIL up; a wait gives it up, answers signals
(Ctrl-C ends it at once in the main thread) and measures its timeout on the monotonic clock.
Fairness: a running thread may take a free lock or permit before a sleeper that is being woken.

Death: a process that dies (killed, or ended without `release`) hangs nobody.

* A `Lock` or `RLock` that it held is taken over within 0.1 s by one who waits or comes, who is told
  by the warning `OwnerDied`. Made an error (``warnings.simplefilter("error", OwnerDied)``), it is
  raised and the lock is free again.
* A notification of a `Condition` that reached it goes to another who waits.
* A `Barrier` in which it waited is broken for the others.
* A permit of a `Semaphore` that it held is lost, as in the standard library.

Deviations:

* Objects of every start method can be sent to children of every other.
* At most 511 threads can wait for a `Condition` at once.
* ``Event.wait`` sees an event that is set and cleared at once, as `threading.Event`'s does.
* What a permit of a `Semaphore` was taken by is not recorded, and there are no names or handles of
  the system's: ``_semlock`` has ``_is_zero`` and ``_get_value``, and of locks ``_count`` and
  ``_is_mine``.
"""

from __future__ import annotations

import sys
import threading
import time
from multiprocessing import process
from threading import BrokenBarrierError

from juggler._juggler import (
    OwnerDied,
    SharedBarrier,
    SharedEvent,
    SharedLock,
    SharedRLock,
    SharedRoom,
    SharedSemaphore,
    _own_methods,
)
from juggler.multiprocessing.memory import place_of

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")

    from juggler._juggler import SharedSegment

    _Place = tuple[SharedSegment, int]

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "OwnerDied",
    "RLock",
    "Semaphore",
]

RECURSIVE_MUTEX = 0
SEMAPHORE = 1
SEM_VALUE_MAX = SharedSemaphore.SEM_VALUE_MAX


def _rebuild(cls: Any, place: _Place) -> object:
    return cls.__new__(cls, at=place)


def _rebuild_semaphore(cls: Any, place: _Place, maxvalue: int) -> object:
    semaphore = cls.__new__(cls, at=place)
    semaphore._bound(maxvalue)
    return semaphore


class SemLock:
    """What locks and semaphores have in common."""

    kind = SEMAPHORE

    @property
    def _semlock(self) -> Any:
        """What the standard library keeps apart: the native side, with `_count` and its like."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), place_of(self))  # type: ignore[arg-type]


def _owner(lock: SharedLock | SharedRLock) -> str:
    """Who holds the lock, for its `repr`."""
    if lock._is_mine():
        name = process.current_process().name
        thread = threading.current_thread().name
        return name if thread == "MainThread" else f"{name}|{thread}"
    if not lock._is_zero():
        return "None"
    return "SomeOtherThread" if lock._count() else "SomeOtherProcess"


@_own_methods
class Lock(SharedLock, SemLock):
    """A mutual-exclusion lock that any thread of any process may release.

    Stands in for `multiprocessing.Lock`. A lock whose holder has died is taken over: `OwnerDied`.

    Args:
        ctx: the context that makes it; of no importance here.
    """

    maxvalue = 1

    def __init__(self, *, ctx: object = None) -> None: ...

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={_owner(self)})>"


@_own_methods
class RLock(SharedRLock, SemLock):
    """A lock that the thread which holds it may take again, and which it alone may release.

    Stands in for `multiprocessing.RLock`. A lock whose holder has died is taken over: `OwnerDied`.

    Args:
        ctx: the context that makes it; of no importance here.
    """

    kind = RECURSIVE_MUTEX
    maxvalue = 1

    def __init__(self, *, ctx: object = None) -> None: ...

    def __repr__(self) -> str:
        owner = _owner(self)
        count = self._count() if self._is_mine() else 0 if owner == "None" else "nonzero"
        return f"<{type(self).__name__}({owner}, {count})>"


@_own_methods
class Semaphore(SharedSemaphore, SemLock):
    """A counter of permits: `acquire` takes one, `release` gives one back.

    Stands in for `multiprocessing.Semaphore`. Permits that a process holds when it dies are lost.

    Args:
        value: the permits to begin with, 0 to `SEM_VALUE_MAX`.
        ctx: the context that makes it; of no importance here.

    Raises:
        ValueError: `value` is out of range.
    """

    def __init__(self, value: int = 1, *, ctx: object = None) -> None:
        self._set(value, SEM_VALUE_MAX)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_semaphore, (type(self), place_of(self), self.maxvalue)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()})>"


@_own_methods
class BoundedSemaphore(Semaphore):
    """A semaphore that never has more permits than it began with.

    Stands in for `multiprocessing.BoundedSemaphore`, with its bound enforced.

    Args:
        value: the permits to begin with, 0 to `SEM_VALUE_MAX`.
        ctx: the context that makes it; of no importance here.

    Raises:
        ValueError: `value` is out of range.
    """

    def __init__(self, value: int = 1, *, ctx: object = None) -> None:
        self._set(value, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={self.maxvalue})>"


class _Reading:
    """A number where the standard library has a semaphore, which tests and tools look at."""

    def __init__(self, value: int) -> None:
        self._value = value

    def get_value(self) -> int:
        return self._value


class Condition:
    """A condition variable: wait until another thread, in whichever process, says to look again.

    Stands in for `multiprocessing.Condition`. Notifications go to who waited first, never to one
    who came after `notify`, and `notify` does not wait for the woken to run.

    Args:
        lock: a `Lock` or `RLock`; by default a new `RLock`.
        ctx: the context that makes it; of no importance here.
    """

    def __init__(self, lock: Lock | RLock | None = None, *, ctx: object = None) -> None:
        self.__setstate__((lock or RLock(), SharedRoom()))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._lock, place_of(self._room)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._lock, room = state
        self._room = room if isinstance(room, SharedRoom) else SharedRoom(at=room)
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        """Take the lock, waiting for it, without the GIL, if need be."""
        return bool(self._lock.__enter__())

    def __exit__(self, *exc_info: object) -> None:
        """Give the lock back; never blocks."""
        self._lock.__exit__(*exc_info)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {self._room.waiting()})>"

    @property
    def _sleeping_count(self) -> _Reading:
        return _Reading(self._room.waiting())

    @property
    def _woken_count(self) -> _Reading:
        return _Reading(0)

    @property
    def _wait_semaphore(self) -> _Reading:
        return _Reading(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Free the lock, wait until notified, and take the lock again.

        Args:
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.

        Returns:
            Whether it was notified.

        Raises:
            AssertionError: the calling thread does not hold the lock.
            RuntimeError: 511 threads wait already.
        """
        if not self._lock._semlock._is_mine():
            raise AssertionError("must acquire() condition before using wait()")
        return self._room.wait(self._lock, timeout)

    def wait_for(self, predicate: Callable[[], _T], timeout: float | None = None) -> _T:
        """Wait until `predicate()` is true.

        Args:
            predicate: called with the lock held, at once and after each notification.
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.

        Returns:
            What `predicate` returned last.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not (result := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those who wait, or all if there are fewer; first come, first served.

        Raises:
            AssertionError: the calling thread does not hold the lock.
        """
        if not self._lock._semlock._is_mine():
            raise AssertionError("lock is not owned")
        self._room.notify(n)

    def notify_all(self) -> None:
        """Wake everybody who waits.

        Raises:
            AssertionError: the calling thread does not hold the lock.
        """
        self.notify(sys.maxsize)


@_own_methods
class Event(SharedEvent):
    """A flag that processes wait for.

    Stands in for `multiprocessing.Event`.

    Args:
        ctx: the context that makes it; of no importance here.
    """

    def __init__(self, *, ctx: object = None) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), place_of(self))

    def __repr__(self) -> str:
        status = "set" if self.is_set() else "unset"
        return f"<{type(self).__qualname__} at {id(self):#x} {status}>"


class Barrier:
    """A meeting point for a fixed number of threads in any processes, used again and again.

    Stands in for `multiprocessing.Barrier`. It is broken when a process dies waiting in it.
    Deviation: it is no subclass of `threading.Barrier`.

    Args:
        parties: how many threads it takes to pass, 1 or more.
        action: called by the last to come, before anybody passes; if it raises, the barrier is
            broken. The barrier's other methods don't wait for it.
        timeout: what `wait` waits at most unless told otherwise, in seconds; None is for ever.
        ctx: the context that makes it; of no importance here.

    Raises:
        ValueError: `parties` is below 1.
    """

    def __init__(
        self,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: object = None,
    ) -> None:
        if parties < 1:
            raise ValueError("parties must be >= 1")
        self._engine = SharedBarrier(parties)
        self._action = action
        self._timeout = timeout

    def __getstate__(self) -> tuple[Any, ...]:
        return self.parties, self._action, self._timeout, place_of(self._engine)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        parties, self._action, self._timeout, place = state
        self._engine = SharedBarrier(parties, at=place)

    def __repr__(self) -> str:
        state = "broken" if self.broken else f"waiters={self.n_waiting}/{self.parties}"
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} at {id(self):#x}: {state}>"

    def wait(self, timeout: float | None = None) -> int:
        """Wait until as many have come as it takes.

        Args:
            timeout: seconds on the monotonic clock to wait at most, whereafter the barrier is
                broken; by default what the constructor was given.

        Returns:
            The place in which the caller came, from 0.

        Raises:
            threading.BrokenBarrierError: the barrier is broken or was reset, or time is over.
        """
        arrival = self._engine.wait(self._timeout if timeout is None else timeout)
        if arrival is None:
            raise BrokenBarrierError
        place, last = arrival
        if last is not None:
            try:
                if self._action is not None:
                    self._action()
            except BaseException:
                self._engine.finish(last, False)
                raise
            if not self._engine.finish(last, True):
                raise BrokenBarrierError
        return place

    def abort(self) -> None:
        """Break the barrier: who waits and who comes gets `threading.BrokenBarrierError`."""
        self._engine.abort()

    def reset(self) -> None:
        """Make the barrier as new: who waits gets `threading.BrokenBarrierError`."""
        self._engine.reset()

    @property
    def parties(self) -> int:
        """How many threads it takes to pass."""
        return self._engine.parties

    @property
    def n_waiting(self) -> int:
        """How many wait."""
        return self._engine.n_waiting

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        return self._engine.broken
