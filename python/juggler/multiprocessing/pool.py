"""Pools of workers: stands in for ``multiprocessing.pool``.

`Pool` makes its calls on a `juggler.futures.ProcessPoolExecutor`, `ThreadPool` on a
`juggler.futures.ThreadPoolExecutor`. No threads that handle tasks, results and workers stand in
between, and a worker that dies costs the one call that it was making, which raises `WorkerDied`;
the standard library's pool waits for it for ever.

Blocking: a wait gives the GIL up, answers signals and measures its timeout on the monotonic clock.
Fork: a forked child cannot use its parent's pools.

Deviations:

* Lambdas, closures and what ``__main__`` defines are sent, as the executor sends them.
* `Pool.imap` and `Pool.imap_unordered` always return an iterator with ``next(timeout)``, also for a
  ``chunksize`` above one. What they read from an iterator is bounded while the pool is open: at
  most `READ_AHEAD` chunks whose results were not taken.
* An initializer that raises breaks the pool: every call raises `BrokenProcessPool`, where the
  standard library starts worker after worker.
* `Pool.terminate` cancels what has no result; the standard library's results never come.
* Of several calls of a map that raise, the first in the order of the arguments counts.
"""

from __future__ import annotations

import collections
import itertools
import multiprocessing as _multiprocessing
import time
import warnings
from concurrent.futures.process import _RemoteTraceback
from multiprocessing import pool as _stdlib
from multiprocessing.pool import (  # type: ignore[attr-defined]
    CLOSE,
    INIT,
    RUN,
    TERMINATE,
    mapstar,
    starmapstar,
)
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from juggler import futures, queue, threading
from juggler._processes import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Self

    # Its results are of classes of its own.
    _StdlibPool = object
else:
    _StdlibPool = _stdlib.Pool

__all__ = ["Pool", "ThreadPool"]

MaybeEncodingError = _stdlib.MaybeEncodingError  # type: ignore[attr-defined]
RemoteTraceback = _stdlib.RemoteTraceback  # type: ignore[attr-defined]
TimeoutError = _multiprocessing.TimeoutError  # noqa: A001

READ_AHEAD = 4096

_Result = TypeVar("_Result")
_Call = futures.Future[Any]


