"""Budgets of time: `timeout` and `deadline`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Literal

from juggler.policy._clock import SECOND, Clock, current
from juggler.policy._policy import Gate, P, R

if TYPE_CHECKING:
    from juggler.futures import ProcessPoolExecutor

_latest: ContextVar[int | None] = ContextVar("juggler.policy.deadline", default=None)


class DeadlineError(TimeoutError):
    """A `deadline` was over, or would have been before the call could begin."""

    def __init__(self, message: str, until: int | None = None) -> None:
        super().__init__(message)
        self._until = until


def latest() -> int | None:
    """The moment of the deadline that this code runs under, if there is one."""
    return _latest.get()


def out_of_time(what: str) -> DeadlineError:
    """The error for a wait that the deadline does not allow."""
    return DeadlineError(f"the deadline leaves no time {what}", latest())


def remaining() -> float | None:
    """How much is left of the deadlines and timeouts that this code runs under.

    Pass it on to what can stop by itself: ``requests.get(url, timeout=policy.remaining())``. Code
    under a policy knows it in the same thread and in the tasks that it starts, not in other
    threads.

    Returns:
        Seconds, not less than 0; None if there is no deadline.
    """
    until = _latest.get()
    return None if until is None else max(0.0, (until - current().time_ns()) / SECOND)


def deadline(seconds: float) -> Deadline:
    """One budget of time for all that happens inside: attempts, waits, and what servers ask for.

    Nothing inside waits past it: `rate` and `limit` raise instead, at once if they can tell, and
    `retry` raises the last attempt's error instead of waiting for another. A coroutine is cancelled
    when it is over. A function in a thread can't be stopped, so it ends when it ends, and its
    result counts; let it ask for `remaining`. Deadlines may be nested: the earliest counts.

    As a policy it decorates functions and coroutine functions, each call with a budget of its own;
    as a context manager it is for ``with`` and ``async with``.

    Args:
        seconds: from the beginning of the call, or of the block.

    Raises:
        DeadlineError: it is over. A `TimeoutError`.
    """
    return Deadline(seconds)


def timeout(seconds: float, *, on: Literal["processes"] | None = None) -> Timeout:
    """How long one call may take. It is stopped then, and `TimeoutError` raised.

    A coroutine is cancelled, as by `asyncio.timeout`. **A function in a thread can't be stopped**:
    no thread can end another one. So to decorate a plain function is a `TypeError`, unless it is
    said where calls can be stopped: with ``on="processes"`` they run in a pool of processes that
    all such timeouts share, and the process of a call that takes too long is killed. Arguments and
    results are pickled then, changes of global variables stay there, and policies to the right of
    this one would have their state there, which is a `TypeError`. What can stop by itself is served
    better by `deadline` and `remaining`.

    Of context managers only ``async with`` is there, for the same reason.

    Args:
        seconds: from the beginning of the call; in a process, from when that begins with it.
        on: where plain functions run; ``"processes"``, or None for nowhere.
    """
    return Timeout(seconds, on)


class Deadline(Gate):
    """See `deadline`."""

    def __init__(self, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be greater than 0, not {seconds!r}")
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"deadline({self._seconds!r})"

    def _enter(self, clock: Clock, place: Any) -> tuple[Token[int | None], int]:
        now = clock.time_ns()
        until = now + round(self._seconds * SECOND)
        outer = _latest.get()
        if outer is not None:
            until = min(outer, until)
            if until <= now:
                raise out_of_time("to begin")
        return _latest.set(until), until

    def _leave(self, clock: Clock, place: Any, token: Any, error: BaseException | None) -> None:
        _latest.reset(token[0])

    def _ends(self, token: Any) -> int | None:
        until: int = token[1]
        return until

    def _expired(self, token: Any) -> Exception:
        return DeadlineError("the deadline is over", token[1])


class Timeout(Deadline):
    """See `timeout`."""

    def __init__(self, seconds: float, on: Literal["processes"] | None) -> None:
        super().__init__(seconds)
        if on not in (None, "processes"):
            raise ValueError(f"on must be 'processes' or None, not {on!r}")
        self._on = on

    def __repr__(self) -> str:
        return f"timeout({self._seconds!r}{'' if self._on is None else f', on={self._on!r}'})"

    def __enter__(self) -> None:
        raise TypeError("a thread can't be stopped: use deadline() and remaining(), or async with")

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        if self._on is None:
            raise TypeError(
                f"timeout({self._seconds!r}) can't stop the plain function {function!r}, for no "
                'thread can end another: pass on="processes" to run it where it can be stopped, or '
                "use deadline() and let the function ask for remaining()"
            )
        if hasattr(function, "_inside_policy"):
            raise TypeError(
                'timeout(on="processes") must be the last policy: those to its right would run, '
                "and have their state, in other processes"
            )

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            left = remaining()
            if left == 0:
                raise out_of_time("to begin")
            pool = _processes().options(timeout=self._seconds)
            future = pool.submit(function, *args, **kwargs)
            try:
                return future.result(left)
            except BaseException as error:
                future.cancel(running=True)
                if isinstance(error, TimeoutError) and remaining() == 0:
                    raise DeadlineError("the deadline is over", latest()) from error
                raise

        return call

    def _expired(self, token: Any) -> Exception:
        if (outer := _outer(token)) is not None and token[1] >= outer:
            return super()._expired(token)
        return TimeoutError(f"the call took longer than {self._seconds:g} s")


def _outer(token: Any) -> int | None:
    """The deadline from before."""
    old = token[0].old_value
    return None if old is Token.MISSING else old


_pools: list[ProcessPoolExecutor] = []
_pools_lock = threading.Lock()


def _processes() -> ProcessPoolExecutor:
    """The processes in which calls can be stopped."""
    with _pools_lock:
        if not _pools:
            from juggler._processes import own_pool

            _pools.append(own_pool())
        return _pools[0]
