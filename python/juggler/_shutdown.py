"""The orderly end of a program: stop taking work in, finish what runs, cancel what does not end."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import signal
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, Protocol, TypeVar, overload

from juggler import _works, threading

__all__ = ["shutdown"]

T = TypeVar("T")

_log = logging.getLogger("juggler.shutdown")
_CANCELLED = 1.0
"""Seconds for a pool to end after it was cancelled."""


class _Pool(Protocol):
    """An executor, or a `juggler.Pool`."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class shutdown:  # noqa: N801 - used like a function, as contextlib's and asyncio's are
    """Ends the block in order when the program is told to end.

    ::

        with juggler.shutdown(grace=10) as stop:
            pool = stop.add(futures.ThreadPoolExecutor())
            for job in stop.intake(jobs()):
                pool.submit(work, job)

        async with juggler.shutdown(grace=10) as stop:
            stop.add(await asyncio.start_server(serve, port=8000))
            await stop.wait_async()

    The first SIGINT or SIGTERM (or `request`), in this order:

    1. stops what comes in: `intake` ends, servers close, the input of every `juggler.map` and
       pipeline ends; `is_requested` is true and `wait` returns;
    2. lets what is in flight finish: the block's own code, then the tasks that were added, then the
       pools, those added last first, for all together at most `grace` seconds;
    3. cancels what is left: the tasks, in ``async with`` the block's own, too, then the pools: what
       is queued is cancelled and processes are terminated. A thread can't be ended by another: what
       runs in one is named in the log and not waited for.

    A second signal ends the program at once, as if nobody handled the signal.

    What was added is closed when the block ends, whether or not the program was told to end. After
    the block the program goes on: `signal` says which signal it was, `expired` whether anything
    had to be cancelled.

    Blocking: entering does not block; leaving waits for what was added. Signals: those named are
    handled from entering to leaving and then by whoever handled them before; to enter is possible
    in the main thread only, as `signal.signal` is. Fork: in a child the signals do what they do
    where nobody handles them. The standard library has no counterpart.

    Args:
        grace: Seconds for what is in flight when the program is told to end.
        signals: Those that tell it.

    Raises:
        ValueError: If `grace` is negative or not a number; on entering, if this is not the main
            thread.
        RuntimeError: On entering, if it was entered before.
    """

    def __init__(
        self,
        grace: float = 30.0,
        *,
        signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM),
    ) -> None:
        if not grace >= 0:
            raise ValueError(f"grace must be a number of seconds, not {grace!r}")
        self.grace = grace
        self.signal: signal.Signals | None = None
        self.expired = False
        self._signals = tuple(signals)
        self._before: dict[int, Any] = {}
        self._pid = 0
        self._requested = threading.Event()
        self._deadline: float | None = None
        self._steps: queue.SimpleQueue[bool] = queue.SimpleQueue()  # put is safe in a handler
        self._supervisor = threading.Thread(
            target=self._supervise, name="juggler-shutdown", daemon=True
        )
        self._intakes: list[Callable[[], object]] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._pools: list[_Pool] = []
        self._closing = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._body: asyncio.Task[Any] | None = None
        self._body_cancelled = False

    # ---------------------------------------------------------------- what a program asks

    @property
    def is_requested(self) -> bool:
        """Whether the program was told to end."""
        return self._requested.is_set()

    def remaining(self) -> float:
        """Seconds that are left of the grace; infinite before the program is told to end."""
        if self._deadline is None:
            return float("inf")
        return max(0.0, self._deadline - time.monotonic())

    def request(self) -> None:
        """Tell the program to end, as the first signal does; later calls do nothing."""
        if not self._requested.is_set():
            self._deadline = time.monotonic() + self.grace
            self._requested.set()
            _works.end_intake()
            self._steps.put(True)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the program is told to end, or for `timeout` seconds; whether it was."""
        return self._requested.wait(timeout)

    async def wait_async(self) -> None:
        """Suspend the task until the program is told to end."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        self._on_request(lambda: loop.call_soon_threadsafe(tell))
        await told

    @overload
    def intake(self, items: AsyncIterable[T]) -> AsyncIterator[T]: ...
    @overload
    def intake(self, items: Iterable[T]) -> Iterator[T]: ...
    def intake(self, items: Any) -> Any:
        """The items until the program is told to end.

        An asynchronous one ends at once, in the midst of waiting for an item; a plain one before
        the next item, for nobody can take a thread out of a ``next`` that blocks.
        """
        if hasattr(items, "__aiter__"):
            return self._intake_async(items)
        return self._intake(items)

    def _intake(self, items: Iterable[T]) -> Iterator[T]:
        iterator = iter(items)
        while not self._requested.is_set():
            try:
                item = next(iterator)
            except StopIteration:
                return
            yield item

    async def _intake_async(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        iterator = aiter(items)
        told = asyncio.ensure_future(self.wait_async())
        try:
            while not self._requested.is_set():
                item = asyncio.ensure_future(anext(iterator))
                await asyncio.wait((item, told), return_when=asyncio.FIRST_COMPLETED)
                if not item.done():
                    item.cancel()
                    await asyncio.wait((item,))
                if item.cancelled():
                    return
                try:
                    value = item.result()
                except StopAsyncIteration:
                    return
                yield value
        finally:
            told.cancel()

    def add(self, what: T, /) -> T:
        """Have something ended with the program, and get it back.

        Args:
            what: An executor, a `juggler.Pool`, a task or future of asyncio, a server of asyncio,
                or a function, which is called without arguments, in a thread of its own, when the
                program is told to end.

        Raises:
            TypeError: If it is anything else.
        """
        if all(callable(getattr(what, name, None)) for name in ("submit", "shutdown")):
            self._pools.append(what)  # type: ignore[arg-type]
        elif isinstance(what, asyncio.Future):
            self._tasks.add(what)
            what.add_done_callback(self._tasks.discard)
            if self.expired:
                what.cancel()
        elif isinstance(what, asyncio.AbstractServer):
            self._servers.append(what)
            self._on_request(self._in_loop(what.close))
        elif callable(what):
            self._on_request(what)
        else:
            raise TypeError(
                "what can be ended is an executor, a pool, a task, a server or a function, not "
                f"{type(what).__name__!r}"
            )
        return what

    # ---------------------------------------------------------------- entering and leaving

    def __enter__(self) -> shutdown:
        if self._before:
            raise RuntimeError("a shutdown can be entered once")
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("juggler.shutdown handles signals, so only in the main thread")
        self._pid = os.getpid()
        for number in self._signals:
            self._before[number] = signal.signal(number, self._handle)
        self._supervisor.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        try:
            self._close_pools()
        finally:
            self._leave()

    async def __aenter__(self) -> shutdown:
        self._loop = asyncio.get_running_loop()
        self._body = asyncio.current_task()
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        body, self._body = self._body, None
        ours = self._body_cancelled and kind is asyncio.CancelledError
        if body is not None and self._body_cancelled:
            body.uncancel()
        try:
            for server in self._servers:
                server.close()
            while tasks := set(self._tasks):
                await asyncio.wait(tasks)  # in the end, the supervisor cancels them
            await asyncio.get_running_loop().run_in_executor(None, self._close_pools)
        finally:
            self._leave()
        return ours

    def _leave(self) -> None:
        self._steps.put(False)
        self._supervisor.join()
        _works.resume_intake()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    # ---------------------------------------------------------------- the steps

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested.is_set() or os.getpid() != self._pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        self.request()

    def _on_request(self, call: Callable[[], object]) -> None:
        self._intakes.append(call)
        if self._requested.is_set():
            self._steps.put(True)

    def _supervise(self) -> None:
        """Take the steps, in a thread of their own: a handler must not, and the block may wait."""
        going = self._steps.get()
        if going:
            name = self.signal.name if self.signal else "asked to end"
            _log.info("%s: nothing more is taken in; up to %g s for what runs", name, self.grace)
        while going:
            self._stop_intake()
            try:
                going = self._steps.get(timeout=None if self.expired else self.remaining())
            except queue.Empty:
                self._expire()

    def _stop_intake(self) -> None:
        while self._intakes:
            call = self._intakes.pop(0)
            try:
                call()
            except Exception:
                _log.exception("%r failed while the program was told to end", call)

    def _expire(self) -> None:
        self.expired = True
        if self._loop is not None:
            self._in_loop(self._cancel_tasks)()
        for work in _works.under_way():
            work.close()
        for pool in reversed(self._pools):
            pool.shutdown(wait=False, cancel_futures=True)
            if (terminate := getattr(pool, "terminate_workers", None)) is not None:
                terminate()
        self._closing.set()

    def _in_loop(self, call: Callable[[], object]) -> Callable[[], object]:
        loop = self._loop or asyncio.get_running_loop()

        def send() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(call)

        return send

    def _cancel_tasks(self) -> None:
        if self._body is not None:
            self._body_cancelled = True
            self._body.cancel()
        for task in set(self._tasks):
            task.cancel()

    def _close_pools(self) -> None:
        """Close the pools and wait until they are closed, but no longer than there is grace."""
        for pool in reversed(self._pools):
            closed = self._closing = threading.Event()
            if self.expired:
                closed.set()
            closer = threading.Thread(
                target=_close, args=(pool, closed), name="juggler-shutdown", daemon=True
            )
            closer.start()
            closed.wait()
            closer.join(_CANCELLED)
            if closer.is_alive():
                _log.warning("%r still runs calls in threads, which nothing can end", pool)


def _close(pool: _Pool, closed: threading.Event) -> None:
    try:
        pool.shutdown()
    finally:
        closed.set()
