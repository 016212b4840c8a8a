"""The input of a map: pulled where it is iterated, or one item ahead in an event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from time import perf_counter
from typing import Any

SLOW = 0.001
"""A source whose last item took longer than this, in seconds, is asked only when it must be."""


class Source:
    """What is pulled from in the thread that iterates.

    Attributes:
        ended: whether there is nothing more.
        error: what it raised.
        slow: whether the last pull took long.
        announce: called, by whatever thread, when there may be something to pull.
        seconds: how long all pulls took.
        pulled: how many items came.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self._items: Iterator[Any] = iter(items)
        self.ended = False
        self.error: Exception | None = None
        self.slow = False
        self.seconds = 0.0
        self.pulled = 0
        self.announce: Callable[[], object] = _nothing

    @property
    def at_once(self) -> Iterator[Any] | None:
        """What gives one item after the other, if a pull never comes back without one."""
        return self._items

    def end(self) -> None:
        """Take nothing more; from any thread."""
        self.ended = True
        self.announce()

    def pull(self, most: int) -> list[Any]:
        """The next items, or fewer, or none."""
        if self.ended:
            return []
        items: list[Any] = []
        began = perf_counter()
        try:
            items += itertools.islice(self._items, most)  # keeps what came before an error
        except Exception as error:
            self.error = error
        took = perf_counter() - began
        self.seconds += took
        self.slow = took > SLOW
        self.ended = len(items) < most
        self.pulled += len(items)
        return items

    def close(self) -> None:
        """Let go of it."""
        self.ended = True
        self._items = iter(())


class AsyncSource(Source):
    """What is pulled from in an event loop: each time one item, which is announced.

    Args:
        items: the source.
        start: takes a coroutine to start in the loop, and returns what can cancel it.
    """

    def __init__(
        self, items: AsyncIterable[Any], start: Callable[[Coroutine[Any, Any, None]], Any]
    ) -> None:
        super().__init__(())
        self._source: AsyncIterator[Any] = aiter(items)
        self._start = start
        self._pulling = False
        self._pulls: Any = None
        self._came: list[Any] = []

    @property
    def at_once(self) -> None:
        """It comes back with what is there."""
        return

    def end(self) -> None:
        """Take nothing more; from any thread."""
        super().end()
        if isinstance(self._pulls, asyncio.Task):
            self._pulls.get_loop().call_soon_threadsafe(self._pulls.cancel)
        elif self._pulls is not None:
            self._pulls.cancel()

    def pull(self, most: int) -> list[Any]:
        """The item that has come, if one has; and ask for the next."""
        items, self._came = self._came, []
        self.pulled += len(items)
        if not self._pulling and not self.ended:
            self._pulling = True
            self._pulls = self._start(self._pull())
        return items

    def close(self) -> None:
        """Let go of it, and cancel the pull that goes on."""
        super().close()
        if self._pulling:
            self._pulls.cancel()

    async def _pull(self) -> None:
        try:
            item = await anext(self._source)
            self._came.append(item)
        except StopAsyncIteration:
            self.ended = True
        except Exception as error:
            self.error, self.ended = error, True
        finally:
            self._pulling = False
            self.announce()


def _nothing() -> None:
    pass
