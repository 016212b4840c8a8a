"""The command line that every benchmark has."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import report
from harness.contenders import Contender
from harness.machine import header
from harness.measure import Bench, Effort, Line, among, narrowed, run, select
from harness.timing import empty_loop

_QUICK = Effort(rounds=3, seconds=0.005, share=0.2)


def _options(description: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, small workloads")
    parser.add_argument("--rounds", type=int, help="turns of each contender in a row (9)")
    parser.add_argument("--match", default="", metavar="SUBSTRING", help="rows that contain it")
    parser.add_argument(
        "--only", default="", metavar="SUBSTRING", help="contenders whose name contains it"
    )
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every sample")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the full tables")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least one is needed")
    return options


def _progress(number: int, total: int, bench: Bench, started: float) -> None:
    text = f"[{number}/{total}] {time.monotonic() - started:4.0f} s  {bench.group}: "
    text += bench.metrics[0].name
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _report_errors(lines: Sequence[Line]) -> int:
    failed = 0
    for line in lines:
        for name, error in line.errors.items():
            failed += 1
            print(f"\n{line.group}: {line.metric.name}: {name}\n{error}", file=sys.stderr)
    return failed


def main(
    description: str,
    all_benches: Sequence[Bench],
    contenders: Sequence[Contender],
    arguments: Sequence[str] | None = None,
) -> int:
    """Runs a benchmark.

    Args:
        description: What it measures; the first line is shown by `--help`.
        all_benches: Its rows.
        contenders: Who takes part in the rows that don't name their entrants; in the header, all.
        arguments: The command line's; by default the process's.

    Returns:
        The exit status: 0, 1 if a contender raised in some row, 2 if no row or nobody matches.
    """
    options = _options(description, arguments)
    benches = select(all_benches, options.match)
    if not benches:
        print(f"no row contains {options.match!r}; --list names them all", file=sys.stderr)
        return 2
    if options.list:
        for bench in benches:
            for metric in bench.metrics:
                print(f"{bench.group}: {metric.name}")
        return 0
    taking_part = among(contenders, options.only)
    benches = [left for bench in benches if (left := narrowed(bench, options.only))]
    if not taking_part or not benches:
        print(f"no contender's name contains {options.only!r}", file=sys.stderr)
        return 2

    effort = _QUICK if options.quick else Effort()
    if options.rounds is not None:
        effort = Effort(options.rounds, effort.seconds, effort.share)
    facts = header(contenders, effort, empty_loop(effort))
    started = time.monotonic()
    lines: list[Line] = []
    for number, bench in enumerate(benches, 1):
        _progress(number, len(benches), bench, started)
        lines += run(bench, taking_part, effort)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    facts["took"] = f"{time.monotonic() - started:.0f} s"

    report.print_terminal(facts, lines)
    if options.json:
        report.write_json(options.json, facts, lines)
    if options.markdown:
        options.markdown.write_text(report.markdown(facts, lines), encoding="utf-8")
    return 1 if _report_errors(lines) else 0
