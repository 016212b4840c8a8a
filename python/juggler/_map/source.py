"""The input of a map or a pipeline: pulled from without waiting.

What can't block is pulled where it is asked. Everything else is read by somebody else, as far ahead
as was asked: a plain iterable by a thread of its own, an asynchronous one in an event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from contextvars import copy_context
from time import clock_gettime_ns, pthread_getcpuclockid
from typing import Any

from juggler.threading import Event

_PLAIN: tuple[Any, ...] = ((), [], {}, set(), frozenset(), range(0), "", b"", bytearray(), deque())
_SWIFT = frozenset(
    kind
    for plain in (*_PLAIN, {}.keys(), {}.values(), {}.items(), itertools.count(), range(1 << 64))
    for kind in (type(plain), type(iter(plain)))
)
"""What gives its next item at once: no code of a program runs, and nothing is waited for."""
_BRIEF = 0.1
"""Seconds that an input has to come back in when it is closed, or else it counts as blocking."""
_END = object()


class Source:
    """What is pulled from in the thread that iterates.

    Attributes:
        ended: whether there is nothing more.
        error: what it raised.
        announce: called, by whatever thread, when there may be something to pull.
        pulled: how many items came.
    """

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items: Iterator[Any] = iter(items)
        self.ended = False
        self.error: BaseException | None = None
        self.announce: Callable[[], object] = _nothing
        self.pulled = 0

    def __iter__(self) -> Iterator[Any]:
        """What gives one item after the other; empty where somebody else reads."""
        return self._items

    def pull(self, most: int) -> list[Any]:
        """The next items, up to so many, that are here; it does not wait for more."""
        if self.ended:
            return []
        items: list[Any] = []
        try:
            items += itertools.islice(self._items, most)  # keeps what came before an error
        except Exception as error:
            self.error = error
        self.ended = len(items) < most
        self.pulled += len(items)
        return items

    def depth(self) -> int:
        """How many items are here."""
        return 0

    def processor_time(self) -> int:
        """Nanoseconds that another thread has computed for it."""
        return 0

    def end(self) -> None:
        """Take nothing more, and hand out what was taken; from any thread."""
        self.ended = True
        self.announce()

    def close(self) -> None:
        """Let go of it; from any thread."""
        self.ended = True
        self._items = iter(())
        self.announce()

    def join(self) -> None:
        """After `close`, wait until it is let go of, unless it blocks."""


class Reader(Source):
    """What somebody else reads, as far as it was asked for.

    Args:
        ahead: how many items to have here, beyond what was pulled; 0 is what is asked for.
        note: added to an error that it raises.
    """

    def __init__(self, ahead: int, note: str) -> None:
        super().__init__()
        self._note = note
        self._ahead = ahead
        self._came: deque[Any] = deque()
        # How many items were asked for, and how many came, in all.
        self._asked = 0
        self._read = 0
        self._ending = False
        # Whether the next item is to be announced: somebody found nothing here.
        self._hungry = False

    def pull(self, most: int) -> list[Any]:
        """The next items, up to so many, that are here; more are read meanwhile."""
        self._asked = max(self._asked, self.pulled + (self._ahead or most))
        if self._read < self._asked and not self._ending:
            self._go_on()
        items = self._take(most)
        if not items and not self.ended:
            self._hungry = True
            items = self._take(most)  # which came in between, and was not announced
        return items

    def _take(self, most: int) -> list[Any]:
        came = self._came
        items: list[Any] = []
        # Looked at first: who reads ends it after the last item, and so what is here is all.
        ending = self._ending
        while came and len(items) < most:
            items.append(came.popleft())
        self.pulled += len(items)
        if ending and not came and not items:
            self.ended = True
        return items

    def depth(self) -> int:
        """How many items are here."""
        return len(self._came)

    def end(self) -> None:
        """Take nothing more, and hand out what was taken; from any thread."""
        self._ending = True
        self._stop()
        self.announce()

    def close(self) -> None:
        """Let go of it; from any thread."""
        self._came.clear()
        self.ended = True
        self.end()

    def _add(self, item: Any) -> None:
        """An item came, to whoever reads."""
        self._read += 1
        self._came.append(item)
        if self._hungry:
            self._hungry = False
            self.announce()

    def _finish(self, error: BaseException | None = None) -> None:
        """It has ended, for whoever reads."""
        if error is not None and not self.ended:
            error.add_note(self._note)
            self.error = error
        self._ending = True
        self.announce()

    def _go_on(self) -> None:
        """Have it read until as many came as were asked for."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Have it read no more."""
        raise NotImplementedError


