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
