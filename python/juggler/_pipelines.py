"""Pipelines: stages on different models, joined by bounded queues."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from functools import update_wrapper
from queue import Empty
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, Unpack, overload

from juggler._map import CallOptions, Pool, Results, map
from juggler._map.flow import Inbox, noted
from juggler._map.models import LoopThread
from juggler._map.options import On, check_count, check_function, is_iterable
from juggler._map.source import AsyncReader, Source, ThreadReader, is_swift
from juggler._progress import Progress, open_display
from juggler._works import dismiss, enroll
from juggler.queue import Queue, ShutDown

if TYPE_CHECKING:
    from juggler._progress import Display, Setting

__all__ = ["Pipeline", "StageReport", "Stream", "pipeline"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

BUFFER = 32
"""How many items wait between two stages at most."""
_TICK = 0.5
"""Seconds between two looks at how far it is, while nothing arrives."""


class StageOptions(CallOptions, total=False):
    """What a stage that makes calls takes as `juggler.map` does."""

    on: On | Executor | Pool
    limit: int | None
    errors: Literal["raise", "return", "skip"]
    star: Literal[False, True, "**"]


class Pipeline(Generic[T_co]):
    """Stages that items go through, many at once in each; made by `pipeline`.

    It is a value: each method returns a new one, with one stage more, and `stream` and `run` may be
    called again if the source can be iterated again.
    """

    def __init__(self, source: Iterable[Any] | AsyncIterable[Any], stages: tuple[Any, ...]) -> None:
        self._source = source
        self._stages = stages

    def __repr__(self) -> str:
        return f"<juggler.pipeline: {' -> '.join(stage.name for stage in self._stages)}>"

    def _then(self, stage: _Stage) -> Pipeline[Any]:
        return Pipeline(self._source, (*self._stages, stage))

    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        *,
        name: str | None = ...,
        **options: Unpack[StageOptions],
    ) -> Pipeline[R]: ...
    @overload
    def map(
        self, fn: Callable[..., R], *, name: str | None = ..., **options: Unpack[StageOptions]
    ) -> Pipeline[R]: ...
    def map(
        self, fn: Callable[..., Any], *, name: str | None = None, **options: Any
    ) -> Pipeline[Any]:
        """Call a function with each item, and go on with the results.

        Args:
            fn: a function or a coroutine function.
            name: for errors and the progress; by default the function's.
            options: as for `juggler.map`: ``on``, ``limit``, ``ordered``, ``errors``, ``star``,
                ``chunk``, ``rate``, ``retries``, ``timeout``, ``deadline``, ``policy``.
        """
        return self._then(_Calls(fn, name, options))

    def filter(
        self,
        fn: Callable[..., Any],
        *,
        name: str | None = None,
        **options: Unpack[StageOptions],
    ) -> Pipeline[T_co]:
        """Go on with the items for which a function, or a coroutine function, says something true.

        Args:
            fn: what is asked.
            name: for errors and the progress; by default the function's.
            options: as for `map`.
        """
        check_function(fn)
        return self._then(_Calls(_filter(fn), name, dict(options)))

    def flat_map(
        self,
        fn: Callable[..., Iterable[R]],
        *,
        name: str | None = None,
        **options: Unpack[StageOptions],
    ) -> Pipeline[R]:
        """Call a function with each item, and go on with everything in what it returns.

        Args:
            fn: a function that returns something iterable, which is iterated in a thread of the
                pipeline.
            name: for errors and the progress; by default the function's.
            options: as for `map`.
        """
        return self._then(_Calls(fn, name, dict(options), spread=True))

    def batch(self, size: int, *, within: float | None = None) -> Pipeline[list[T_co]]:
        """Go on with lists of items.

        Args:
            size: how many make a list; the last one may be shorter.
            within: seconds after which a list that has an item goes on as it is; None waits for
                `size` items, or the end.

        Raises:
            ValueError: `size` is below 1, or `within` not above 0.
        """
        check_count("size", size)
        if within is not None and not within > 0:
            raise ValueError(f"within must be a number of seconds above 0, not {within!r}")
        return self._then(_Batches(size, within))

    def stream(self, *, buffer: int = BUFFER, progress: Setting = False) -> Stream[T_co]:
        """Begin, and iterate over what comes out of the last stage.

        Args:
            buffer: how many items wait before each stage at most.
            progress: as for `juggler.map`, with a row for each stage.

        Returns:
            An iterator, which is an asynchronous one and a context manager, too.
        """
        check_count("buffer", buffer)
        return Stream(self._source, self._stages, buffer, progress)

    def run(self, *, buffer: int = BUFFER, progress: Setting = False) -> list[StageReport]:
        """Go through all the items, for what the stages do with them; nothing is kept.

        Args:
            buffer: as for `stream`.
            progress: as for `stream`.

        Returns:
            What each stage did.
        """
        with self.stream(buffer=buffer, progress=progress) as stream:
            for _ in stream:
                pass
            return stream.reports()


def pipeline(source: Iterable[T] | AsyncIterable[T]) -> Pipeline[T]:
    """Begin a pipeline: stages on different models, joined by bounded queues.

    ::

        counts = (
            juggler.pipeline(urls)
            .map(fetch, on="loop", limit=50, rate="20/s")
            .batch(100)
            .map(parse, on="processes")
            .stream()
        )

    Each stage works in a thread of its own that hands items to its model and the results to the
    next stage. Between two stages wait at most ``buffer`` items: a slow stage slows down the
    ones before it, down to the source, which may be endless. Stages keep the order unless
    ``ordered=False``. When the source ends, the stages end one after the other, each when its last
    result has gone on.

    An error that a stage or the source raises comes out of the end, after what was before it, with
    a note which stage and item it was; then everything ends. `close`, Ctrl-C and ``break`` end all
    stages: what has not begun never does.

    Blocking: building one blocks nothing. A source that may block is iterated in a thread of the
    pipeline, which nobody can take out of a ``next`` that blocks; an asynchronous one in a loop in
    a thread. Fork: a child has none of the threads: begin a pipeline in the process that uses it.
    The standard library has no counterpart.

    Args:
        source: an iterable or an asynchronous one.

    Raises:
        TypeError: `source` is neither.
    """
    if not is_iterable(source):
        raise TypeError(f"source must be iterable, or asynchronously so, not {source!r}")
    return Pipeline(source, ())


@dataclass(frozen=True, slots=True)
class StageReport:
    """What a stage did.

    Attributes:
        name: the stage's.
        model: what it ran on, and why.
        done: how many items it has handed on.
        failed: how many calls failed.
        retried: how many were made again.
        seconds: from the beginning of the pipeline to the stage's end, or until now.
    """

    name: str
    model: str
    done: int
    failed: int
    retried: int
    seconds: float


# ---------------------------------------------------------------- between the stages


class Joint(Source):
    """What waits between two stages: one thread puts in, another pulls out."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._queue: Queue[Any] = Queue(most)

    def put(self, item: Any) -> None:
        """Put an item in; waits for a place. Raises ShutDown if nobody wants any more."""
        self._queue.put(item)
        self.announce()

    def finish(self, error: BaseException | None = None) -> None:
        """There is nothing more, perhaps because of an error, which comes after what is here."""
        self.error = error
        self.end()

    def pull(self, most: int) -> list[Any]:
        """Up to so many items that are here."""
        items: list[Any] = []
        try:
            while len(items) < most:
                items.append(self._queue.get_nowait())
        except Empty:
            pass
        except ShutDown:
            self.ended = True
        self.pulled += len(items)
        return items

    def end(self) -> None:
        """Nothing more comes in; what is here goes on."""
        self._queue.shutdown()
        self.announce()

    def depth(self) -> int:
        """How many items are here."""
        return self._queue.qsize()

    def close(self) -> None:
        """Nobody wants any more."""
        self._queue.shutdown(immediate=True)
        super().close()


