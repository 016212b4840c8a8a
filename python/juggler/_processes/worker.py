"""What a worker process of `juggler.futures.ProcessPoolExecutor` runs."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import reduction

from juggler import _juggler
from juggler._processes import pickling

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any


class Seat:
    """A desk of the pool, on its way to the process that is to sit there.

    Forked processes inherit the descriptor of the pool's segment, others are sent it.
    """

    def __init__(self, descriptor: int, worker: int) -> None:
        self.descriptor: Any = descriptor
        self.worker = worker

    def __getstate__(self) -> tuple[Any, int]:
        return reduction.DupFd(self.descriptor), self.worker

    def __setstate__(self, state: tuple[Any, int]) -> None:
        self.descriptor, self.worker = state

    def open(self) -> int:
        """A descriptor for whoever sits down."""
        if isinstance(self.descriptor, int):
            return os.dup(self.descriptor)
        return int(self.descriptor.detach())


class TaskStopped(BaseException):
    """Raised in a call whose parent has it stopped: its time is over, or it was cancelled."""


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    # Ctrl-C goes to the whole group of processes: what becomes of the workers is the parent's
    # business. It uses the same signal to stop a call.
    if _juggler._stop_requested():
        raise TaskStopped


class _Hooks:
    def __init__(self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]):
        self.initializer = initializer
        self.initargs = initargs

    def initialize(self) -> bool:
        """Call the initializer; whether it did not raise."""
        if self.initializer is not None:
            try:
                self.initializer(*self.initargs)
            except BaseException:
                from concurrent.futures._base import LOGGER

                LOGGER.critical("Exception in initializer:", exc_info=True)
                return False
        return True

    def dump_result(
        self, result: object, error: BaseException, threshold: int = pickling.THRESHOLD
    ) -> tuple[bytes, list[Any]]:
        """The pickle of a result that plain pickle refused with `error`, and its buffers."""
        if type(result) is Chunk:
            results, raised, nanoseconds = result
            apart = []
            for one in results:
                try:
                    data, _ = self.dump_result(one, error, sys.maxsize)
                    apart.append(Apart(data, False))
                except Exception as refusal:
                    apart.append(Apart(self.dump_error(refusal), True))
            result = Chunk((apart, raised, nanoseconds))

        try:
            return pickling.dumps(
                result, threshold=threshold, define=False, what="the result", root="result"
            )
        except Exception as refusal:
            raise refusal from error

    def dump_error(self, error: BaseException) -> bytes:
        """The message of what a call raised."""
        from juggler._processes import exceptions

        return exceptions.pack_exception(error)


def main(
    seat: Seat,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    most: int,
) -> None:
    """Make calls until the pool closes, or `most` are made (0: no limit)."""
    signal.signal(signal.SIGINT, _interrupted)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _juggler._work(seat.open(), seat.worker, most, _Hooks(initializer, initargs))


class Chunk(tuple):  # type: ignore[type-arg]
    """What came of several calls: results, the packed exception of the call that raised, time.

    If the results could not be pickled together: each by itself, or the exception of pickling it.
    """


def run_chunk(function: Callable[..., Any], items: list[Any], star: bool) -> Chunk:
    """Call `function` with each item, with its elements if `star`, until one raises."""
    results, error, nanoseconds = _juggler._run_chunk(function, items, star)
    packed = None
    if error is not None:
        from juggler._processes import exceptions

        packed = exceptions.pack_exception(error)
    return Chunk((results, packed, nanoseconds))


_functions: dict[bytes, Any] = {}


def function_of(data: bytes) -> Any:
    """The function of a message; the last few are kept."""
    if data not in _functions:
        from juggler._processes import pickling

        if len(_functions) > 16:
            _functions.clear()
        _functions[data] = pickling.loads(data)
    return _functions[data]


def run_pickled_chunk(function: bytes, items: list[Any], star: bool) -> Chunk:
    """`run_chunk` of a function that can only be sent by value."""
    return run_chunk(function_of(function), items, star)


class Apart:
    """One of the results of a chunk, pickled by itself because they could not be together."""

    def __init__(self, data: bytes, refused: bool) -> None:
        self.data = data
        self.refused = refused

    def load(self) -> Any:
        """The result."""
        from juggler._processes import exceptions, pickling

        if self.refused:
            raise exceptions.unpack_exception(self.data)
        return pickling.loads(self.data)