class ThreadReader(Reader):
    """What a thread of its own reads, from its first item to its end, in the context of now.

    It is let go of in that thread, too, if nobody else refers to it. A map or a pipeline is closed.

    Args:
        items: the input.
        name: of the thread.
        note: added to an error that it raises.
        ahead: how many items to have here, beyond what was pulled; 0 is what is asked for.
    """

    def __init__(self, items: Iterable[Any], name: str, note: str, ahead: int = 0) -> None:
        super().__init__(ahead, note)
        self._input = items
        # Those are the iterators that are both, and any thread may close them.
        self._close_input = (
            getattr(items, "close", None) if isinstance(items, AsyncIterable) else None
        )
        self._wanted = Event()
        # Whether it is not in the middle of a `next`, which may block for ever.
        self._free = Event()
        self._free.set()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name=name, daemon=True
        )

    def processor_time(self) -> int:
        """Nanoseconds that its thread has computed."""
        ident = self._thread.ident
        try:
            return clock_gettime_ns(pthread_getcpuclockid(ident)) if ident else 0
        except OSError:  # it has ended
            return 0

    def close(self) -> None:
        """Let go of it; from any thread."""
        super().close()
        close_input, self._close_input = self._close_input, None
        if close_input is not None:
            close_input()

    def join(self) -> None:
        """After `close`, wait until the thread has let go of the input, unless it blocks."""
        if self._thread.ident is not None and self._free.wait(_BRIEF):
            self._thread.join()

    def _go_on(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._wanted.set()

    def _stop(self) -> None:
        self._wanted.set()

    def _run(self) -> None:
        trouble: BaseException | None = None
        try:
            self._free.clear()
            iterator = iter(self._input)
            del self._input
            while not self._ending and self._read_on(iterator):
                self._free.set()
                self._wanted.wait()
                self._free.clear()
        except BaseException as error:
            trouble = error
        self._free.set()
        iterator = None  # type: ignore[assignment]
        self._finish(trouble)

    def _read_on(self, iterator: Iterator[Any]) -> bool:
        """Read what was asked for; whether there may be more."""
        self._wanted.clear()
        missing = self._asked - self._read
        for item in itertools.islice(iterator, missing):
            missing -= 1
            self._add(item)
            if self._ending:
                break
        return missing == 0


class AsyncReader(Reader):
    """What is read in an event loop.

    Args:
        items: the input.
        start: takes a coroutine to start in the loop, and returns what can cancel it.
        note: added to an error that it raises.
        ahead: how many items to have here, beyond what was pulled; 0 is what is asked for.
    """

    def __init__(
        self,
        items: AsyncIterable[Any],
        start: Callable[[Coroutine[Any, Any, None]], Any],
        note: str,
        ahead: int = 0,
    ) -> None:
        super().__init__(ahead, note)
        self._iterator = aiter(items)
        self._start = start
        self._reading = False
        self._task: Any = None

    def _go_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._task = self._start(self._run())

    def _stop(self) -> None:
        if isinstance(self._task, asyncio.Task):
            if not self._task.get_loop().is_closed():
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            while self._read < self._asked and not self._ending:
                self._add(await anext(self._iterator))
        except StopAsyncIteration:
            self._finish()
        except Exception as error:
            self._finish(error)
        finally:
            self._reading = False
            self.announce()  # more may have been asked for meanwhile


def is_swift(items: Any) -> bool:
    """Whether it gives each item at once, so that it can be pulled where it is asked."""
    return type(items) in _SWIFT


def _nothing() -> None:
    pass
