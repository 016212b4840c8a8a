"""`juggler.Pool`: workers, and what was measured, kept between calls."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from juggler import futures
from juggler._map import models, options
from juggler._map.choosing import Choice
from juggler._map.part import Awaited
from juggler._map.results import Results
from juggler._map.workers import Workers, cores

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from juggler._map import MapOptions
    from juggler._map.options import On

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Memory:
    """What was chosen for which function."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, tuple[int, Choice]] = (
            weakref.WeakKeyDictionary()
        )

    def find(self, function: Any, limit: int) -> Choice | None:
        """What was chosen for a function under this limit, if that was."""
        try:
            known = self._known.get(function)
        except TypeError:  # it can't be a key
            return None
        if known is None or known[0] != limit:
            return None
        found = known[1]
        why = found.why.removesuffix(", as measured before")
        return Choice(
            found.model,
            found.workers,
            f"{why}, as measured before",
            found.facts,
            found.predicted,
        )

    def keep(self, function: Any, choice: Choice, limit: int) -> None:
        """Remember a choice."""
        try:
            self._known[function] = limit, choice
        except TypeError:
            return


class Pool:
    """Workers for many maps and single calls.

    Threads, processes and the event loop are started when they are first needed and live until
    `shutdown`; what was measured of a function is remembered as long as the function lives.

    Args:
        on: what calls run on, as for `juggler.map`.
        limit: how many calls are made at once, for each function; by default 32 in threads and in
            the loop, and one a processor in processes.
    """

    def __init__(self, on: On | Executor = "auto", *, limit: int | None = None) -> None:
        options.check_model(on)
        if limit is not None:
            options.check_count("limit", limit)
        self._on = on
        self._limit = limit
        # Of coroutines; threads and processes are so many.
        self._gate = asyncio.Semaphore(limit) if limit else contextlib.nullcontext()
        self._workers = Workers()
        self._memory = Memory()

    def __repr__(self) -> str:
        state = ", shut down" if self._workers.closed else ""
        return f"<juggler.Pool on={self._on!r}{state}>"

    @overload
    def map(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["raise", "skip"] = ...,
        star: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> Results[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["return"],
        star: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> Results[R | Exception]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["raise", "skip"] = ...,
        star: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> Results[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], R],
        items: Iterable[T] | AsyncIterable[T],
        *,
        errors: Literal["return"],
        star: Literal[False] = ...,
        **options: Unpack[MapOptions],
    ) -> Results[R | Exception]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: Literal["raise", "skip"] = ...,
        star: Literal[True, "**"],
        **options: Unpack[MapOptions],
    ) -> Results[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: Literal["return"],
        star: Literal[True, "**"],
        **options: Unpack[MapOptions],
    ) -> Results[R | Exception]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: Literal["raise", "skip"] = ...,
        star: Literal[True, "**"],
        **options: Unpack[MapOptions],
    ) -> Results[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        errors: Literal["return"],
        star: Literal[True, "**"],
        **options: Unpack[MapOptions],
    ) -> Results[R | Exception]: ...
    def map(self, fn: Any, items: Any, **options: Any) -> Results[Any]:
        """As `juggler.map`, with this pool's workers.

        Args:
            fn: a function, or a coroutine function.
            items: its arguments.
            options: those of `juggler.map` but for ``on`` and ``limit``, which are the pool's.

        Returns:
            An iterator of the results. To close it leaves the pool as it is.
        """
        from juggler._map import map as map_on

        if not options.keys().isdisjoint({"on", "limit"}):
            raise TypeError("on and limit are the pool's: Pool(on, limit=...)")
        results: Results[Any] = map_on(fn, items, on=self, **options)
        return results

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[Any]:
        """Make one call; its future.

        With ``on="auto"`` a coroutine function goes to the loop, and a function that `map` has
        measured to what was chosen for it; what is not known goes to threads.
        """
        options.check_function(fn)
        self._workers.check()
        if not isinstance(self._on, str):
            return self._on.submit(fn, *args, **kwargs)
        is_async = options.is_coroutine_function(fn)
        model: str = self._on
        if model == "auto":
            known = self._memory.find(fn, self._limit or models.THREADS)
            model = "loop" if is_async else known.model if known else "threads"
        if model == "loop":
            if not is_async:
                raise TypeError(f"on='loop' needs a coroutine function, not {fn!r}")
            loop = self._workers.loop()
            return loop.call(self._gated(fn, *args, **kwargs))  # type: ignore[no-any-return]
        function = Awaited(fn) if is_async else fn
        if model == "processes":
            pool = self._workers.processes(self._limit or cores())
            return pool.submit(function, *args, **kwargs)
        width = 1 if model == "serial" else self._limit or models.THREADS
        threads: futures.ThreadPoolExecutor = self._workers.threads(width)
        return threads.submit(function, *args, **kwargs)

    async def _gated(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        async with self._gate:
            return await fn(*args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls.

        Args:
            wait: whether to wait until those that were taken have ended.
            cancel_futures: whether to cancel those that have not begun.
        """
        self._workers.close(wait=wait, cancel=cancel_futures)

    def terminate_workers(self) -> None:
        """Take no more calls, and end what has begun.

        Processes and coroutines are ended in the middle of their calls. A thread can't be: the
        program's end does not wait for those.
        """
        self._workers.close(wait=False, cancel=True, at_once=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = isinstance(error, KeyboardInterrupt)
        self._workers.close(wait=not interrupted, cancel=interrupted, at_once=interrupted)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.shutdown)
