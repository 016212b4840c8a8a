"""Who fails again and again is left alone for a while: `circuit`."""

from __future__ import annotations

from juggler._juggler import PolicyCircuit
from juggler.policy._clock import SECOND, Clock, States
from juggler.policy._keys import KEYS, PerKey
from juggler.policy._policy import Gate, Guard
from juggler.policy._retry import Errors, concerns


class CircuitOpenError(Exception):
    """A `circuit` is open: the call was not made.

    Attributes:
        retry_after: in how many seconds a call may get through, which `retry` waits for; None if
            that depends on calls that are under way.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def circuit(
    failures: int = 5,
    reset: float = 30.0,
    *,
    trials: int = 1,
    on: Errors = Exception,
    per_key: PerKey = None,
) -> Guard:
    """Make no calls for a while after so many failures in a row.

    Closed, it lets all calls through. After ``failures`` failures in a row it opens: calls raise
    `CircuitOpenError` at once. When ``reset`` seconds are over, ``trials`` calls get through; if
    all of them succeed, it closes, and if one fails, it is open for as long again. Never blocks.

    Args:
        failures: how many in a row open it.
        reset: seconds for which it is open.
        trials: how many successes close it again.
        on: which exceptions are failures: a class, several, or a function that says so. All
            others are answers, and so successes. A cancelled call is neither.
        per_key: from a call's arguments to its key; each key has a circuit of its own. Keys with
            equal hashes share one; if there are too many, the one not used for longest is
            forgotten.

    Raises:
        CircuitOpenError: it is open.
    """
    return Circuit(failures, reset, trials, on, per_key)


class Circuit(Gate):
    """See `circuit`."""

    def __init__(
        self, failures: int, reset: float, trials: int, on: Errors, per_key: PerKey
    ) -> None:
        if failures < 1 or trials < 1 or not reset > 0:
            raise ValueError("failures and trials must be 1 or more, reset more than 0")
        self._rules = failures, reset, trials
        self._on = on
        self._per_key = per_key
        self._states = States(self._new_state)

    def __repr__(self) -> str:
        failures, reset, trials = self._rules
        return f"circuit({failures}, {reset!r}, trials={trials})"

    def _new_state(self) -> PolicyCircuit:
        failures, reset, trials = self._rules
        return PolicyCircuit(failures, round(reset * SECOND), trials, KEYS)

    def _enter(self, clock: Clock, place: int) -> int:
        now = clock.time_ns()
        admitted, number = clock._state(self._states).admit(place, now)
        if admitted:
            assert number is not None
            return number
        wait = None if number is None else (number - now) / SECOND
        when = "until a trial has ended" if wait is None else f"for another {wait:.3g} s"
        raise CircuitOpenError(f"the circuit is open {when}", wait)

    def _leave(self, clock: Clock, place: int, token: int, error: BaseException | None) -> None:
        outcome: bool | None = True
        if error is not None:
            outcome = not concerns(self._on, error) if isinstance(error, Exception) else None
        clock._state(self._states).record(place, clock.time_ns(), token, outcome)
