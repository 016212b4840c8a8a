"""Queues between processes: stands in for ``multiprocessing.queues``.

A queue lies in shared memory: a process that puts writes the item there, and one that gets reads it
there. There is no feeder thread. So an item is there for all when `put` returns, and survives the
process that put it; ``close``, ``join_thread`` and ``cancel_join_thread`` have nothing to wait for.

Death: a process that is killed inside ``put`` or ``get`` loses the item in hand at most, and holds
nobody up for longer than it takes to notice (a second at most).

Memory: a long queue takes as much shared memory as its items need, up to 8 GiB (less where the
process may not have as much address space), and gives it back when it has run empty. It has no name
in ``/dev/shm``.

Deviations:

* An object is pickled when it is put, not later by another thread: what the program does to it
  afterwards does not count. One that can't be pickled is reported as in the standard library,
  by ``_on_queue_feeder_error``, or raised by a `SimpleQueue`.
* A queue without ``maxsize`` makes ``put`` wait only when its whole 8 GiB are full.
* ``empty``, ``full`` and ``qsize`` know at once of every put and get of every process.
* `SimpleQueue.get` does not raise `EOFError` when all other processes have gone.
* ``_reader`` and ``_writer`` are there for programs that select on them: they have ``fileno``,
  ``poll``, ``close`` and ``closed``, and send and receive whole items. The descriptor is readable
  while there are items; it is kept so from the first call of ``fileno`` on, in all processes,
  which costs a system call with every put and get.
"""

from __future__ import annotations

import threading
from multiprocessing import context, reduction
from multiprocessing import queues as _stock
from queue import Empty, Full

from juggler import _juggler
from juggler.multiprocessing import connection

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]

# What a semaphore of the standard library can count to: its `maxsize` where there is none.
_UNBOUNDED = 2**31 - 1


class _End:
    """What programs know as the connection of a queue's one side."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    @property
    def closed(self) -> bool:
        return bool(self._queue._closed)

    def close(self) -> None:
        """Nothing: a side of a queue has no descriptor of its own."""

    def fileno(self) -> int:
        if self.closed:
            raise OSError("handle is closed")
        return int(self._queue._watch())


class _Reader(_End):
    def poll(self, timeout: float | None = 0.0) -> bool:
        if not self._queue.empty():
            return True
        if timeout is not None and timeout <= 0:
            return False
        return bool(connection.wait([self.fileno()], timeout))

    def recv(self) -> object:
        return self._queue.get()

    def recv_bytes(self) -> bytes:
        return bytes(reduction.ForkingPickler.dumps(self._queue.get()))


class _Writer(_End):
    def send(self, obj: object) -> None:
        self._queue.put(obj)

    def send_bytes(self, pickled: bytes) -> None:
        self._queue.put(reduction.ForkingPickler.loads(pickled))


class _Shared(_juggler.ProcessQueue):
    """What all queues here have in common: their ends, and how they reach another process."""

    _simple = False

    @property
    def _reader(self) -> _Reader:
        return _Reader(self)

    @property
    def _writer(self) -> _Writer:
        return _Writer(self)

    def _poll(self, timeout: float | None = 0.0) -> bool:
        return self._reader.poll(timeout)

    def __getstate__(self) -> Any:
        context.assert_spawning(self)
        segment, event = self._descriptors()
        return reduction.DupFd(segment), reduction.DupFd(event)

    def __setstate__(self, state: Any) -> None:
        segment, event = state
        self._open(segment.detach(), event.detach(), self._simple)


@_juggler._own_methods
class Queue(_Shared, _stock.Queue):  # type: ignore[type-arg]
    """A queue for any number of processes; as `multiprocessing.Queue`, and an instance of it.

    See the module for what differs. Order: items of one process come out as they went in. Fairness:
    none among those who wait. Fork: the child uses the same queue. Otherwise a queue reaches
    another process as an argument of a new `Process`.

    Args:
        maxsize: the most items it holds; 0 or less is no limit.
        ctx: the context. The methods of contexts pass it.
    """

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._create(min(max(maxsize, 0), _UNBOUNDED), False)

    @property
    def _maxsize(self) -> int:
        return self._bound() or _UNBOUNDED

    def close(self) -> None:
        """Use the queue no more in this process: ``put`` and ``get`` raise `ValueError`."""
        self._closed = True

    def join_thread(self) -> None:
        """Nothing, after `close`: what was put is in the queue."""
        assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Nothing: no process waits for its queues at its end."""

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: object) -> None:
        import traceback  # with it come modules that take longer than all the rest

        traceback.print_exception(e)

    def _terminate_broken(self) -> None:
        self.close()


@_juggler._own_methods
class JoinableQueue(Queue, _stock.JoinableQueue):  # type: ignore[type-arg]
    """A `Queue` that knows which items are done; as `multiprocessing.JoinableQueue`.

    Args:
        maxsize: the most items it holds; 0 or less is no limit.
        ctx: the context. The methods of contexts pass it.
    """

    def task_done(self) -> None:
        """Say that an item that was got is done.

        Raises:
            ValueError: all items ever put are.
        """
        if not self._task_done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait, without the GIL, until all items ever put are done.

        Signal handlers run meanwhile, and one that raises ends the wait.
        """
        self._join()


@_juggler._own_methods
class SimpleQueue(_Shared, _stock.SimpleQueue):  # type: ignore[type-arg]
    """A queue without a bound and with fewer methods; as `multiprocessing.SimpleQueue`.

    Args:
        ctx: the context. The methods of contexts pass it.
    """

    _simple = True

    def __init__(self, *, ctx: Any) -> None:
        self._create(0, True)

    @property
    def _rlock(self) -> threading.Lock:
        # Held by the standard library's pool to keep its workers from reading; ours needs none.
        return threading.Lock()

    def close(self) -> None:
        """Use the queue no more in this process: its methods raise `OSError`."""
        self._closed = True


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names of the standard library's module that it does not export.
        return getattr(_stock, name)
