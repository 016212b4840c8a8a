"""What a scheduled call is held by: stands in for ``asyncio.Handle`` and ``asyncio.TimerHandle``.

The classes are the standard library's, slots and all; the native loop makes, runs, cancels and
frees their instances. See `juggler.asyncio`.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import format_helpers

from juggler import _juggler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Handle(asyncio.Handle):
    """A call that was scheduled; `cancel` takes it back.

    Stands in for `asyncio.Handle`, and is a subclass of it. Not for several threads at once.
    """

    __slots__ = ()


class TimerHandle(Handle, asyncio.TimerHandle):
    """A call that was scheduled for a point in time, `when()`; `cancel` takes it back.

    Stands in for `asyncio.TimerHandle`, and is a subclass of it.
    """

    __slots__ = ()


if sys.version_info >= (3, 14):

    class _ThreadSafeHandle(asyncio.events._ThreadSafeHandle):  # type: ignore[misc]
        """What `call_soon_threadsafe` returns: any thread may `cancel` it."""

        __slots__ = ()


def _report(handle: Any, error: BaseException) -> None:
    """Tell the handle's loop what its callback raised, in the standard library's words."""
    loop = handle._loop
    options = {"debug": loop.get_debug()} if sys.version_info >= (3, 13) else {}
    source = format_helpers._format_callback_source(handle._callback, handle._args, **options)
    context = {"message": f"Exception in callback {source}", "exception": error, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    loop.call_exception_handler(context)


_juggler._set_handle_classes(Handle, TimerHandle, _report)
