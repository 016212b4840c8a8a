"""So many calls at once: `limit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from juggler._juggler import PolicyLimit
from juggler.policy._clock import Clock, States, Steps, Waiter
from juggler.policy._keys import KEYS, PerKey
from juggler.policy._line import Line
from juggler.policy._policy import MUST_WAIT, Gate, Guard


def limit(most: int, *, per_key: PerKey = None) -> Guard:
    """At most so many calls at once; the others wait, and come in in the order of their arrival.

    A place is handed from who leaves to who is next, so nobody who comes later gets in before.

    Args:
        most: how many, of threads and tasks together.
        per_key: from a call's arguments to its key; each key has a limit of its own. Keys with
            equal hashes share one.

    Raises:
        DeadlineError: the `deadline` around it was over before it was this call's turn.
    """
    return Limit(most, per_key)


class Limit(Gate):
    """See `limit`."""

    def __init__(self, most: int, per_key: PerKey) -> None:
        if most < 1:
            raise ValueError(f"most must be 1 or more, not {most!r}")
        self._most = most
        self._per_key = per_key
        self._states = States(self._new_state)

    def __repr__(self) -> str:
        return f"limit({self._most})"

    def _new_state(self) -> tuple[PolicyLimit, Line]:
        native = PolicyLimit(self._most, KEYS)
        return native, Line(native)

    def _enter(self, clock: Clock, place: int) -> object:
        return None if clock._state(self._states)[0].try_enter(place) else MUST_WAIT

    def _wait(self, clock: Clock, place: int, new_waiter: Callable[[], Waiter]) -> Steps[None]:
        native, line = clock._state(self._states)
        what = f"to wait for one of {self._most} places"
        return line.take_turn(place, native.enter, new_waiter(), what)

    def _leave(self, clock: Clock, place: int, token: Any, error: BaseException | None) -> None:
        clock._state(self._states)[1].leave(place)
