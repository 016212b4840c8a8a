"""How far something is: a bar on a terminal, lines elsewhere, or a function's business."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    Setting: TypeAlias = "bool | Callable[[Progress], object] | None"

_OFTEN = 0.1
"""Seconds between two looks of a person or a function."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a map, or a stage of a pipeline, is.

    Attributes:
        name: what it calls.
        total: how many items there are; None if that is not known.
        done: how many results were handed out, or skipped.
        failed: how many calls have failed for good.
        retried: how many calls were made again.
        under_way: how many items were taken and not yet handed out.
        seconds: since it began.
        note: what it runs on, and why.
        last: whether it has ended.
    """

    name: str
    total: int | None = None
    done: int = 0
    failed: int = 0
    retried: int = 0
    under_way: int = 0
    seconds: float = 0.0
    note: str = ""
    last: bool = False

    @property
    def rate(self) -> float:
        """Items in a second, since it began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that are left, if it goes on so; None if that can't be told."""
        if self.total is None or not self.done:
            return None
        return max(0, self.total - self.done) / self.rate

    def __str__(self) -> str:
        """A line for people."""
        total = "" if self.total is None else f" of {self.total}"
        text = f"{self.name}: {self.done}{total} in {_clock(self.seconds)}, {self.rate:.3g}/s"
        remaining = self.remaining
        if remaining is not None and not self.last:
            text += f", {_clock(remaining)} left"
        return text + self.events

    @property
    def events(self) -> str:
        """What else there is to say in numbers."""
        text = f", {self.under_way} under way" if self.under_way and not self.last else ""
        text += f", {self.failed} failed" if self.failed else ""
        return text + (f", {self.retried} retries" if self.retried else "")


class Display:
    """Calls a function with how far it is."""

    def __init__(self, tell: Callable[[Progress], object]) -> None:
        self._tell = tell
        self._next = 0.0

    def show(self, *rows: Progress) -> None:
        """Take a look, if it is time for one. One row, or one for each stage."""
        now = monotonic()
        if now >= self._next or rows[-1].last:
            self._next = now + _OFTEN
            self._show(rows)

    def close(self) -> None:
        """There is nothing more to see."""

    def _show(self, rows: Sequence[Progress]) -> None:
        for row in rows:
            self._tell(row)


class Lines(Display):
    """Plain lines, less and less often."""

    def __init__(self, stream: Any) -> None:
        super().__init__(self._print)
        self._stream = stream
        self._began = monotonic()
        self._due = 1.0
        self._noted: dict[str, str] = {}

    def _show(self, rows: Sequence[Progress]) -> None:
        elapsed = monotonic() - self._began
        if elapsed >= self._due or rows[-1].last:
            self._due = max(2 * self._due, elapsed) if elapsed < 16 else elapsed + 10
            super()._show(rows)

    def _print(self, row: Progress) -> None:
        text = str(row)
        if row.note and self._noted.get(row.name) != row.note:
            self._noted[row.name] = row.note
            text += f"; {row.note}"
        print(text, file=self._stream, flush=True)


class Bars(Display):
    """A bar for each row, on a terminal."""

    def __init__(self, console: Any) -> None:
        super().__init__(lambda _: None)
        from rich import progress

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=30),
            progress.TextColumn("{task.fields[text]}", markup=False),
            console=console,
        )
        self._tasks: dict[int, Any] = {}
        self._notes: dict[int, str] = {}
        self._open()

    def _show(self, rows: Sequence[Progress]) -> None:
        # Two stages may have one name.
        for number, row in enumerate(rows):
            if number not in self._tasks:
                self._tasks[number] = self._progress.add_task(row.name, total=None, text="")
            if row.note and self._notes.get(number) != row.note:
                self._notes[number] = row.note
                self._note(f"{row.name}: {row.note}")
            text = str(row).removeprefix(f"{row.name}: ")
            total = row.done if row.last and row.total is None else row.total
            self._progress.update(self._tasks[number], total=total, completed=row.done, text=text)

    def _open(self) -> None:
        self._progress.start()

    def _note(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


_HTML: Any = {
    "inline_styles": True,
    "code_format": '<pre style="white-space:pre-wrap;font-family:monospace">{code}</pre>',
}


class NotebookBars(Bars):
    """Bars as one output of a notebook's cell, which is drawn anew; without widgets."""

    def _open(self) -> None:
        self._said: list[str] = []
        self._output: Any = None

    def _note(self, text: str) -> None:
        self._said.append(text)

    def _show(self, rows: Sequence[Progress]) -> None:
        super()._show(rows)
        if self._output is None:
            from IPython.display import display

            self._output = display(self, display_id=True)
        else:
            self._output.update(self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        console = self._progress.console
        for line in self._said:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print(self._progress)
        text = console.export_text(clear=False)
        return {"text/plain": text, "text/html": console.export_html(**_HTML)}

    def close(self) -> None:
        """Leave the output as it is."""


def open_display(setting: Setting) -> Display | None:
    """What fits the streams, or None if nothing is to be shown.

    Args:
        setting: True for a bar, or lines where there is no terminal; None for a bar where there is
            one; False for nothing; or a function that is told.
    """
    if setting is False:
        return None
    if callable(setting):
        return Display(setting)
    stream = sys.stderr
    if stream is None:
        return None
    in_notebook = _is_notebook()
    if in_notebook or stream.isatty():
        from rich.console import Console

        if in_notebook:
            page = Console(record=True, file=io.StringIO(), force_jupyter=False, width=120)
            return NotebookBars(page)
        return Bars(Console(stderr=True))
    return Lines(stream) if setting else None


def _is_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return hasattr(shell, "kernel")


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
