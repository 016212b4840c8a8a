"""What a worker process of `juggler.futures.ProcessPoolExecutor` runs."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import reduction
from typing import TYPE_CHECKING, Any

from juggler import _juggler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


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

    def dump_result(self, result: object, error: BaseException) -> bytes:
        """The pickle of a result that plain pickle refused with `error`."""
        from juggler._processes import pickling

        try:
            data, _ = pickling.dumps(
                result, threshold=sys.maxsize, define=False, what="the result", root="result"
            )
        except Exception as refusal:
            raise refusal from error
        return data

    def dump_error(self, error: BaseException) -> bytes:
        """The message of what a call raised."""
        from juggler._processes import exceptions

        return exceptions.pack_exception(error)


def main(
    seat: Seat,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    most: int,
    spins: bool,
) -> None:
    """Make calls until the pool closes, or `most` are made (0: no limit)."""
    signal.signal(signal.SIGINT, _interrupted)
    _juggler._work(seat.open(), seat.worker, most, spins, _Hooks(initializer, initargs))


def run_chunk(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """The results of several calls."""
    return [function(*arguments) for arguments in chunk]


def run_short_chunk(function: Callable[[Any], Any], chunk: list[Any]) -> list[Any]:
    """The results of several calls with one argument each."""
    return list(map(function, chunk))