class ApplyResult(Generic[_Result]):
    """The result of calls that may still be running; returned by `Pool.apply_async` and the like.

    Stands in for `multiprocessing.pool.AsyncResult`. It keeps its pool alive. Where callbacks were
    given it is ready when they have returned.
    """

    def __init__(
        self,
        pool: Pool,
        calls: Sequence[_Call],
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._pool: Pool | None = pool  # keeps it alive
        self._calls = calls
        self._callback = callback
        self._error_callback = error_callback
        # Where there are callbacks, the result is there when they have run.
        self._called_back: threading.Event | None = None
        if callback is not None or error_callback is not None:
            self._called_back = threading.Event()
            self._left = itertools.count(len(calls) - 1, -1)
            if not calls:
                self._call_back()
            for call in calls:
                call.add_done_callback(self._one_done)

    def _one_done(self, _: _Call) -> None:
        if next(self._left) == 0:
            self._call_back()

    def _call_back(self) -> None:
        assert self._called_back is not None
        try:
            error = self._error()
            if error is None:
                if self._callback is not None:
                    self._callback(self._value())
            elif self._error_callback is not None:
                self._error_callback(error)
        finally:
            self._called_back.set()
            self._pool = None

    def _error(self) -> BaseException | None:
        """The first error, once all calls are done."""
        for call in self._calls:
            if call.cancelled():
                return futures.CancelledError()
            if (error := call.exception()) is not None:
                if type(error.__cause__) is _RemoteTraceback:  # as the executor has it
                    error.__cause__ = RemoteTraceback(str(error.__cause__))
                return error
        return None

    def _value(self) -> _Result:
        value: _Result = self._calls[0].result()
        return value

    def ready(self) -> bool:
        """Whether the call has ended; never blocks."""
        if self._called_back is not None:
            return self._called_back.is_set()
        return all(call.done() for call in self._calls)

    def successful(self) -> bool:
        """Whether the call ended without an exception; never blocks.

        Raises:
            ValueError: it has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error() is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait for the end of the call, without the GIL; signal handlers run meanwhile.

        Args:
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.
        """
        if self._called_back is not None:
            self._called_back.wait(timeout)
        else:
            futures.wait(self._calls, timeout)

    def get(self, timeout: float | None = None) -> _Result:
        """The result; waits for it without the GIL, and signal handlers run meanwhile.

        Args:
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.

        Raises:
            multiprocessing.TimeoutError: it is not there in time.
            WorkerDied: the worker died that made the call.
            BaseException: what the call raised.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError
        self._pool = None
        error = self._error()
        if error is not None:
            try:
                raise error
            finally:
                del error  # it refers to this frame
        return self._value()


AsyncResult = ApplyResult


class MapResult(ApplyResult[list[_Result]]):
    """The results of a map; there when all calls have ended."""

    def _value(self) -> list[_Result]:
        return [item for call in self._calls for item in call.result()]


class IMapIterator(Generic[_Result]):
    """The results of an `imap`, in the order of the arguments. Threads may share it.

    Stands in for `multiprocessing.pool.IMapIterator`.
    """

    def __init__(
        self, pool: Pool, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int
    ) -> None:
        self._pool: Pool | None = pool  # keeps it alive
        self._items: collections.deque[_Result] = collections.deque()  # of the chunk at hand
        # The calls in the order of the results. None: the number of all is known by now.
        self._calls: queue.Queue[_Call | None] = queue.Queue()
        self._head: _Call | None = None  # taken from the queue, but not done in time
        self._submitted = self._taken = 0
        self._total: int | None = None
        self._lock = threading.Lock()
        self._window = threading.Semaphore(READ_AHEAD)
        tasks = _chunks(func, iterable, chunksize)
        if isinstance(iterable, (list, tuple, range, dict, set, frozenset, str, bytes)):
            self._feed(pool, tasks, bounded=False)
        else:
            # Reading may block, or depend on results.
            pool._feeding(self._window)
            threading.Thread(target=self._feed, args=(pool, tasks, True), daemon=True).start()

    def _feed(self, pool: Pool, tasks: Iterator[tuple[Any, ...]], bounded: bool) -> None:
        try:
            for task in tasks:
                if bounded:
                    self._window.acquire()
                if pool._state == TERMINATE:
                    break
                self._put(pool._submit(*task))
        except Exception as error:
            self._put(_failed(error))
        finally:
            self._total = self._submitted
            self._calls.put(None)
            if bounded:
                pool._fed(self._window)

    def _put(self, call: _Call) -> None:
        self._submitted += 1
        self._calls.put(call)

    def __iter__(self) -> Iterator[_Result]:
        return self

    def next(self, timeout: float | None = None) -> _Result:
        """The next result; waits for it without the GIL, and signal handlers run meanwhile.

        Args:
            timeout: seconds on the monotonic clock to wait at most; None waits for ever.

        Raises:
            multiprocessing.TimeoutError: it is not there in time.
            StopIteration: there are no more.
            BaseException: what the call raised; the results after it are still to be had.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0)):
            raise TimeoutError
        try:
            while not self._items:
                call = self._next_call(deadline)
                self._taken += 1
                self._window.release()
                self._items.extend(call.result())
            return self._items.popleft()
        finally:
            self._lock.release()

    __next__ = next  # noqa: A003

    def _next_call(self, deadline: float | None) -> _Call:
        """The next call, which is done."""
        while self._head is None:
            if self._taken == self._total:
                self._pool = None
                raise StopIteration
            try:
                self._head = self._calls.get(timeout=_left(deadline))
            except queue.Empty:
                raise TimeoutError from None
        call = self._head
        if not call.done() and not futures.wait([call], _left(deadline)).done:
            raise TimeoutError
        self._head = None
        return call


class IMapUnorderedIterator(IMapIterator[_Result]):
    """The results of an `imap_unordered`, as they come. Threads may share it."""

    def _put(self, call: _Call) -> None:
        self._submitted += 1
        call.add_done_callback(self._calls.put)