class _Dropped(Enum):
    """What takes the place of an item that a filter drops, between processes too."""

    DROPPED = "dropped"


def _filter(fn: Callable[..., Any]) -> Callable[..., Any]:
    return _AsyncFilter(fn) if inspect.iscoroutinefunction(fn) else _Filter(fn)


class _Filter:
    """Returns its argument if the function says something true."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        update_wrapper(self, fn, updated=())

    def __call__(self, item: Any) -> Any:
        return item if self._fn(item) else _Dropped.DROPPED


class _AsyncFilter(_Filter):
    async def __call__(self, item: Any) -> Any:
        return item if await self._fn(item) else _Dropped.DROPPED


# ---------------------------------------------------------------- stages


class _Stage:
    """A stage as it was asked for."""

    name: str

    def start(self, before: Source) -> _Work:
        """What does it, with what comes."""
        raise NotImplementedError


class _Work:
    """A stage under way, in its thread: iterates over what it hands on."""

    failed = retried = 0
    model = "a thread of the pipeline"

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def close(self) -> None:
        """Have nothing more begin, and end; from any thread."""


class _Calls(_Stage):
    def __init__(
        self,
        fn: Callable[..., Any],
        name: str | None,
        options: dict[str, Any],
        spread: bool = False,
    ) -> None:
        for misplaced in {"buffer", "progress"} & options.keys():
            raise TypeError(f"{misplaced} is no option of a stage but of run() and stream()")
        # Whatever else is wrong is said here, too, where the options are written.
        map(fn, (), **options).close()
        self.name = name or getattr(fn, "__qualname__", None) or type(fn).__qualname__
        self._fn = fn
        self._options = options
        self._spread = spread

    def start(self, before: Source) -> _Work:
        return _CallsWork(map(self._fn, before, **self._options), self._spread)


class _CallsWork(_Work):
    def __init__(self, results: Results[Any], spread: bool) -> None:
        self._results = results
        self._spread = spread

    @property
    def failed(self) -> int:  # type: ignore[override]
        return self._results.failures

    @property
    def retried(self) -> int:  # type: ignore[override]
        return self._results.retries

    @property
    def model(self) -> str:  # type: ignore[override]
        return str(self._results.choice or "")

    def close(self) -> None:
        self._results.close()

    def __iter__(self) -> Iterator[Any]:
        with self._results as results:
            for result in results:
                if result is _Dropped.DROPPED:
                    continue
                if self._spread:
                    yield from self._all(result)
                else:
                    yield result

    def _all(self, result: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from result
        except Exception as error:
            if (number := self._results._flow.number) is not None:
                noted(error, number)
            raise


class _Batches(_Stage):
    def __init__(self, size: int, within: float | None) -> None:
        self.name = f"batch({size})"
        self._size = size
        self._within = within

    def start(self, before: Source) -> _Work:
        return _BatchesWork(before, self._size, self._within)


class _BatchesWork(_Work):
    def __init__(self, before: Source, size: int, within: float | None) -> None:
        self._before = before
        self._size = size
        self._within = within

    def close(self) -> None:
        self._before.close()

    def __iter__(self) -> Iterator[Any]:
        before, inbox = self._before, Inbox()
        before.announce = inbox.put
        items: list[Any] = []
        end = None
        while True:
            came = before.pull(self._size - len(items))
            if came and not items and self._within is not None:
                end = monotonic() + self._within
            items += came
            if len(items) == self._size or (end is not None and monotonic() >= end):
                yield items
                items, end = [], None
            elif before.ended:
                break
            elif not inbox.take():
                inbox.wait(None if end is None else max(0.0, end - monotonic()))
        if items:
            yield items
        if before.error is not None:
            raise before.error


# ---------------------------------------------------------------- under way


class _Pump:
    """A stage's thread: from its work to the next joint."""

    def __init__(self, name: str, work: _Work, before: Source, after: Joint) -> None:
        self.name, self.work, self.before, self.after = name, work, before, after
        self.done = 0
        self.ended: float | None = None

    def run(self) -> None:
        """Until the end, or an error, which goes on as one."""
        trouble: BaseException | None = None
        try:
            for result in self.work:
                self.done += 1
                self.after.put(result)
        except ShutDown:
            pass  # nobody wants any more
        except BaseException as error:
            trouble = error
            if error is not self.before.error:
                error.add_note(f"juggler.pipeline: stage {self.name!r}")
        finally:
            self.ended = monotonic()
            self.before.close()
            self.after.finish(trouble)


