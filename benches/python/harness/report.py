"""Tables for the terminal and for a results file, and the same data for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from harness.measure import Line, as_json

LEGEND = (
    "ratio: the baseline's value over the contender's; above 1 the contender is ahead. "
    "±: half the interquartile range over the median. "
    "absent: juggler hands out the standard library's own object, or lacks it. "
    "-: the contender has no such class. "
    "< name: juggler is not ahead of that contender (a difference inside ± is a tie)."
)


def legend(lines: Sequence[Line]) -> str:
    """What the signs mean, and why some contenders are in the tables but no rivals."""
    shown = {one.name: one.informative for line in lines for one in line.entrants}
    return " ".join([LEGEND, *(f"{name}: {why}." for name, why in shown.items() if why)])


def value_text(value: float, unit: str) -> str:
    """Three significant digits with the unit that fits."""
    if unit == "B":
        return f"{value:,.0f} B"
    for factor, name in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        scaled = value * factor
        if scaled < 999.5:
            digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
            return f"{scaled:.{digits}f} {name}"
    return f"{value:.2f} s"


def ratio_text(ratio: float | None) -> str:
    """A ratio with enough digits to tell one from 1.1."""
    if ratio is None:
        return ""
    return f"{ratio:.1f}x" if ratio >= 9.995 else f"{ratio:.2f}x"


def _missing(line: Line, name: str) -> str | None:
    if name in line.errors:
        return "ERROR"
    if name not in line.samples:
        return "absent" if name.startswith("juggler") else "-"
    return None


def _full_cell(line: Line, name: str) -> str:
    """Time, spread and ratio."""
    if missing := _missing(line, name):
        return missing
    value = line.value(name)
    assert value is not None
    text = f"{value_text(value, line.metric.unit)} ±{line.spread(name):.0%}"
    return text if name == line.baseline else f"**{ratio_text(line.ratio(name))}** {text}"


def _narrow_cells(line: Line) -> list[str]:
    """The terminal's: the baseline's and juggler's values, everybody's ratio."""
    cells = [line.metric.name]
    for contender in line.entrants:
        name = contender.name
        value = line.value(name)
        missing = _missing(line, name)
        if name == line.baseline or name.startswith("juggler"):
            text = "" if value is None else value_text(value, line.metric.unit)
            spread = "" if value is None else f" ±{line.spread(name):.0%}"
            cells.append(missing or text + spread)
        if name != line.baseline:
            cells.append("" if missing == "absent" else missing or ratio_text(line.ratio(name)))
    return [*cells, _mark(line)]


def _narrow_titles(line: Line) -> list[str]:
    titles = [line.group]
    for contender in line.entrants:
        name = contender.name
        if name == line.baseline or name.startswith("juggler"):
            titles.append(name)
        if name != line.baseline:
            titles.append("ratio" if name.startswith("juggler") else name)
    return [*titles, "behind"]


def _mark(line: Line) -> str:
    rivals = line.ahead_of_juggler()
    return f"< {', '.join(rivals)}" if rivals else ""


def groups(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """The lines of each table, in the order measured."""
    for _, members in groupby(lines, key=lambda line: line.group):
        yield list(members)


def print_terminal(facts: Mapping[str, str], lines: Sequence[Line]) -> None:
    """Prints the header and the tables, with rich where it is installed."""
    width = max(map(len, facts))
    for name, fact in facts.items():
        print(f"{name:>{width}}  {fact}")
    for members in groups(lines):
        print()
        _print_table(_narrow_titles(members[0]), [_narrow_cells(line) for line in members])
    print()
    print(legend(lines))


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _print_plain(titles, rows)
        return
    table = Table(header_style="bold", title_justify="left")
    for number, title in enumerate(titles):
        last = number == len(titles) - 1
        table.add_column(
            title,
            justify="left" if number == 0 or last else "right",
            no_wrap=True,
            style="yellow" if last else "bold" if title == "ratio" else "",
        )
    for row in rows:
        table.add_row(*row)
    # Wider than the terminal is better wrapped by the terminal than cut; a pipe has no width.
    console = Console(highlight=False)
    needed = sum(max(len(cells[n]) for cells in (titles, *rows)) + 3 for n in range(len(titles)))
    console.width = max(console.width if console.is_terminal else 0, needed + 1)
    console.print(table)


def _print_plain(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cells[n]) for cells in (titles, *rows)) for n in range(len(titles))]
    for cells in (titles, *rows):
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest[:-1])]
        print("  ".join([*padded, rest[-1][0]]).rstrip())


def markdown(facts: Mapping[str, str], lines: Sequence[Line]) -> str:
    """A results file: the header, and every contender's ratio, time and spread."""
    parts = ["| | |\n|---|---|"]
    parts[0] += "".join(f"\n| {name} | {fact} |" for name, fact in facts.items())
    for members in groups(lines):
        names = [contender.name for contender in members[0].entrants]
        rows = [
            f"| {members[0].group} | {' | '.join(names)} | behind |",
            f"|---|{'---:|' * len(names)}---|",
        ]
        for line in members:
            cells = " | ".join(_full_cell(line, name) for name in names)
            rows.append(f"| {line.metric.name} | {cells} | {_mark(line)} |")
        parts.append("\n".join(rows))
    return "\n\n".join([*parts, legend(lines)]) + "\n"


def write_json(path: Path, facts: Mapping[str, str], lines: Sequence[Line]) -> None:
    """Writes the header and every sample."""
    document = {"header": facts, "lines": [as_json(line) for line in lines]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
