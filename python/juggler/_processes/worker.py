"""What a worker process of `juggler.futures.ProcessPoolExecutor` runs."""

from __future__ import annotations

import os
import signal
import traceback
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
                result, threshold=1 << 62, define=False, what="the result", root="result"
            )
        except Exception as refusal:
            raise refusal from error
        return data

    def dump_error(self, error: BaseException) -> bytes:
        """What a call raised: its pickle or why there is none, its traceback, what it says."""
        import pickle

        text = format_error(error)
        says = "".join(traceback.format_exception_only(type(error), error)).strip()
        error.__traceback__ = None
        try:
            try:
                data = pickle.dumps(error, 5)
            except Exception:
                from juggler._processes import pickling

                data, _ = pickling.dumps(
                    error, threshold=1 << 62, define=False, what="the exception", root="exception"
                )
        except Exception as refusal:
            return pickle.dumps((None, text, f"{says} (it could not be pickled: {refusal})"))
        return pickle.dumps((data, text, says))


def format_error(error: BaseException) -> str:
    """A traceback with the source lines, and the names of what is local to each frame."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    for frame, line in traceback.walk_tb(error.__traceback__):
        names = ", ".join(name for name in frame.f_locals if not name.startswith("__"))
        if names and frame.f_code.co_name != "<module>":
            code = frame.f_code
            lines.append(f'  Locals of {code.co_name} ("{code.co_filename}", {line}): {names}\n')
    return "".join(lines)


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
