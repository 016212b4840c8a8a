"""What a `ProcessPoolExecutor` raises, and how what its workers raised arrives here."""

from __future__ import annotations

import pickle
import signal
from concurrent.futures.process import BrokenProcessPool


class WorkerDied(BrokenProcessPool):
    """The process that made the call died, and took the call with it; the pool goes on.

    Raised by the future of a call of a `ProcessPoolExecutor`.

    Attributes:
        pid: the process.
        exitcode: its exit status, a negative signal number if one killed it; None if unknown.
    """

    def __init__(self, message: str, pid: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(message, pid, exitcode)
        self.pid = pid
        self.exitcode = exitcode
        self.done = 0

    def __str__(self) -> str:
        return str(self.args[0])


class MemoryLimitExceeded(WorkerDied):
    """The process that made the call had more memory than `memory_limit` and was killed.

    Raised by the future of a call of a `ProcessPoolExecutor`.
    """


def died(pid: int | None, exitcode: int | None, done: int = 0) -> WorkerDied:
    """The exception for a call whose worker died by itself; of a chunk, `done` were made."""
    if exitcode is None:
        how = "died"
    elif exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        how = f"was killed by {name}"
        if -exitcode == signal.SIGKILL:
            how += " (perhaps the system was short of memory)"
    else:
        how = f"exited with status {exitcode}"
    error = WorkerDied(f"worker process {pid} {how} while it made the call", pid, exitcode)
    error.done = done
    return error


def stopped(reason: str, pid: int | None = None, exitcode: int | None = None) -> BaseException:
    """The exception for a call that was stopped."""
    if reason == "timeout":
        return TimeoutError("the call ran for longer than its timeout and was stopped")
    if reason == "memory":
        message = f"worker process {pid} had more memory than memory_limit while it made the call"
        return MemoryLimitExceeded(message, pid, exitcode)
    return WorkerDied("the call was cancelled while it ran", pid, exitcode)


def result_refused(refusal: BaseException) -> BaseException:
    """The exception for a result that could not be unpickled."""
    error = pickle.UnpicklingError(
        f"the result could not be unpickled: {type(refusal).__name__}: {refusal}"
    )
    error.__cause__ = refusal
    return error


def result_lost(problem: str) -> BaseException:
    """The exception for a result that is not where the worker put it."""
    return WorkerDied(f"the call's result is lost with its worker: {problem}")
