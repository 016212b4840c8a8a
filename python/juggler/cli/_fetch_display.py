"""What ``juggler fetch`` shows: bars on a terminal, plain lines elsewhere, or JSON."""

from __future__ import annotations

import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from juggler.downloads import Downloads, Fetched

_BARS = 16
"""The most files that have a bar at once; the others are in the sum."""


def display(files: int, as_json: bool, quiet: bool) -> Display:
    """What fits the streams.

    Args:
        files: How many files are to be fetched.
        as_json: Whether standard output gets JSON.
        quiet: Whether to show failures only.

    Returns:
        The display, a context manager.
    """
    if not quiet and sys.stderr.isatty():
        return _Bars(files, as_json)
    return Display(files, as_json, quiet)


class Display:
    """Plain lines on standard error, one for each finished file, and JSON on standard output."""

    interval: float | None = None
    """Seconds between two calls of `refresh`, or None where files alone count."""

    def __init__(self, files: int, as_json: bool, quiet: bool) -> None:
        self._files = files
        self._json = as_json
        self._quiet = quiet
        self._began = monotonic()
        self._done = 0
        self._failed = 0
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def finished(self, fetched: Fetched) -> None:
        """Tell of a file that is whole, or failed."""
        if fetched.error is None:
            self._done += 1
            self._size += fetched.size
        else:
            self._failed += 1
        if self._json:
            self._print_json(_as_json(fetched))
        if fetched.error is not None:
            self.line(f"failed  {fetched.error}")
        elif not self._quiet:
            extras = [f"{fetched.seconds:.1f} s"]
            if fetched.resumed:
                extras.append(f"{size(fetched.resumed)} were there")
            if fetched.attempts > 1:
                extras.append(f"{fetched.attempts} attempts")
            self.line(f"whole   {fetched.path}  {size(fetched.size)}  ({', '.join(extras)})")

    def refresh(self, downloads: Downloads) -> None:
        """Show how far the files are."""

    def summary(self, received: int) -> None:
        """Tell of everything; `received` bytes came over the network."""
        seconds = monotonic() - self._began
        if self._json:
            self._print_json(
                {
                    "files": self._files,
                    "whole": self._done,
                    "failed": self._failed,
                    "bytes": self._size,
                    "received": received,
                    "seconds": round(seconds, 3),
                }
            )
        if not self._quiet:
            speed = size(int(received / max(seconds, 1e-9)))
            failures = f", {self._failed} failed" if self._failed else ""
            self.line(
                f"{self._done} of {self._files} files whole{failures}: "
                f"{size(self._size)} in {seconds:.1f} s, {speed}/s"
            )

    def interrupted(self) -> None:
        """Tell of Ctrl-C."""
        self.line(
            f"interrupted: {self._done} of {self._files} files whole; "
            "the same command continues the parts"
        )

    def line(self, text: str) -> None:
        """Print a line for people."""
        print(text, file=sys.stderr, flush=True)

    def _print_json(self, value: dict[str, object]) -> None:
        import json

        print(json.dumps(value), flush=True)


class _Bars(Display):
    """A bar for each file that is under way, and one for all."""

    interval = 0.1

    def __init__(self, files: int, as_json: bool) -> None:
        super().__init__(files, as_json, quiet=False)
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", table_column=None, markup=False),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._all = self._progress.add_task("all files", total=None, note="")
        self._bars: dict[str, progress.TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def refresh(self, downloads: Downloads) -> None:
        under_way = [file for file in downloads.progress() if file.stage != "queued"]
        shown = {f"{file.url} {file.name}": file for file in under_way[:_BARS]}
        for key in self._bars.keys() - shown.keys():
            self._progress.remove_task(self._bars.pop(key))
        for key, file in shown.items():
            if key not in self._bars:
                self._bars[key] = self._progress.add_task("", note="")
            note = f"{file.reason}: again in {file.wait:.0f} s" if file.reason else file.stage
            self._progress.update(
                self._bars[key],
                description=file.name[-30:],
                completed=file.received,
                total=file.length,
                note="" if note == "receiving" else note,
            )
        failed = f", {self._failed} failed" if self._failed else ""
        self._progress.update(
            self._all,
            completed=self._size + sum(file.received for file in under_way),
            note=f"{self._done} of {self._files} files{failed}",
        )

    def line(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _as_json(fetched: Fetched) -> dict[str, object]:
    error = fetched.error
    told = error and {"kind": error.kind, "message": error.args[0], "status": error.status}
    return {
        "url": fetched.url,
        "path": fetched.path and str(fetched.path),
        "source": fetched.source,
        "size": fetched.size,
        "resumed": fetched.resumed,
        "attempts": fetched.attempts,
        "seconds": round(fetched.seconds, 3),
        "error": told,
    }


def size(count: int) -> str:
    """A number of bytes, for people."""
    number, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
