"""Tells of whatever keeps an event loop from moving, while it does so."""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
import time
import traceback
from asyncio.log import logger

from juggler.asyncio import _checks, _event_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from juggler.asyncio._event_loop import EventLoop


class Blocked:
    """A loop that does not move.

    Attributes:
        loop: The loop.
        seconds: For how long it has not moved, at least.
        stack: Where its thread is, outermost first, from the callback or coroutine on.
        task: The name of the task that runs, or None: a callback, or the loop itself.
    """

    def __init__(
        self, loop: EventLoop, seconds: float, stack: traceback.StackSummary, task: str | None
    ) -> None:
        self.loop = loop
        self.seconds = seconds
        self.stack = stack
        self.task = task

    def __str__(self) -> str:
        if not self.stack:
            return (
                f"the event loop has not moved for {self.seconds:.2f} s: it waits for another "
                "thread to give up the interpreter"
            )
        who = f"task {self.task!r}" if self.task else "a callback"
        return (
            f"the event loop has not moved for {self.seconds:.2f} s, because {who} is here:\n"
            + "".join(self.stack.format())
            + "Everything else on this loop waits. Await something that does not block, or move "
            "the call to a thread: await asyncio.to_thread(function, ...)"
        )


class watchdog:  # noqa: N801
    """Reports what blocks an event loop while it blocks, with the culprit's stack.

    A thread looks at every loop of `juggler.asyncio` that runs, four times in `threshold` seconds.
    A loop that is awake and has begun nothing new for `threshold` seconds is reported, once for
    each time that it is held up. The loops pay a nanosecond for each callback.

    Use it as a context manager, or call `start` and `stop`. `juggler run --report` has one on.
    The standard library has no counterpart: its debug mode tells of a slow callback when that has
    ended, and not where in it the time went.

    The thread needs the interpreter to look. A call that blocks without giving up the GIL (few
    do) is reported when it ends, if it still is the one that runs.

    Fork: the child has no watchdog.

    Args:
        threshold: Seconds for which a loop may stand still.
        report: Called in the watchdog's thread with a `Blocked`; by default, its text is logged as
            a warning of the logger ``asyncio``. What it raises is logged.

    Raises:
        ValueError: `threshold` is not above zero.
    """

    def __init__(
        self, threshold: float = 0.5, *, report: Callable[[Blocked], object] | None = None
    ) -> None:
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0 seconds, not {threshold!r}")
        self._threshold = threshold
        self._report = _log if report is None else report
        # Held while it watches. A plain one: the program's report is not to tell of it.
        self._watching = _thread.allocate_lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch.

        Raises:
            RuntimeError: It watches already.
        """
        if self._thread is not None:
            raise RuntimeError("this watchdog was started already")
        self._watching.acquire()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; waits for the end of a report that is being made."""
        if self._thread is not None:
            self._watching.release()
            self._thread.join()
            self._thread = None

    def __enter__(self) -> watchdog:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _watch(self) -> None:
        # For each loop: its pulse, since when it has had that, whether this was reported.
        seen: dict[EventLoop, tuple[int | None, float, bool]] = {}
        while not self._watching.acquire(timeout=self._threshold / 4):
            now = time.monotonic()
            loops = _event_loop.running.copy()
            for loop in seen.keys() - loops:
                del seen[loop]
            for loop in loops:
                pulse = loop._pulse()
                before, since, reported = seen.get(loop, (None, now, False))
                if pulse is None or pulse != before:
                    seen[loop] = (pulse, now, False)
                elif not reported and now - since >= self._threshold:
                    seen[loop] = (pulse, since, True)
                    self._tell(loop, now - since)
        self._watching.release()

    def _tell(self, loop: EventLoop, seconds: float) -> None:
        frame = sys._current_frames().get(loop._thread_id or 0)
        stack = traceback.StackSummary()
        if frame is not None:
            stack = traceback.StackSummary.extract(traceback.walk_stack(frame), lookup_lines=False)
            stack.reverse()
            # What is above the loop's own frame is the culprit's.
            inner = max(
                (at for at, entry in enumerate(stack) if entry.filename == _event_loop.__file__),
                default=-1,
            )
            del stack[: inner + 1]
        try:
            task = asyncio.current_task(loop)
            self._report(Blocked(loop, seconds, stack, task.get_name() if task else None))
        except Exception:
            logger.exception("the watchdog could not report")


def _log(blocked: Blocked) -> None:
    logger.warning("%s", blocked)


def _log_and_note(blocked: Blocked) -> None:
    where = blocked.stack[-1] if blocked.stack else None
    site = f"{where.filename}:{where.lineno}" if where else "another thread"
    _checks.note("blocked loop", site, str(blocked).partition("\n")[0], blocked.seconds)
    _log(blocked)


_recorder: watchdog | None = None


def begin() -> None:
    """Watch for the program's report, unless that is done. Not in the child of a fork."""
    global _recorder
    if _recorder is None:
        from juggler import _tracing

        _recorder = watchdog(report=_log_and_note)
        _recorder.start()
        assert _recorder._thread is not None and _recorder._thread.ident is not None
        _tracing.bystanders.add(_recorder._thread.ident)
