"""What `juggler.map` returns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from juggler._map.flow import READY, WAIT, Flow

if TYPE_CHECKING:
    from juggler._map.choosing import Choice
    from juggler._map.options import Options
    from juggler._map.pool import Memory
    from juggler._map.workers import Workers

R_co = TypeVar("R_co", covariant=True)

_TICK = 0.5
"""Seconds between two looks at how far it is, while nothing arrives."""


class Results(Iterator[R_co], AsyncIterator[R_co], Generic[R_co]):
    """The results of a map: an iterator, for ``for`` or, in a coroutine, for ``async for``.

    It begins when the first result is asked for. It is closed by its last result, by an error, by
    `close`, at the end of ``with``, and when nothing refers to it any more: then what has not begun
    never does. One thread or task at a time may iterate; any may close it.

    Attributes:
        choice: what it runs on, and why; None before that is known.
    """

    def __init__(
        self, options: Options, resources: Workers, memory: Memory, owns: bool = True
    ) -> None:
        self._flow = Flow(options, resources, memory)
        self._steps = self._flow.steps()
        self._ready = self._flow.ready
        self._resources = resources
        self._owns = owns
        self._state = "new"
        self._arrived: asyncio.Event | None = None

    @property
    def choice(self) -> Choice | None:
        """What it runs on, and why."""
        return self._flow.choice

    @property
    def failures(self) -> int:
        """How many calls have failed so far, of those whose outcome was handed out or skipped."""
        return self._flow.failed

    @property
    def retries(self) -> int:
        """How many calls have been made again so far."""
        return self._flow.retries

    def __repr__(self) -> str:
        flow = self._flow
        choice = f" on {flow.choice.model}" if flow.choice else ""
        return f"<juggler.map{choice}: {self._state}, {flow.done} results>"

    # ------------------------------------------------------------ for

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> R_co:
        """The next result; waits for it without the GIL, and answers signals."""
        if self._ready:  # the short way: a result of a chunk costs no more than this
            try:
                value = self._ready.pop()
            except IndexError:  # closed by another thread at this moment
                raise StopIteration from None
            if self._flow.display is not None:
                self._flow.show()
            return value  # type: ignore[no-any-return]
        if self._state != "under way":
            self._begin(is_async=False)
        flow = self._flow
        try:
            while (value := next(self._steps)) is WAIT:
                self._wait()
                if flow.closed:  # by another thread
                    raise StopIteration
            if value is READY:
                value = self._first()
            if flow.display is not None:
                flow.show()
            return value  # type: ignore[no-any-return]
        except BaseException as error:
            if isinstance(error, ValueError) and self._steps.gi_running:  # type: ignore[attr-defined]
                # That is another thread's, for which it goes on.
                raise RuntimeError("this map is being iterated over by another thread") from None
            self._end(wait=False, at_once=isinstance(error, KeyboardInterrupt))
            raise

    def _first(self) -> R_co:
        """The first of the results that a step has made ready."""
        try:
            if not self._flow.closed:
                return self._ready.pop()  # type: ignore[no-any-return]
        except IndexError:
            pass
        self._ready.clear()  # closed by another thread, perhaps before they were put there
        raise StopIteration

    def _wait(self) -> None:
        flow = self._flow
        if flow.display is None:
            flow.inbox.wait(flow.patience)
        else:
            flow.inbox.wait(_TICK if flow.patience is None else flow.patience)
            flow.show()

    def __enter__(self) -> Self:
        """At the end close, and wait for the calls that had begun."""
        if self._state == "new":
            self._begin(is_async=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        self._end(wait=not interrupted, at_once=interrupted)

    def close(self) -> None:
        """Have nothing more begin. Calls that have begun in threads end by themselves."""
        self._end(wait=False)

    # ------------------------------------------------------------ async for

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R_co:
        """The next result; suspends the task until it is there."""
        if self._state != "under way":
            try:
                self._begin(is_async=True)
            except StopIteration:
                raise StopAsyncIteration from None
        if self._arrived is None:
            raise RuntimeError(
                "this map was begun by `for` or `with`: it can't go on by `async for`"
            )
        flow = self._flow
        try:
            value: Any = READY
            while not self._ready and (value := next(self._steps)) is WAIT:
                await self._wait_async(self._arrived)
                if flow.closed:
                    raise StopIteration
            if value is READY:
                value = self._first()
            if flow.display is not None:
                flow.show()
            return value  # type: ignore[no-any-return]
        except StopIteration:
            self._end(wait=False)
            raise StopAsyncIteration from None
        except BaseException:
            self._end(wait=False)
            raise

    async def _wait_async(self, arrived: asyncio.Event) -> None:
        flow = self._flow
        patience = flow.patience
        if flow.display is not None:
            patience = min(_TICK, patience or _TICK)
        if patience is None:
            await arrived.wait()
        else:
            began = perf_counter()
            loop = asyncio.get_running_loop()
            alarm = loop.call_at(loop.time() + patience, arrived.set)
            try:
                await arrived.wait()
            finally:
                alarm.cancel()
            if flow.display is not None and perf_counter() - began >= patience:
                flow.show()
        arrived.clear()

    async def __aenter__(self) -> Self:
        """At the end close, and wait for the calls that had begun."""
        if self._state == "new":
            self._begin(is_async=True)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Have nothing more begin, and wait for what had begun."""
        self._end(wait=False)
        await self._flow.ended()
        if self._owns:
            await asyncio.to_thread(self._resources.close, wait=True)

    # ------------------------------------------------------------ begin and end

    def _begin(self, is_async: bool) -> None:
        if self._state == "closed":
            raise StopIteration
        flow = self._flow
        if is_async:
            loop = asyncio.get_running_loop()
            arrived = self._arrived = asyncio.Event()
            flow.inbox.bell = lambda: loop.call_soon_threadsafe(arrived.set)
        if flow.options.progress is not False:
            from juggler._progress import open_display

            flow.display = open_display(flow.options.progress)
        flow.start(is_async)
        self._state = "under way"

    def _end(self, wait: bool, at_once: bool = False) -> None:
        if self._state != "closed":
            self._state = "closed"
            self._flow.close()
            with contextlib.suppress(ValueError):  # it runs in another thread, which will see it
                self._steps.close()  # type: ignore[attr-defined]
            if self._owns:
                self._resources.close(wait=False, cancel=True, at_once=at_once)
        if wait and self._owns:
            self._resources.close(wait=True)

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") == "under way":
            self._end(wait=False)
