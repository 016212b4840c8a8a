"""Mistakes of programs that go unnoticed: forgotten awaits, swallowed cancellations."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from juggler._report import Finding

enabled = False
"""Whether loops have checks that were not told so: under ``juggler run --report``."""

_found: dict[tuple[str, str], Finding] | None = None
_INTERNAL = (os.path.dirname(asyncio.__file__), os.path.dirname(__file__))


class SwallowedCancellation(RuntimeWarning):
    """A task was cancelled, and went on or returned as if it were not.

    Its `CancelledError` was caught and not raised again.
    Whoever cancelled the task (a timeout, a task group, the end of the program) waits for it in
    vain or takes its result for the real one. If that is meant, call `Task.uncancel`.
    """


def record() -> None:
    """From now on every loop has checks and a watchdog, and what they find is kept."""
    global enabled, _found
    enabled, _found = True, {}


def findings() -> list[Finding]:
    """What was found since `record`."""
    return list((_found or {}).values())


def note(kind: str, site: str, text: str, seconds: float | None = None) -> None:
    """Keep something that was found, if anybody wants it.

    Args:
        kind: What it is, for the reader.
        site: Where: ``"file.py:12"``. The same at the same place is counted.
        text: What there is to say about the first.
        seconds: How long it took, for what takes time: the longest counts.
    """
    if _found is None:
        return
    first: Finding = {"kind": kind, "site": site, "count": 0, "seconds": seconds, "text": text}
    finding = _found.setdefault((kind, site), first)
    finding["count"] += 1
    if seconds is not None:
        finding["seconds"] = max(finding["seconds"] or 0.0, seconds)


def tell_swallowed(
    task: asyncio.Task[Any], place: tuple[CodeType, int, int], returned: bool
) -> bool:
    """Warn of a `CancelledError` that got no further than `place`; called by tasks.

    Args:
        task: The task that was cancelled.
        place: The function's code, the line, and how often the task had been cancelled.
        returned: Whether the task has returned. If not, it has gone on to await something.

    Returns:
        Whether that is certain. A task group may hold a cancellation back for a while.
    """
    code, line, _ = place
    if not returned and code.co_filename.startswith(_INTERNAL):
        return False
    then = "it returned" if returned else "it went on"
    text = f"{code.co_qualname}() has swallowed the cancellation of its task"
    note("swallowed cancellation", f"{code.co_filename}:{line}", f"{text}, {task.get_name()!r}")
    # Without the task's name: the text, too, decides whether it is told a second time.
    warnings.warn_explicit(
        f"{text}: CancelledError was caught here, and {then}. Raise it again, or call "
        "asyncio.current_task().uncancel() if the cancellation is to end here",
        SwallowedCancellation,
        code.co_filename,
        line,
        registry=_warned,
    )
    return True


_warned: dict[Any, Any] = {}


def _warn_unawaited_coroutine(coroutine: Any) -> None:
    """Warn of a coroutine that was never awaited; called by the interpreter.

    Stands in for a private function of the module `warnings`, which does not say where the
    function is if it does not know where it was called.
    """
    code: CodeType = coroutine.cr_code
    origin = coroutine.cr_origin
    text = f"coroutine '{coroutine.__qualname__}' was never awaited"
    site = f"{code.co_filename}:{code.co_firstlineno}"
    if origin is None:
        more = (
            f"It is defined at {site}. In debug mode, with checks=True or under juggler run "
            "--report, this tells where it was called"
        )
    else:
        import traceback

        site = "{}:{}".format(*origin[0])
        frames = [(file, line, name, None) for file, line, name in reversed(origin)]
        lines = traceback.StackSummary.from_list(frames).format()
        more = "Coroutine created at (most recent call last)\n" + "".join(lines).rstrip("\n")
    note("never awaited", site, text)
    warnings.warn(f"{text}\n{more}", RuntimeWarning, stacklevel=2, source=coroutine)


warnings._warn_unawaited_coroutine = _warn_unawaited_coroutine  # type: ignore[attr-defined]


class origins:  # noqa: N801
    """Has coroutines of this thread remember the line that made them."""

    __slots__ = ("_depth",)

    def __enter__(self) -> None:
        self._depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(max(self._depth, 1))

    def __exit__(self, *_: object) -> None:
        sys.set_coroutine_origin_tracking_depth(self._depth)
