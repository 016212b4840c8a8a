"""Those who wait for their turn: the engine knows their tickets, this knows who has them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

from juggler.policy._clock import Steps, Waiter
from juggler.policy._time import latest, out_of_time

_tickets = itertools.count(1)


class _Native(Protocol):
    def abandon(self, key: int, ticket: int, /) -> bool: ...
    def leave(self, key: int, /) -> int | None: ...


class Line:
    """The waiters of one policy."""

    def __init__(self, native: _Native) -> None:
        self._native = native
        self._waiters: dict[int, Waiter] = {}

    def take_turn(
        self, key: int, join: Callable[[int, int], bool], waiter: Waiter, what: str
    ) -> Steps[None]:
        """Join the line, and wait until it is this waiter's turn.

        Raises:
            DeadlineError: the deadline came first.
        """
        ticket = next(_tickets)
        # Before it joins, so that it is known when its turn comes.
        self._waiters[ticket] = waiter
        try:
            if not join(key, ticket) and not (yield waiter, latest()):
                raise out_of_time(what)
        except BaseException:
            if not self._native.abandon(key, ticket):
                # Its turn came at the same moment.
                self.leave(key)
            raise
        finally:
            self._waiters.pop(ticket, None)

    def leave(self, key: int) -> None:
        """Pass the turn on to the first in line who can be told."""
        while (ticket := self._native.leave(key)) is not None:
            waiter = self._waiters.get(ticket)
            # None gave up just now, finds that it has the turn, and leaves itself.
            if waiter is None or waiter.wake():
                return
