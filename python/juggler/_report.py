"""The report of ``juggler run --report``: what a program waited for, as a table or as JSON.

With it goes what the checks of its event loops have found.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

__all__ = ["Finding", "Row", "write_report"]


class Row(TypedDict):
    """What the program did with the primitives made at one place, as the native module counts."""

    kind: str
    """The class: ``"Lock"``, ``"Queue"``, ``"ThreadPoolExecutor"``, ..."""
    name: str | None
    """The name that the program gave, as in ``Lock(name="accounts")``."""
    site: str | None
    """Where they were made: ``"file.py:12"``."""
    instances: int
    uses: int
    waits: int
    """How many of the uses had to wait."""
    wait_seconds: float
    """All the waits together, over all threads."""
    longest_wait: float
    """The longest single wait, in seconds."""
    deepest: int | None
    """Queues: the deepest fill. Pools: the deepest backlog."""
    busy_seconds: float | None
    """Pools: how long the workers ran tasks, all together."""
    capacity_seconds: float | None
    """Pools: how long the workers existed, all together."""


class Finding(TypedDict):
    """What an event loop's checks have found at one place."""

    kind: str
    """``"blocked loop"``, ``"swallowed cancellation"`` or ``"never awaited"``."""
    site: str
    """Where: ``"file.py:12"``."""
    count: int
    """How many times."""
    seconds: float | None
    """Blocked loops: for how long, the longest time, as far as was seen."""
    text: str
    """What there is to say about the first one."""


def write_report(
    rows: Sequence[Row],
    findings: Sequence[Finding] = (),
    *,
    seconds: float,
    form: str,
    path: str | None,
) -> None:
    """Write the report of a program that has ended.

    Args:
        rows: What the program used, in any order.
        findings: What the checks of its event loops have found, in the order of finding.
        seconds: How long the program ran.
        form: ``"table"`` or ``"json"``.
        path: The file to write; None for standard error, after the program's own output.
    """
    rows = sorted(rows, key=lambda row: (-row["wait_seconds"], -row["uses"], row["kind"]))
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            _write(rows, findings, seconds, form, file)
        return
    # The interpreter flushes them again, and tells of a failure as it always does.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    # The program may have put another object in the place of `sys.stderr`. None: it was closed
    # when the program started.
    if sys.__stderr__ is not None:
        with contextlib.suppress(BrokenPipeError):
            _write(rows, findings, seconds, form, sys.__stderr__)


def _write(
    rows: Sequence[Row], findings: Sequence[Finding], seconds: float, form: str, file: TextIO
) -> None:
    if form == "json":
        report = {
            "program": sys.orig_argv,
            "wall_seconds": seconds,
            "primitives": rows,
            "findings": findings,
        }
        json.dump(report, file, indent=2)
        file.write("\n")
    else:
        _write_table(rows, findings, seconds, file)
    file.flush()


def _write_table(
    rows: Sequence[Row], findings: Sequence[Finding], seconds: float, file: TextIO
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in texts:
            made.add_column(heading, overflow="fold")
        for heading in numbers:
            made.add_column(heading, justify="right", overflow="fold")
        return made

    # Cells fold on a terminal that is too narrow; a file or a pipe has all the room in the world.
    console = Console(file=file, width=None if file.isatty() else 10_000, highlight=False)
    console.print(Text(_summary(rows, seconds), style="bold"))
    # Text, not str, in all cells: a name may hold brackets, which would be taken for markup.
    if rows:
        primitives = table(
            ("primitive", "name", "made at"),
            ("made", "uses", "waits", "waited", "longest", "deepest", "busy"),
        )
        for row in rows:
            primitives.add_row(*map(Text, _cells(row)), style=None if row["waits"] else "dim")
        console.print(primitives)
    if findings:
        found = table(("found", "at", "what"), ("times", "longest"))
        for finding in findings:
            longest = "" if finding["seconds"] is None else duration(finding["seconds"])
            cells = (finding["kind"], finding["site"], finding["text"])
            found.add_row(*map(Text, (*cells, f"{finding['count']:,}", longest)))
        console.print(found)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row["kind"],
        row["name"] or "",
        row["site"] or "",
        f"{row['instances']:,}",
        f"{row['uses']:,}",
        f"{row['waits']:,}",
        duration(row["wait_seconds"]),
        duration(row["longest_wait"]),
        "" if row["deepest"] is None else f"{row['deepest']:,}",
        _busy(row),
    )


def _summary(rows: Sequence[Row], seconds: float) -> str:
    made = sum(row["instances"] for row in rows)
    waits = sum(row["waits"] for row in rows)
    if not rows:
        return f"juggler: ran {duration(seconds)}; no primitives used"
    waited = duration(sum(row["wait_seconds"] for row in rows))
    return (
        f"juggler: ran {duration(seconds)}; {made:,} primitive{'s' * (made != 1)},"
        f" {waits:,} wait{'s' * (waits != 1)}, {waited} in all"
    )


def _busy(row: Row) -> str:
    busy, capacity = row["busy_seconds"], row["capacity_seconds"]
    if busy is None or not capacity:
        return ""
    return f"{busy / capacity:.0%}"


def duration(seconds: float) -> str:
    """A time with three digits and its unit: ``1.50 s``, ``12.3 ms``, ``840 µs``."""
    if seconds == 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        value = seconds / size
        # From where three digits would show the unit's 1 rather than 1000 of the next.
        if value >= 0.9995 or unit == "ns":
            break
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {unit}"
