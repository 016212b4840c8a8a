"""Trying again: `retry`, its backoff, and what servers ask for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from juggler._juggler import PolicyAttempts
from juggler.policy._clock import SECOND, Clock, Steps, current
from juggler.policy._policy import P, Policy, R, wraps
from juggler.policy._time import DeadlineError, latest
from juggler.policy._time import deadline as deadline_of

Errors: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Some exceptions: by class, or by a function that says whether one is meant."""


def concerns(errors: Errors, error: BaseException) -> bool:
    """Whether an exception is among these; Ctrl-C and cancellation never are."""
    if not isinstance(error, Exception):
        return False
    if isinstance(errors, type | tuple):
        return isinstance(error, errors)
    return bool(errors(error))


@dataclass(frozen=True)
class Backoff:
    """The waits between attempts, made by `exponential`.

    Attributes:
        base: the first wait, in seconds, before chance changes it.
        cap: no wait is longer, in seconds.
        jitter: how chance changes a wait.
    """

    base: float
    cap: float
    jitter: Literal["full", "equal", "decorrelated"] | None


_USUAL = Backoff(0.1, 30.0, "full")


def exponential(
    base: float = 0.1,
    cap: float = 30.0,
    jitter: Literal["full", "equal", "decorrelated"] | None = "full",
) -> Backoff:
    """Waits that double from ``base`` to ``cap``, changed by chance.

    Chance is there so that those who failed together do not come back together (M. Brooker,
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        base: the first wait, in seconds.
        cap: the longest, in seconds.
        jitter: ``"full"``: anything from nothing to the whole wait; ``"equal"``: half of it, and
            anything up to the other half; ``"decorrelated"``: anything from ``base`` to three times
            the wait before; None: the wait itself.
    """
    if not (base >= 0 and cap >= 0):
        raise ValueError(f"base and cap must not be negative: {base!r}, {cap!r}")
    backoff = Backoff(base, cap, jitter)
    _attempts(1, backoff, 0.0)
    return backoff


def retry_after(error: BaseException) -> float | None:
    """What a server asked for: the seconds in an exception's ``Retry-After``.

    Looks at ``error.retry_after`` (seconds), ``error.response.headers`` (of requests and httpx) and
    ``error.headers`` (of urllib and aiohttp); there it may be a number of seconds or a date.

    Returns:
        Seconds from now, not less than 0; None if nothing was asked for.
    """
    value = getattr(error, "retry_after", None)
    if value is None:
        for owner in (getattr(error, "response", None), error):
            headers = getattr(owner, "headers", None)
            if headers is not None and (value := headers.get("Retry-After")) is not None:
                break
    try:
        seconds = None if value is None else float(value)
    except (TypeError, ValueError):
        seconds = _seconds_until(str(value))
    return None if seconds is None or seconds != seconds else max(0.0, seconds)


def _seconds_until(date: str) -> float | None:
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    # A date that names no zone is in UTC.
    return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def retry(
    attempts: int = 3,
    *,
    backoff: Backoff | float = _USUAL,
    on: Errors = Exception,
    deadline: float | None = None,
    asked: Callable[[BaseException], float | None] | None = None,
    longest: float = 300.0,
    on_retry: Callable[[int, Exception, float], object] | None = None,
) -> Policy:
    """Call again after a failure, with growing pauses.

    What is raised in the end is what the last attempt raised, with a note about the attempts. Only
    calls that may be made twice should be tried again. Ctrl-C and a cancelled task end it at once.

    Args:
        attempts: how often to call, the first time included.
        backoff: the pauses: an `exponential`, or seconds.
        on: which exceptions are worth another attempt: a class, several, or a function of one.
        deadline: seconds for everything together: attempts, pauses, and what is inside; as if a
            `deadline` were around it. An attempt that could not begin within it is not waited for.
        asked: from an exception to the seconds that the server asked for, or None; the pause is at
            least so long. None is `retry_after`.
        longest: seconds that a server can ask for; if it asks for more, the pause is only this.
        on_retry: called before each pause with the number of attempts so far, the exception and the
            pause in seconds, for instance to log it.

    Raises:
        DeadlineError: a coroutine's attempt was under way when the deadline was over.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be 1 or more, not {attempts!r}")
    pauses = backoff if isinstance(backoff, Backoff) else exponential(backoff, backoff, None)
    policy = Retry(attempts, pauses, on, asked or retry_after, longest, on_retry)
    return policy if deadline is None else deadline_of(deadline) | policy


def _attempts(attempts: int, backoff: Backoff, longest: float) -> PolicyAttempts:
    base, cap = round(backoff.base * SECOND), round(backoff.cap * SECOND)
    return PolicyAttempts(attempts, base, cap, backoff.jitter, round(longest * SECOND))


class Retry(Policy):
    """See `retry`."""

    def __init__(
        self,
        attempts: int,
        backoff: Backoff,
        on: Errors,
        asked: Callable[[BaseException], float | None],
        longest: float,
        on_retry: Callable[[int, Exception, float], object] | None,
    ) -> None:
        self._attempts = attempts
        self._backoff = backoff
        self._on = on
        self._asked = asked
        self._longest = longest
        self._on_retry = on_retry

    def __repr__(self) -> str:
        return f"retry({self._attempts})"

    def _begin(self) -> PolicyAttempts:
        return _attempts(self._attempts, self._backoff, self._longest)

    def _pause(
        self, clock: Clock, attempts: PolicyAttempts, began: int, error: BaseException
    ) -> Steps[bool]:
        """Wait for the next attempt; returns whether there is one."""
        until = latest()
        ours = isinstance(error, DeadlineError) and error._until == until and until is not None
        if ours or not concerns(self._on, error):
            return False
        assert isinstance(error, Exception)
        asked = self._asked(error)
        now = clock.time_ns()
        nanos = None if asked is None else round(min(asked, self._longest) * SECOND)
        begins = attempts.next(now, nanos, until, clock.random())
        if begins is None:
            made, took = attempts.made, (now - began) / SECOND
            if self._attempts > 1:
                why = "the deadline allows no further one" if made < self._attempts else "gave up"
                error.add_note(f"juggler.policy: attempt {made} in {took:.3g} s; {why}")
            return False
        if self._on_retry is not None:
            self._on_retry(attempts.made, error, (begins - now) / SECOND)
        yield None, begins
        return True

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            clock = current()
            began = clock.time_ns()
            attempts: PolicyAttempts | None = None
            while True:
                try:
                    return function(*args, **kwargs)
                except BaseException as error:
                    attempts = attempts or self._begin()
                    if not clock._walk(self._pause(clock, attempts, began, error)):
                        raise

        return call

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            clock = current()
            began = clock.time_ns()
            attempts: PolicyAttempts | None = None
            while True:
                try:
                    return await function(*args, **kwargs)
                except BaseException as error:
                    attempts = attempts or self._begin()
                    if not await clock._walk_async(self._pause(clock, attempts, began, error)):
                        raise

        return call
