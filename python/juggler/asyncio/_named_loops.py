"""How the standard library's functions come to juggler's loops: by name, and by policy.

Programs name ``asyncio.EventLoop`` and ``asyncio.SelectorEventLoop`` to get the usual loop
(``loop_factory=asyncio.SelectorEventLoop``): they get juggler's. Who brings a selector, or derives
a class, counts on what is inside the standard library's loop (tests with a clock of their own do),
and gets that.
"""

from __future__ import annotations

import sys
from asyncio import events, unix_events

from juggler.asyncio._event_loop import EventLoop as _Native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["EventLoop", "SelectorEventLoop"]

_Stock: Any = unix_events._UnixSelectorEventLoop


class _Usual(type):
    """The type of `SelectorEventLoop`: what it makes, and who passes for an instance."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is SelectorEventLoop and not args and not kwargs:
            return _Native()
        return super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return issubclass(type(instance), cls)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if cls is SelectorEventLoop:
            return issubclass(subclass, _Stock)
        return super().__subclasscheck__(subclass)


class SelectorEventLoop(_Stock, metaclass=_Usual):  # type: ignore[misc]
    """An event loop of juggler's; with a selector, or as a base class, the standard library's."""


EventLoop = SelectorEventLoop


# Underscored since policies are deprecated (3.14): the public names warn.
StockPolicy: Any = unix_events._UnixDefaultEventLoopPolicy
get_policy: Callable[[], Any] = getattr(
    events, f"{'_' if sys.version_info >= (3, 14) else ''}get_event_loop_policy"
)


class EventLoopPolicy(StockPolicy):  # type: ignore[misc]
    """The policy by which the standard library's functions make juggler's event loops.

    For what takes a policy: ``asyncio.set_event_loop_policy(juggler.asyncio.EventLoopPolicy())``;
    `install` does that. Policies are deprecated since 3.14: rather use `Runner` or `run`.
    """

    _loop_factory = _Native
