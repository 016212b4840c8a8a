"""Timeouts: stands in for ``asyncio.timeouts``. See `juggler.asyncio`."""

from __future__ import annotations

from juggler._juggler import Timeout, timeout

__all__ = ["Timeout", "timeout", "timeout_at"]


def timeout_at(when: float | None) -> Timeout:
    """Give what is inside ``async with`` until a point in time; as `asyncio.timeout_at`.

    Args:
        when: seconds on the loop's clock, `loop.time()`; None: without end.
    """
    return Timeout(when)
