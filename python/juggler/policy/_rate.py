"""So many calls, or bytes, in so much time: `rate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from juggler._juggler import PolicyRate
from juggler.policy._clock import Clock, States, Steps, Waiter
from juggler.policy._keys import KEYS, PerKey
from juggler.policy._line import Line
from juggler.policy._policy import MUST_WAIT, Gate
from juggler.policy._time import latest, out_of_time


def rate(
    text: str,
    *,
    burst: int | None = None,
    cost: Callable[..., int] | None = None,
    per_key: PerKey = None,
) -> Rate:
    """No more calls than so many in so much time; those that come too early wait, in order.

    A token bucket: in any window of time, however long, no more calls begin than ``burst`` and what
    the rate allows in that time, exactly.

    Args:
        text: amount and time, such as ``"20/s"``, ``"100/m"``, ``"5/10s"``, ``"0.5/s"``,
            ``"10MB/s"``, ``"1.5GiB/h"``. Times are ``ms``, ``s``, ``m``, ``h``, ``d``; units of
            bytes are ``B``, ``kB`` to ``TB``, ``KiB`` to ``TiB``.
        burst: how many may begin at once after a pause; None is 1, so that calls are spaced
            evenly, and for bytes what comes in a tenth of a second.
        cost: from a call's arguments to how much it takes, for instance bytes; None is 1. What
            costs more than the burst waits until the bucket is full, and what follows pays for it.
        per_key: from a call's arguments to its key; each key has a rate of its own. Keys with equal
            hashes share one.

    Raises:
        ValueError: ``text`` is no rate.
        DeadlineError: this call could not begin before the `deadline` around it.
    """
    return Rate(text, burst, cost, per_key)


class Rate(Gate):
    """A rate, made by `rate`: a `Guard` from which amounts can be taken, too."""

    def __init__(
        self, text: str, burst: int | None, cost: Callable[..., int] | None, per_key: PerKey
    ) -> None:
        self._text = text
        self._burst = burst
        self._cost = cost
        self._per_key = per_key
        self._states = States(self._new_state)

    def __repr__(self) -> str:
        return f"rate({self._text!r}, burst={self._states.system[0].burst})"

    def take(self, amount: int) -> None:
        """Wait until so much may be taken, for instance the bytes that have just arrived.

        Blocking: in this thread; the GIL is released and signals are answered.

        Args:
            amount: 0 or more.

        Raises:
            DeadlineError: the `deadline` does not allow that.
        """
        self._begin((self._no_call()[0], amount))

    async def take_async(self, amount: int) -> None:
        """As `take`, in a coroutine: suspends the task.

        Args:
            amount: 0 or more.

        Raises:
            DeadlineError: the `deadline` does not allow that.
        """
        await self._begin_async((self._no_call()[0], amount))

    def _new_state(self) -> tuple[PolicyRate, Line]:
        native = PolicyRate(self._text, self._burst, KEYS)
        return native, Line(native)

    def _place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int]:
        # A context manager is no call, and takes 1.
        priced = self._cost is not None and (args or kwargs)
        cost = self._cost(*args, **kwargs) if priced and self._cost else 1
        return super()._place(args, kwargs), cost

    def _enter(self, clock: Clock, place: tuple[int, int]) -> object:
        key, amount = place
        native = clock._state(self._states)[0]
        return None if native.try_take(key, clock.time_ns(), amount) else MUST_WAIT

    def _wait(
        self, clock: Clock, place: tuple[int, int], new_waiter: Callable[[], Waiter]
    ) -> Steps[None]:
        native, line = clock._state(self._states)
        key, amount = place
        what = f"to wait for the rate of {self._text}"
        yield from line.take_turn(key, native.join, new_waiter(), what)
        try:
            while (ready := native.take(key, clock.time_ns(), amount)) is not None:
                until = latest()
                if until is not None and ready >= until:
                    raise out_of_time(what)
                yield None, ready
        finally:
            line.leave(key)