class _Executor(futures.ProcessPoolExecutor):
    """Does what the standard library's pool does and its executor doesn't.

    It replaces forked workers, and the program ends without waiting for its calls.
    """

    _forks_with_threads = True
    _finishes_at_exit = False


class Pool(_StdlibPool):
    """A pool of worker processes, started at once.

    Stands in for `multiprocessing.pool.Pool`, and is a subclass of it, none of whose own code runs
    but for `repr`. See the module for the deviations.

    Fairness: chunks begin in the order of their submission. Fork: the pool belongs to the process
    that made it. Signals: workers ignore Ctrl-C; the one that waits gets `KeyboardInterrupt`.
    Leaving a ``with`` block terminates the pool, as there.

    Args:
        processes: how many; by default as many as processors may be used.
        initializer: called first in every worker. If it raises, the pool is broken.
        initargs: its arguments.
        maxtasksperchild: a worker ends after so many chunks and is replaced.
        context: what starts the workers; by default the context of `juggler.multiprocessing`,
            under `juggler run` that of `multiprocessing`.

    Raises:
        ValueError: ``processes`` or ``maxtasksperchild`` is not positive.
        TypeError: ``initializer`` cannot be called.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        self._state = INIT
        if processes is None:
            processes = processors()
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = processes
        self._windows: set[threading.Semaphore] = set()  # of the iterators that are being read
        self._changed = threading.Condition()
        self._executor = self._make_executor(
            processes, initializer, tuple(initargs), maxtasksperchild, context
        )
        self._state = RUN

    def _make_executor(
        self,
        processes: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
        context: Any,
    ) -> futures.Executor:
        executor = _Executor(
            processes,
            mp_context=context,
            initializer=initializer,
            initargs=initargs,
            max_tasks_per_child=maxtasksperchild,
        )
        executor.start()
        return executor

    @property
    def _pool(self) -> list[Any]:
        """The workers."""
        return list((self._executor._processes or {}).values())  # type: ignore[attr-defined]

    def _repopulate_pool(self) -> None:
        self._executor.start()  # type: ignore[attr-defined]

    def __del__(self, _warn: Callable[..., None] = warnings.warn, _run: str = RUN) -> None:
        if self._state == _run:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    def __enter__(self) -> Self:
        """Return the pool.

        Raises:
            ValueError: it was closed.
        """
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        """Terminate the pool, as there: results that were not waited for are lost."""
        self.terminate()

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """Call ``func(*args, **kwds)`` in a worker and wait for the result, without the GIL.

        Args:
            func: what to call; anything that can be pickled, a lambda or a closure.
            args: the positional arguments.
            kwds: the named ones.

        Raises:
            WorkerDied: the worker died that made the call.
            PicklingError: the call can't travel; the message names the path to the culprit.
            BaseException: what the call raised.
        """
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult[Any]:
        """Have ``func(*args, **kwds)`` called in a worker; never blocks.

        Args:
            func: as for `apply`.
            args: the positional arguments.
            kwds: the named ones.
            callback: called with the result, in whichever thread collects it; must not block.
            error_callback: called with the exception instead, if there is one.
        """
        self._check_running()
        call = self._submit(func, *args, **kwds)
        return ApplyResult(self, [call], callback, error_callback)

    def map(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """The list of ``func(item)`` for each item; waits for all, also if one raises.

        Waits without the GIL, and signal handlers run meanwhile.

        Args:
            func: as for `apply`.
            iterable: the items, all of which are read at once.
            chunksize: how many calls are handed to a worker together; by default such that each
                worker gets four chunks.

        Raises:
            WorkerDied: a worker died; the other calls were made.
            BaseException: what the first call raised that did.
        """
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Any]:
        """As `map`, without waiting; callbacks are called as by `apply_async`."""
        return self._map_async(func, iterable, mapstar, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """As `map`, of ``func(*item)``."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Any]:
        """As `starmap`, without waiting; callbacks are called as by `apply_async`."""
        return self._map_async(func, iterable, starmapstar, chunksize, callback, error_callback)

    def imap(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[Any]:
        """An iterator over ``func(item)`` for each item, in order; the calls begin at once.

        Args:
            func: as for `apply`.
            iterable: the items. A generator is read by a thread, and may be endless.
            chunksize: how many calls are handed to a worker together.

        Raises:
            ValueError: ``chunksize`` is not positive.
        """
        self._check_running()
        return IMapIterator(self, func, iterable, _checked(chunksize))

    def imap_unordered(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int = 1
    ) -> IMapIterator[Any]:
        """As `imap`, in the order in which the results come."""
        self._check_running()
        return IMapUnorderedIterator(self, func, iterable, _checked(chunksize))

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        mapper: Callable[..., Any],
        chunksize: int | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Any]:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        if chunksize is None:
            chunksize, rest = divmod(len(items), self._processes * 4)
            chunksize += bool(rest)
        calls: list[_Call] = []
        try:
            for chunk in _batched(items, max(chunksize, 1)):
                calls.append(self._submit(mapper, (func, chunk)))
        except Exception as error:  # the iterable's
            calls.append(_failed(error))
        return MapResult(self, calls, callback, error_callback)

    def _submit(self, func: Callable[..., Any], /, *args: Any, **kwds: Any) -> _Call:
        """Have a call made. What is wrong with it is its result."""
        try:
            return self._executor.submit(func, *args, **kwds)  # type: ignore[return-value]
        except Exception as error:
            return _failed(error)

    def _feeding(self, window: threading.Semaphore) -> None:
        with self._changed:
            self._windows.add(window)

    def _fed(self, window: threading.Semaphore) -> None:
        with self._changed:
            self._windows.remove(window)
            self._changed.notify_all()
            last = not self._windows and self._state == CLOSE
        if last:
            self._executor.shutdown(wait=False)

    def close(self) -> None:
        """Take no more calls; the workers end when those that were taken are made."""
        if self._state != RUN:
            return
        with self._changed:
            self._state = CLOSE
            # Nobody may take the results before `join`: all is read now.
            for window in self._windows:
                window.release(1 << 30)
            done = not self._windows
        if done:
            self._executor.shutdown(wait=False)

    def terminate(self) -> None:
        """Stop the workers at once; calls that have no result are cancelled."""
        with self._changed:
            self._state = TERMINATE
            for window in self._windows:
                window.release(1 << 30)
        self._stop()

    def _stop(self) -> None:
        self._executor.terminate_workers()  # type: ignore[attr-defined]

    def join(self) -> None:
        """Wait for the workers to end, after `close` or `terminate`, without the GIL.

        Raises:
            ValueError: the pool is still open.
        """
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        with self._changed:
            self._changed.wait_for(lambda: not self._windows or self._state == TERMINATE)
        self._executor.shutdown(wait=True)


class ThreadPool(Pool):
    """A pool of worker threads with the methods of `Pool`.

    Stands in for `multiprocessing.pool.ThreadPool`, and is a subclass of `Pool` only.

    Args:
        processes: how many threads; by default as many as processors may be used.
        initializer: called first in every thread. If it raises, the pool is broken.
        initargs: its arguments.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(processes, initializer, initargs)

    def _make_executor(
        self,
        processes: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
        context: Any,
    ) -> futures.Executor:
        return futures.ThreadPoolExecutor(processes, initializer=initializer, initargs=initargs)

    @property
    def _pool(self) -> list[Any]:
        return list(self._executor._threads)  # type: ignore[attr-defined]

    def _repopulate_pool(self) -> None:
        pass

    def _stop(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _left(deadline: float | None) -> float | None:
    """The seconds until then."""
    return None if deadline is None else max(deadline - time.monotonic(), 0)


def _failed(error: Exception) -> _Call:
    call: _Call = futures.Future()
    call.set_exception(error)
    return call


def _checked(chunksize: int) -> int:
    if chunksize < 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
    return chunksize


def _batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def _chunks(func: Callable[..., Any], items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    for chunk in _batched(items, size):
        yield mapstar, (func, chunk)
