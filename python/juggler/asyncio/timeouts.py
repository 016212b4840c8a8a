"""Timeouts: stands in for ``asyncio.timeouts``. See `juggler.asyncio`."""

from __future__ import annotations

from asyncio.timeouts import Timeout as _StdlibTimeout  # noqa: F401  # what chains errors since 3.13

from juggler._juggler import Timeout, timeout

__all__ = ["Timeout", "timeout", "timeout_at"]


def timeout_at(when: float | None) -> Timeout:
    """Give what is inside ``async with`` until a point in time; as `asyncio.timeout_at`.

    Args:
        when: seconds on the loop's clock, `loop.time()`; None: without end.
    """
    return Timeout(when)
