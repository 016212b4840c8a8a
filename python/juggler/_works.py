"""Which maps and pipelines are under way, for whoever ends the program."""

from __future__ import annotations

import weakref
from typing import Protocol


class Work(Protocol):
    """A map or a pipeline under way."""

    def end_intake(self) -> None:
        """Take no more in, and finish what was taken; from any thread."""

    def close(self, at_once: bool = False) -> None:
        """Have nothing more begin, and let go of what has begun if `at_once`; from any thread."""


_under_way: weakref.WeakSet[Work] = weakref.WeakSet()
_takes_in = True


def enroll(work: Work) -> None:
    """It begins."""
    _under_way.add(work)
    if not _takes_in:
        work.end_intake()


def dismiss(work: Work) -> None:
    """It has ended."""
    _under_way.discard(work)


def under_way() -> list[Work]:
    """All of them at this moment."""
    return list(_under_way)


def end_intake() -> None:
    """The program is told to end: what is under way, or begins, takes nothing more in."""
    global _takes_in
    _takes_in = False
    for work in under_way():
        work.end_intake()


def resume_intake() -> None:
    """The program goes on."""
    global _takes_in
    _takes_in = True
