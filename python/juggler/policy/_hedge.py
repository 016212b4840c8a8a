"""A second call beside a slow one: `hedge`."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, NamedTuple

from juggler._juggler import PolicyHedge
from juggler.policy._clock import SECOND, Clock, States, current
from juggler.policy._policy import P, Policy, R, wraps
from juggler.policy._time import latest, out_of_time


def hedge(after: float, *, most: int = 2, quantile: float | None = None) -> Policy:
    """If a call takes too long, make it again beside the first; the first answer counts.

    It cuts the long tail of waiting for a server that is sometimes slow (J. Dean and L. A. Barroso,
    "The Tail at Scale", CACM 2013), at the price of some calls made twice: only for calls that may
    be. A call that fails is replaced at once, while there may be more; if all fail, the first one's
    exception is raised.

    In a coroutine the other calls are cancelled when one has answered. Of a plain function each
    call runs in a thread of its own, and the others run to their end, which nobody waits for but
    the interpreter at its exit.

    Args:
        after: seconds after which there is another call.
        most: how many calls there are at most side by side, the first included.
        quantile: if given, from 0 to 1, such as 0.95: there is another call as soon as one takes
            longer than this share of the latest 128 calls did; ``after`` counts until 16 are known.

    Raises:
        DeadlineError: the `deadline` around it was over before an answer came.
    """
    return Hedge(after, most, quantile)


class Hedge(Policy):
    """See `hedge`."""

    def __init__(self, after: float, most: int, quantile: float | None) -> None:
        if not after >= 0 or most < 1 or not (quantile is None or 0 <= quantile <= 1):
            raise ValueError("after must be 0 or more, most 1 or more, and quantile from 0 to 1")
        self._rules = after, quantile, most
        self._states = States(self._new_state)

    def __repr__(self) -> str:
        after, quantile, most = self._rules
        share = "" if quantile is None else f", quantile={quantile!r}"
        return f"hedge({after!r}, most={most}{share})"

    def _new_state(self) -> PolicyHedge:
        after, quantile, most = self._rules
        return PolicyHedge(round(after * SECOND), quantile, most)

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            clock = current()
            calls = _Calls(clock, clock._state(self._states), partial(function, *args, **kwargs))
            with clock._taking_part():
                return calls.answer()

        return call

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            import asyncio

            clock = current()
            native = clock._state(self._states)

            async def attempt() -> R:
                began = clock.time_ns()
                result = await function(*args, **kwargs)
                native.record(clock.time_ns() - began)
                return result

            tasks: list[asyncio.Task[R]] = []
            running: set[asyncio.Task[R]] = set()
            failure: BaseException | None = None
            try:
                while True:
                    tasks.append(asyncio.create_task(attempt()))
                    running.add(tasks[-1])
                    while True:
                        patience = native.patience(len(tasks))
                        done, running = await asyncio.wait(
                            running,
                            timeout=None if patience is None else patience / SECOND,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        for task in done:
                            try:
                                return task.result()
                            except BaseException as error:
                                failure = failure or error
                        if patience is not None:
                            break
                        if not running:
                            assert failure is not None
                            raise failure
            finally:
                for task in running:
                    task.cancel()
                # Who was cancelled may still have something to close; and who failed in the moment
                # of the answer is not to be reported as lost.
                await asyncio.gather(*tasks, return_exceptions=True)

        return call


class _Failure(NamedTuple):
    error: BaseException


class _Calls(Generic[R]):
    """The calls of one hedged call in threads."""

    def __init__(self, clock: Clock, native: PolicyHedge, function: Callable[[], R]) -> None:
        self._clock = clock
        self._native = native
        self._function = function
        self._ended: deque[R | _Failure] = deque()
        self._waiter = clock._new_thread_waiter()

    def answer(self) -> R:
        """Make the calls, and return the first answer."""
        failure: BaseException | None = None
        begun = running = 0
        while True:
            context = contextvars.copy_context()
            self._clock._start(partial(context.run, self._run), "juggler-hedge")
            begun += 1
            running += 1
            while True:
                patience = self._native.patience(begun)
                self._wait(None if patience is None else self._clock.time_ns() + patience)
                while self._ended:
                    result = self._ended.popleft()
                    if not isinstance(result, _Failure):
                        return result
                    running -= 1
                    failure = failure or result.error
                if patience is not None:
                    break
                if not running:
                    assert failure is not None
                    raise failure

    def _run(self) -> None:
        began = self._clock.time_ns()
        try:
            result = self._function()
        except BaseException as error:
            self._ended.append(_Failure(error))
        else:
            self._native.record(self._clock.time_ns() - began)
            self._ended.append(result)
        self._waiter.wake()

    def _wait(self, until: int | None) -> None:
        """Until a call has ended, or the time is over."""
        final = latest()
        ends = until if final is None else min(final, until or final)
        woken = bool(self._ended) or self._clock._wait(self._waiter, ends)
        self._waiter = self._clock._new_thread_waiter()
        if not woken and not self._ended and final is not None and ends == final:
            raise out_of_time("to wait for an answer")
