"""CPython's tests of event loops, which are mixins, with the loops of the package under test."""

from __future__ import annotations

import importlib
import unittest
from types import ModuleType
from typing import Any

TestClass = type[unittest.TestCase]

# A module of test.test_asyncio -> its mixins, all of which go into one class.
MIXINS = {
    "test_buffered_proto": ("BaseTestBufferedProtocol",),
    "test_events": ("EventLoopTestsMixin", "SubprocessTestsMixin"),
    "test_sendfile": ("SendfileTestsBase",),
    "test_server": ("BaseStartServer",),
    "test_sock_lowlevel": ("BaseSockTestsMixin",),
    "test_sslproto": ("BaseStartTLS",),
}

NEEDS = tuple(f"test.test_asyncio.{module}" for module in MIXINS)


# Modules that judge loops by classes of their own, beside those mixins.
PARTS = ("events", "sendfile", "server", "subprocess", "unix_events")

# The same tests as of `EPollEventLoopTests`; which selector is ours to choose.
SAME = {"SelectEventLoopTests", "PollEventLoopTests"}


def part(name: str, asyncio: ModuleType) -> list[TestClass]:
    """The classes of one of the `PARTS`; those that make a loop get one by `new_event_loop`."""
    module: Any = importlib.import_module(f"test.test_asyncio.test_{name}")
    if name == "events":  # whose tests make handles, as else only a loop does
        module.asyncio.Handle, module.asyncio.TimerHandle = asyncio.Handle, asyncio.TimerHandle
    covered = getattr(module, "EventLoopTestsMixin", ())
    classes = []
    for cls in vars(module).values():
        if not (isinstance(cls, type) and issubclass(cls, unittest.TestCase)):
            continue
        if cls.__module__ != module.__name__ or cls.__name__ in SAME or issubclass(cls, covered):
            continue
        if makers := [maker for maker in ("create_event_loop", "new_loop") if hasattr(cls, maker)]:
            own = {maker: lambda self: asyncio.new_event_loop() for maker in makers}
            cls = type(cls.__name__, (cls,), {"__module__": module.__name__, **own})
        classes.append(cls)
    return classes


def event_loop(asyncio: ModuleType) -> list[TestClass]:
    """The mixins' tests, with loops that `asyncio.new_event_loop` makes."""

    class Made:
        def create_event_loop(self) -> Any:
            return asyncio.new_event_loop()

        new_loop = create_event_loop

    utils: Any = importlib.import_module("test.test_asyncio.utils")
    classes = []
    for name, mixins in MIXINS.items():
        module = importlib.import_module(f"test.test_asyncio.{name}")
        bases = (Made, *(getattr(module, mixin) for mixin in mixins), utils.TestCase)
        classes.append(type("EventLoop", bases, {"__module__": module.__name__}))
    return classes
