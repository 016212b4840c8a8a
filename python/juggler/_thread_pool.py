"""`juggler.futures.ThreadPoolExecutor`, and the threads of all pools.

Apart, and imported when it is first used, as the standard library does it: whatever imports
`asyncio` has futures, and few such programs have a pool.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import thread as _stock
from concurrent.futures.thread import BrokenThreadPool

from juggler import _juggler

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BrokenThreadPool", "ThreadPoolExecutor"]

if TYPE_CHECKING:
    from juggler._juggler import ThreadPoolExecutor
else:

    class ThreadPoolExecutor(_juggler.ThreadPoolExecutor, _stock.ThreadPoolExecutor):
        """A pool of threads that make calls.

        Stands in for `concurrent.futures.ThreadPoolExecutor`, and is a subclass of it, with
        `statistics()` besides.

        Fairness: calls begin in the order in which they were submitted. Fork: the child's executors
        start new workers; the calls that were queued are the parent's to make, and the child finds
        their futures cancelled. The threads end when `shutdown` is called, when the executor is
        garbage, and at interpreter exit; in each case after they have made the calls that are
        queued.

        Args:
            max_workers: the most threads. They are started as calls come in and none is idle. By
                default ``min(32, os.process_cpu_count() + 4)``.
            thread_name_prefix: the threads are named ``PREFIX_0``, ``PREFIX_1`` ...
            initializer: called first in every thread. If it raises, the pool is broken: queued and
                later calls get `BrokenThreadPool`.
            initargs: its arguments.
            ctxkwargs: what `prepare_context` takes besides, if a subclass overrides it (from 3.14).
        """

        __module__ = "juggler.futures"
        __slots__ = ()


# Who has to be joined at exit.
workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class _Starting(threading.local):
    """How this thread starts workers.

    Attributes:
        daemons: as daemons; the program's end joins them all the same, unless whoever had them
            started takes them out of `workers`.
    """

    daemons = False


starting = _Starting()


def _start_worker(worker: Callable[[], None], name: str, threads: set[threading.Thread]) -> None:
    thread = threading.Thread(name=name, target=worker, daemon=starting.daemons or None)
    thread.start()
    if starting.daemons:
        # What it starts itself shall not be daemons for that.
        thread._daemonic = False  # type: ignore[attr-defined]
    threads.add(thread)
    workers.add(thread)


_juggler._set_worker_starter(_start_worker)


def _at_exit() -> None:
    _juggler._close_pools()
    for thread in list(workers):
        thread.join()


# Before the interpreter joins the threads that are no daemons, and before `atexit`, as the standard
# library does.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


def _after_fork_in_child() -> None:
    workers.clear()
    _juggler._forget_workers()


os.register_at_fork(after_in_child=_after_fork_in_child)
