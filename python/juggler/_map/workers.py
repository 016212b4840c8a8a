"""Workers of a map or a `Pool`: threads, processes, a loop, each made when it is first used."""

from __future__ import annotations

import contextlib
import sys
import threading

from juggler import _thread_pool, futures
from juggler import _works as works
from juggler._map.models import LoopThread
from juggler._processes import own_pool, processors


class Workers:
    """Pools by their width, and a loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: dict[int, futures.ThreadPoolExecutor] = {}
        self._processes: dict[int, futures.ProcessPoolExecutor] = {}
        self._loop: LoopThread | None = None
        self.closed = False

    def threads(self, width: int) -> futures.ThreadPoolExecutor:
        """A pool of so many threads."""
        with self._lock:
            self.check()
            if width not in self._threads:
                self._threads[width] = futures.ThreadPoolExecutor(width, "juggler-map")
            return self._threads[width]

    def processes(self, width: int) -> futures.ProcessPoolExecutor:
        """A pool of so many processes."""
        with self._lock:
            self.check()
            if width not in self._processes:
                self._processes[width] = own_pool(width)
            return self._processes[width]

    def loop(self) -> LoopThread:
        """An event loop."""
        with self._lock:
            self.check()
            if self._loop is None:
                self._loop = LoopThread()
            return self._loop

    def check(self) -> None:
        """Raise if they were let go of."""
        if self.closed:
            raise RuntimeError("the pool is shut down: make a new one for more calls")

    def close(self, *, wait: bool, cancel: bool = False, at_once: bool = False) -> None:
        """Let go of all.

        Args:
            wait: whether to wait until what has begun has ended.
            cancel: whether to call back what has not begun.
            at_once: whether to end processes and coroutines in the middle of their calls, and to
                let the program end while threads are in the middle of theirs.
        """
        with self._lock:
            self.closed = True
        for threads in self._threads.values():
            if at_once:
                leave(threads)
            threads.shutdown(wait=False, cancel_futures=cancel)
        for processes in self._processes.values():
            if at_once:
                processes.terminate_workers()
            processes.shutdown(wait=False, cancel_futures=cancel)
        if self._loop is not None:
            self._loop.close(wait, at_once)
        if wait:
            for executor in (*self._threads.values(), *self._processes.values()):
                executor.shutdown(wait=True)


def leave(pool: futures.ThreadPoolExecutor) -> None:
    """Have the program's end not wait for the threads of a pool."""
    for thread in list(pool._threads):
        _thread_pool.workers.discard(thread)


def cores() -> int:
    """How many processors this process may use."""
    return processors()


def _at_exit() -> None:
    # What ended the program; at a prompt it ended a line of input only.
    last = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    interrupted = isinstance(last, KeyboardInterrupt)
    for work in works.under_way():
        with contextlib.suppress(Exception):
            work.close(at_once=interrupted)
    if interrupted:
        for thread in list(_thread_pool.workers):
            if thread.name.startswith("juggler-map"):
                _thread_pool.workers.discard(thread)


# Registered after that of `juggler._thread_pool`, so it runs before.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
