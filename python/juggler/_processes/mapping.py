"""`ProcessPoolExecutor.map`: calls in chunks, as large as the calls are short."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from juggler import _juggler
from juggler._processes import exceptions, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from juggler._processes.executor import ProcessPoolExecutor

_AIM = 4_000_000
"""How long a chunk should take, in nanoseconds: what handing it over costs is nothing to that."""

_LARGEST = 16_384


def start(
    pool: ProcessPoolExecutor,
    submit: Callable[..., Any],
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    ordered: bool,
) -> Iterator[Any]:
    """Submit what is to be submitted at once, and return the iterator of the results."""
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None:
        if not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
    end = None if timeout is None else time.monotonic() + timeout
    if (
        (chunksize, buffersize, ordered) == (1, None, True)
        and submit == pool.submit
        and type(pool).submit is _juggler.ProcessPool.submit
        # Nothing that takes time to bring the next item.
        and all(type(items) in (list, tuple, range) for items in iterables)
    ):
        return _one_by_one(pool, function, iterables, end)
    results = Results(pool, submit, function, iterables, chunksize, buffersize, ordered)
    try:
        results.fill()
    except BaseException:
        results.stop()
        raise
    return results.iterate(end)


def _one_by_one(
    pool: ProcessPoolExecutor,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    end: float | None,
) -> Iterator[Any]:
    """As `start`, with each call by itself."""
    star = len(iterables) != 1
    items = zip(*iterables, strict=False) if star else iter(iterables[0])
    futures: deque[Any] = deque()
    try:
        while together := list(itertools.islice(items, 64)):
            futures += pool._submit_all(function, together, star)
    except BaseException:
        _cancel(futures)
        raise
    return _results(futures, end)


def _results(futures: deque[Any], end: float | None) -> Iterator[Any]:
    try:
        while futures:
            first = futures[0]
            # Nothing here may refer to a result that was handed out.
            result = [first.result(None if end is None else end - time.monotonic())]
            del futures[0], first
            yield result.pop()
    finally:
        _cancel(futures)


def _cancel(futures: Iterable[Any]) -> None:
    for future in futures:
        future.cancel()


class Part:
    """Some of the calls of a map, and the future of their results."""

    __slots__ = ("future", "items", "single")

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.future: Any = None
        self.single = False


class Results:
    """A map under way."""

    def __init__(
        self,
        pool: ProcessPoolExecutor,
        submit: Callable[..., Any],
        function: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        chunksize: int | None,
        buffersize: int | None,
        ordered: bool,
    ) -> None:
        self.submit = submit
        self.function = function
        self.star = len(iterables) != 1
        items: Iterable[Any] = zip(*iterables, strict=False) if self.star else iterables[0]
        workers = pool._max_workers
        self.size = chunksize or 1
        self.adapts = chunksize is None
        # How many calls are under way at most.
        self.room: float = float("inf")
        self.most = _LARGEST
        if buffersize is not None:
            # The standard library counts chunks.
            self.room = buffersize * self.size
            self.most = max(1, buffersize // (2 * workers))
        elif self.adapts:
            items = list(items)
            self.most = max(1, min(_LARGEST, len(items) // (4 * workers)))
        # How many parts are under way at most, while it adapts.
        self.window: float = 4 * workers if self.adapts else float("inf")
        self.items = iter(items)
        self.chunk = self._chunk_function(pool._engine.define_main)
        self.lock = threading.RLock()
        # Under way: calls, and parts that are not done.
        self.calls = 0
        self.running = 0
        self.parts: deque[Part] = deque()
        self.ended = False
        self.filling = False
        self.done: queue.SimpleQueue[Part] | None = None if ordered else queue.SimpleQueue()
        pool._maps.add(self)

    def _chunk_function(self, define: bool) -> tuple[Callable[..., Any], Any]:
        """What to submit for a chunk, and what stands for the function there."""
        from juggler._processes import pickling

        try:
            data, _ = pickling.dumps(self.function, define=define)
        except Exception:  # an error of each call, which the submission finds again
            return worker.run_chunk, self.function
        if self.function.__class__.__name__ == "function" and len(data) > 256:
            return worker.run_pickled_chunk, data
        return worker.run_chunk, self.function

    def fill(self, everything: bool = False) -> None:
        """Submit as much as there is room for."""
        with self.lock:
            self.filling = True
            try:
                while not self.ended and (
                    everything or (self.calls < self.room and self.running < self.window)
                ):
                    size = self.size if everything else int(min(self.size, self.room - self.calls))
                    part = Part(list(itertools.islice(self.items, size)))
                    if not part.items:
                        self.ended = True
                        break
                    self._submit(part)
                    self.parts.append(part)
            finally:
                self.filling = False

    def flush(self) -> None:
        """Submit the rest, unless it is read as results are taken."""
        if self.room == float("inf"):
            self.fill(everything=True)

    def _submit(self, part: Part) -> None:
        items = part.items
        self.calls += len(items)
        self.running += 1
        if len(items) == 1 and not self.adapts:
            part.single = True
            arguments = items[0] if self.star else items
            part.future = self.submit(self.function, *arguments)
        else:
            function, stands_for = self.chunk
            part.future = self.submit(function, stands_for, items, self.star)
        if self.done is not None or self.adapts:
            part.future.add_done_callback(lambda future: self._finished(part, future))

    def _finished(self, part: Part, future: Any) -> None:
        with self.lock:
            self.running -= 1
            if self.adapts and not future.cancelled() and future.exception() is None:
                nanoseconds = max(1, future.result()[2])
                fit = len(part.items) * _AIM // nanoseconds
                self.size = max(1, min(fit, 8 * self.size, self.most))
            if self.room == float("inf") and not self.filling:
                try:
                    self.fill()
                except RuntimeError:  # the pool is shut down, or broken: what was not submitted
                    self.ended = True
        if self.done is not None:
            self.done.put(part)

    def iterate(self, end: float | None) -> Iterator[Any]:
        """The results."""
        try:
            while (part := self._next(end)) is not None:
                timeout = None if end is None else end - time.monotonic()
                if part.single:
                    # Nothing here may refer to a result that was handed out.
                    results = [part.future.result(timeout)]
                    part.future = None
                    self._taken(part)
                    yield results.pop()
                else:
                    yield from self._unpack(part, end)
        finally:
            self.stop()

    def _next(self, end: float | None) -> Part | None:
        """The part whose results are next."""
        with self.lock:
            if not self.parts:
                return None
            if self.done is None:
                return self.parts.popleft()
        try:
            part = self.done.get(timeout=None if end is None else max(0, end - time.monotonic()))
        except queue.Empty:
            raise TimeoutError from None
        with self.lock:
            self.parts.remove(part)
        return part

    def _taken(self, part: Part) -> None:
        self.calls -= len(part.items)
        if self.done is None and not self.adapts:
            self.running -= 1
        self.fill()

    def _unpack(self, part: Part, end: float | None) -> Iterator[Any]:
        timeout = None if end is None else end - time.monotonic()
        try:
            results, error, _ = part.future.result(timeout)
        except TimeoutError:
            if not part.future.done():
                part.future.cancel()
            raise
        except BaseException as problem:
            future = part.future
            theirs = future.done() and not future.cancelled() and future.exception() is problem
            if len(part.items) == 1 or not theirs:
                raise
            yield from self._apart(part, problem, end)
            return
        part.future = None
        self._taken(part)
        results.reverse()
        while results:
            if type(results[-1]) is worker.Apart:
                yield results.pop().load()
            else:
                yield results.pop()
        if error is not None:
            raise exceptions.unpack_exception(error)

    def _apart(self, part: Part, problem: BaseException, end: float | None) -> Iterator[Any]:
        """The results of a part that failed as a whole: of its calls but for the culprit."""
        self._taken(part)
        done = getattr(problem, "done", None)
        groups = [[item] for item in part.items]
        if done is not None:
            # A worker died: these calls it had made, and then this one.
            groups = [part.items[:done], part.items[done + 1 :]]
        for at, group in enumerate(groups):
            if at == 1 and done is not None:
                raise problem
            if group:
                again = Part(group)
                with self.lock:
                    self._submit(again)
                if again.single:
                    yield again.future.result()
                    self._taken(again)
                else:
                    yield from self._unpack(again, end)

    def stop(self) -> None:
        """Submit no more, and cancel what no worker has begun."""
        with self.lock:
            self.ended = True
            parts = list(self.parts)
        for part in parts:
            part.future.cancel()