class Stream(Iterator[T_co], AsyncIterator[T_co], Generic[T_co]):
    """What comes out of a pipeline: for ``for`` or, in a coroutine, for ``async for``.

    It begins with the first item that is asked for, or with ``with``. It is closed by its last
    item, by an error, by `close`, at the end of ``with``, and when nothing refers to it any more.
    One thread or task at a time may iterate.
    """

    def __init__(
        self,
        source: Iterable[Any] | AsyncIterable[Any],
        stages: tuple[_Stage, ...],
        buffer: int,
        progress: Setting,
    ) -> None:
        self._under_way = _UnderWay(source, stages, buffer)
        self._progress = progress
        self._display: Display | None = None
        self._state = "new"
        self._came: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<juggler.pipeline: {self._state}>"

    def reports(self) -> list[StageReport]:
        """What each stage has done so far."""
        return self._under_way.reports()

    # ------------------------------------------------------------ for

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T_co:
        """The next item; waits for it without the GIL, and answers signals."""
        self._begin(StopIteration())
        inbox = self._under_way.inbox
        try:
            while not (items := self._pull(StopIteration())):
                inbox.wait(None if self._display is None else _TICK)
            return items[0]  # type: ignore[no-any-return]
        except StopIteration:
            self.close()
            self._under_way.join()
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        self._begin(RuntimeError("this pipeline was closed"))
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()
        if not isinstance(error, KeyboardInterrupt):
            self._under_way.join()

    def close(self) -> None:
        """Have nothing more begin. Calls that have begun in threads end by themselves."""
        if self._state != "closed":
            self._state = "closed"
            self._under_way.close()
            if self._display is not None:
                self._show(last=True)
                self._display.close()

    def __del__(self) -> None:
        if getattr(self, "_state", "closed") == "under way":
            self.close()

    # ------------------------------------------------------------ async for

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T_co:
        """The next item; suspends the task until it is there."""
        self._begin(StopAsyncIteration())
        if self._came is None:
            loop = asyncio.get_running_loop()
            came = self._came = asyncio.Event()
            self._under_way.inbox.bell = lambda: loop.call_soon_threadsafe(came.set)
        try:
            while not (items := self._pull(StopAsyncIteration())):
                try:
                    async with asyncio.timeout(None if self._display is None else _TICK):
                        await self._came.wait()
                except TimeoutError:
                    continue
                self._came.clear()
            return items[0]  # type: ignore[no-any-return]
        except BaseException:
            self.close()
            raise

    async def __aenter__(self) -> Self:
        self._begin(RuntimeError("this pipeline was closed"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await asyncio.to_thread(self._under_way.join)

    # ------------------------------------------------------------ both

    def _begin(self, closed: Exception) -> None:
        if self._state == "closed":
            raise closed
        if self._state == "new":
            self._state = "under way"
            self._display = open_display(self._progress)
            self._under_way.start()

    def _pull(self, end: Exception) -> list[Any]:
        last = self._under_way.joints[-1]
        self._under_way.inbox.take()
        items = last.pull(1)
        if self._display is not None:
            self._show()
        if not items and last.ended:
            raise last.error or end
        return items

    def _show(self, last: bool = False) -> None:
        assert self._display is not None
        self._display.show(*self._under_way.progress(last))


class _UnderWay:
    """The threads and joints of a stream, which do not refer to it: it is closed when dropped."""

    def __init__(
        self, source: Iterable[Any] | AsyncIterable[Any], stages: tuple[_Stage, ...], buffer: int
    ) -> None:
        self.inbox = Inbox()
        self._loop: LoopThread | None = None
        ends = [Joint(buffer) for _ in stages]
        self.joints: list[Source] = [self._read(source, buffer), *ends]
        self.joints[-1].announce = self.inbox.put
        self._began = 0.0
        self._pumps = [
            _Pump(stage.name, stage.start(before), before, after)
            for stage, before, after in zip(stages, self.joints, ends, strict=False)
        ]
        self._threads: list[threading.Thread] = []

    def _read(self, source: Iterable[Any] | AsyncIterable[Any], buffer: int) -> Source:
        note = "juggler.pipeline: the source"
        if isinstance(source, AsyncIterable) and not isinstance(source, Iterable):
            return AsyncReader(source, self._start_in_loop, note, ahead=buffer)
        if is_swift(source):
            return Source(source)
        return ThreadReader(source, "juggler-pipeline-source", note, ahead=buffer)

    def _start_in_loop(self, coroutine: Coroutine[Any, Any, None]) -> Any:
        if self._loop is None:
            self._loop = LoopThread("juggler-pipeline-source")
        return self._loop.start(coroutine)

    def start(self) -> None:
        self._began = monotonic()
        enroll(self)
        self.joints[0].pull(0)  # reading begins
        for pump in self._pumps:
            name = f"juggler-pipeline-{pump.name}"
            thread = threading.Thread(target=pump.run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def end_intake(self) -> None:
        """Take no more from the source, and finish what was taken."""
        self.joints[0].end()

    def close(self, at_once: bool = False) -> None:
        """Have nothing more begin."""
        for pump in self._pumps:
            pump.work.close()
        for joint in self.joints:
            joint.close()
        if self._loop is not None:
            self._loop.close(wait=False)
        dismiss(self)

    def join(self) -> None:
        """Wait until the stages have ended; not for a source that nobody can interrupt."""
        for thread in self._threads:
            thread.join()
        self.joints[0].join()
        if self._loop is not None:
            self._loop.close(wait=True)

    def reports(self) -> list[StageReport]:
        return [
            StageReport(
                name=pump.name,
                model=pump.work.model,
                done=pump.done,
                failed=pump.work.failed,
                retried=pump.work.retried,
                seconds=(pump.ended or monotonic()) - self._began,
            )
            for pump in self._pumps
        ]

    def progress(self, last: bool) -> list[Progress]:
        return [
            Progress(
                name=report.name,
                done=report.done,
                failed=report.failed,
                retried=report.retried,
                under_way=pump.before.depth(),
                seconds=report.seconds,
                note=report.model,
                last=last,
            )
            for report, pump in zip(self.reports(), self._pumps, strict=True)
        ]
