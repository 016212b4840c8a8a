"""Event loops: juggler's, and the standard library's, which passes what is no addition of ours."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from juggler.asyncio import EventLoop, new_event_loop


def closed(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop, however the test has left it."""
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(params=[asyncio.SelectorEventLoop, new_event_loop], ids=["stdlib", "juggler"])
def any_loop(
    request: pytest.FixtureRequest,
) -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of the standard library's, then one of ours."""
    make: Callable[[], asyncio.AbstractEventLoop] = request.param
    loop = make()
    yield loop
    closed(loop)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A loop of ours."""
    loop = new_event_loop()
    yield loop
    closed(loop)
