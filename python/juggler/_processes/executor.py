"""`juggler.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from concurrent.futures import Executor
from concurrent.futures import process as _stdlib

from juggler import _juggler
from juggler._processes import processors

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Any, ParamSpec, TypeVar

    from juggler._processes.statistics import ProcessPoolExecutorStatistics
    from juggler.futures import Future

    _P = ParamSpec("_P")
    _T = TypeVar("_T")


__all__ = ["ProcessPoolExecutor"]


class ProcessPoolExecutor(_juggler.ProcessPool, _stdlib.ProcessPoolExecutor):
    """A pool of processes that make calls.

    Stands in for `concurrent.futures.ProcessPoolExecutor`, and is a subclass of it.  A worker that
    dies takes with it only the call that it was making, whose future gets `WorkerDied`; another
    worker takes its place.  Calls, arguments and results may be lambdas, closures, and what
    ``__main__`` defines; what can't travel is the `PicklingError` of that call alone, which names
    the path to the culprit.

    Fairness: calls begin in the order of their priorities, and of their submission.  Fork: the
    executor belongs to the process that made it.  Blocking: `submit` never waits; a wait for a
    result is without the GIL and answers signals, so that one Ctrl-C ends a blocked `map`.
    Signals: workers ignore Ctrl-C.  The workers end
    when `shutdown` is called, when the executor is garbage, and at interpreter exit, in each case
    after they have made the calls that are queued; and at once when this process dies.

    Deviations: a worker's death does not break the pool, so `BrokenProcessPool` proper comes only
    when workers can't be started or an initializer raises; and `shutdown` is not needed for workers
    to end when the program is killed.

    Args:
        max_workers: the most processes; by default as many as processors may be used.  They are
            started as calls come in and none is idle; with the start method ``fork`` all at once.
        mp_context: a context of `multiprocessing`, which says how processes are started; by default
            juggler's, which has the start method ``zygote`` unless it was changed.
        initializer: called first in every worker.  If it raises, the pool is broken.
        initargs: its arguments.
        max_tasks_per_child: how many calls a worker makes before another takes its place.
        memory_limit: how many bytes of memory a worker may have; a call that takes it above gets
            `MemoryLimitExceeded`.
    """

    # Whether workers may be replaced by forks of a process that has threads.
    _forks_with_threads = False
    # Whether the program waits at its end for the calls that were submitted.
    _finishes_at_exit = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = processors()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        if memory_limit is not None:
            if not isinstance(memory_limit, int):
                raise TypeError(f"memory_limit must be an integer, of bytes, not {memory_limit!r}")
            if memory_limit <= 0:
                raise ValueError("memory_limit must be greater than 0")
        if mp_context is None:
            mp_context = _default_context(max_tasks_per_child is not None)
        elif isinstance(mp_context, str):
            raise TypeError(
                f"mp_context must be a context, as get_context({mp_context!r}) returns, not text"
            )
        method = mp_context.get_start_method(allow_none=False)
        if max_tasks_per_child is not None and method == "fork" and not self._forks_with_threads:
            # A worker would have to be forked while threads run.
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
                "supply a different mp_context."
            )
        # With all that workers need, and as early: what names the class need not make a pool.
        from juggler._processes.staff import Staff

        self._max_workers = max_workers
        self._mp_context = mp_context
        self._initializer: Any = initializer
        self._initargs = initargs
        self._max_tasks_per_child = max_tasks_per_child
        self._engine = _juggler.ProcessPoolEngine(
            max_workers, _defines_main(method), memory_limit, _arena_size()
        )
        self._staff = Staff(
            self._engine, mp_context, max_workers, initializer, initargs, max_tasks_per_child or 0
        )
        self._open(self._engine, self._staff)
        self._maps: weakref.WeakSet[Any] = weakref.WeakSet()
        _executors.add(self)

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[_T]:
        """The results of `fn` called with the items of `iterables`, an iterator.

        Stands in for `concurrent.futures.Executor.map`; ``ordered`` and the chunks that adapt are
        juggler's own.  The iterator waits without the GIL, and signal handlers run meanwhile.

        Args:
            fn: what to call.
            iterables: one for each argument.  Read at once, without `buffersize`.
            timeout: seconds on the monotonic clock from now, after which waiting for a result is a
                TimeoutError.
            chunksize: how many calls are handed to a worker together.  By default juggler starts
                with few and takes more as they prove short.
            buffersize: how many calls to have under way at most beyond the results taken; then the
                iterables are read as results are taken, and may be endless.
            ordered: whether results come in the order of the items, or as they are done.
        """
        from juggler._processes import mapping

        return mapping.start(
            self, self.submit, fn, iterables, timeout, chunksize, buffersize, ordered
        )

    def options(
        self, *, timeout: float | None = None, retries: int = 0, priority: int = 0
    ) -> PoolView:
        """A view of this pool whose calls are treated in a certain way; an `Executor`.

        The standard library has no counterpart.

        Args:
            timeout: seconds that a call may run, from when a worker begins it; then it is stopped:
                by an exception in it, after 0.5 s more by SIGTERM, after 1 s by SIGKILL.  Only that
                call fails, with TimeoutError.
            retries: how often a call is made again whose worker died.
            priority: calls with a higher one begin earlier.
        """
        return PoolView(self, timeout, retries, priority)

    def stats(self) -> ProcessPoolExecutorStatistics:
        """A snapshot of what the pool is doing; never blocks.  The stdlib has no counterpart."""
        from juggler._processes.statistics import (
            ProcessPoolExecutorStatistics,
            WorkerStatistics,
        )

        waiting, deepest, _, idle, _ = self._engine.numbers()
        desks = [self._engine.desk(desk) for desk in list(self._staff.desks)]
        workers = [WorkerStatistics(*desk) for desk in desks]
        busy = sum(desk.busy for desk in workers)
        return ProcessPoolExecutorStatistics(waiting, deepest, busy, idle, workers)

    def start(self) -> None:
        """Start all workers now, not as calls come in; returns when they exist.

        The standard library has no counterpart.
        """
        self._staff.grow(everyone=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; workers end when they have made those that are queued.

        Stands in for `concurrent.futures.Executor.shutdown`.

        Args:
            wait: whether to wait for that, without the GIL.
            cancel_futures: whether to cancel the calls that no worker has begun.
        """
        for results in list(self._maps):
            # What a map has not submitted yet counts as submitted.
            if cancel_futures:
                results.stop()
            else:
                results.flush()
        self._engine.close()
        if cancel_futures:
            self._engine.cancel_all()
        thread = self._staff.thread
        me = threading.current_thread()
        if wait and thread not in (None, me) and not self._engine.foreign:
            thread.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Shut down; after Ctrl-C without waiting for the calls that are being made."""
        if isinstance(error, KeyboardInterrupt):
            self.terminate_workers()
        return super().__exit__(kind, error, traceback)

    def terminate_workers(self) -> None:
        """End the pool at once: SIGTERM to all workers, and cancel what is queued.

        Here on every version; the standard library has it from 3.14 on.
        """
        self._force_shutdown(operation="terminate")

    def kill_workers(self) -> None:
        """End the pool at once: SIGKILL to all workers, and cancel what is queued.

        Here on every version; the standard library has it from 3.14 on.
        """
        self._force_shutdown(operation="kill")

    def _force_shutdown(self, operation: str) -> None:
        if operation not in ("terminate", "kill"):
            raise ValueError(f"unsupported operation: {operation!r}")
        self.shutdown(wait=False, cancel_futures=True)
        self._staff.dismiss(operation)

    # What programs look at of the standard library's.

    @property
    def _processes(self) -> dict[int, Any] | None:  # type: ignore[override]
        return None if self._shutdown_thread and not self._staff.desks else self._staff.processes

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:  # type: ignore[override]
        return self._staff.thread

    @property
    def _shutdown_thread(self) -> bool:  # type: ignore[override]
        return bool(self._engine.closed)

    @property
    def _broken(self) -> Any:  # type: ignore[override]
        return self._engine.broken or False


class PoolView(Executor):
    """A `ProcessPoolExecutor` whose calls are treated in a certain way; see `options`.

    The standard library has no counterpart.  Any number of views may be used at the same time; to
    shut one down shuts the pool down.
    """

    def __init__(
        self, pool: ProcessPoolExecutor, timeout: float | None, retries: int, priority: int
    ) -> None:
        if not isinstance(timeout, int | float | None):
            raise TypeError(f"timeout must be a number, of seconds, or None, not {timeout!r}")
        if timeout is not None and not timeout > 0:
            raise ValueError("timeout must be greater than 0")
        for name, value in {"retries": retries, "priority": priority}.items():
            if not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, not {value!r}")
        if retries < 0:
            raise ValueError("retries must be 0 or more")
        self._pool = pool
        self._options = (priority, retries, timeout or 0.0)

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """As `ProcessPoolExecutor.submit`."""
        future: Future[_T] = self._pool._submit_with(*self._options, (fn, *args), kwargs)
        return future

    def map(
        self,
        fn: Callable[..., _T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
        ordered: bool = True,
    ) -> Iterator[_T]:
        """As `ProcessPoolExecutor.map`; the options are each call's, so calls go one by one."""
        from juggler._processes import mapping

        if self._options[2] and chunksize is None:
            chunksize = 1
        return mapping.start(
            self._pool, self.submit, fn, iterables, timeout, chunksize, buffersize, ordered
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `ProcessPoolExecutor.shutdown`."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _default_context(renews: bool) -> Any:
    """The context for whoever names none."""
    from juggler import _substitution, multiprocessing

    if not _substitution.is_installed():
        return multiprocessing.get_context()
    # The program may count on what its interpreter does.
    import multiprocessing as stock

    return stock.get_context("spawn" if renews else None)


def _arena_size() -> int:
    """How many bytes of large buffers may be under way, or be held as results."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # no such limit
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            memory = min(memory, int(limit.read()))
    return memory // 4


def _defines_main(method: str) -> bool:
    """Whether workers lack the functions and classes of ``__main__``."""
    if method == "zygote":
        return True
    main = sys.modules.get("__main__")
    return not getattr(getattr(main, "__spec__", None), "name", None) and not hasattr(
        main, "__file__"
    )


# The threads of pools, which have to be joined at exit.
threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

# Whose maps have to be submitted at exit.
_executors: weakref.WeakSet[ProcessPoolExecutor] = weakref.WeakSet()


def _others_run() -> bool:
    """Whether there are threads besides the main one that go on with the program."""
    pools: Any = sys.modules.get("juggler._thread_pool")
    idle = {threading.main_thread(), *threads, *(pools.workers if pools else ())}
    return any(not thread.daemon and thread not in idle for thread in threading.enumerate())


def _at_exit() -> None:
    # What ended the program; at a prompt it ended a line of input only.
    last = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    for executor in list(_executors):
        wanted = executor._finishes_at_exit or _others_run()
        if wanted and not isinstance(last, KeyboardInterrupt):
            executor.shutdown(wait=False)
        else:
            executor.terminate_workers()
    _juggler._close_process_pools()
    for thread in list(threads):
        thread.join()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _after_fork_in_child() -> None:
    threads.clear()
    _executors.clear()
    _juggler._disown_process_pools()


os.register_at_fork(after_in_child=_after_fork_in_child)
