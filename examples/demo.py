"""Run the examples on the standard library and on juggler, and compare.

Each program runs as it is, in a process of its own: `python program.py`, then
`juggler run program.py`, in turn and several times over, so that whatever else the machine is doing
disturbs both alike. The table shows the median of the whole process's time for each, their ratio,
and whether both printed the same.

    python demo.py
    python demo.py --quick --repeat 1

At the end `deadlock.py`, which would hang for ever, runs on juggler and shows how it ends there.

The exit status is 1 if a run failed, if outputs differ, or if the deadlock was not found.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

FOLDER = Path(__file__).parent
RUNTIMES = {
    "standard library": [sys.executable],
    "juggler": [sys.executable, "-m", "juggler", "run"],
}
RUN_TIMEOUT = 120.0
"""Seconds after which a run counts as failed: nothing here takes a tenth of it."""


@dataclass(frozen=True)
class Program:
    """An example, what it does in a few words, and its arguments for a short run."""

    file: str
    purpose: str
    quick: tuple[str, ...]
    prepare: tuple[str, ...] = ()
    """Arguments with which it first makes its input, so that no run's time contains that."""
    needs: str | None = None
    """A package without which it is left out."""

    @property
    def possible(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


PROGRAMS = (
    Program("fetch_pages.py", "thread pool, web", ("--pages=60", "--workers=8"), needs="requests"),
    Program("csv_pipeline.py", "CSV rows, queues", ("--rows=3000",), prepare=("--make-only",)),
    Program("bounded_buffer.py", "conditions", ("--items=5000",)),
    Program("bank.py", "locks, SQLite", ("--rounds=3", "--transfers=50")),
    Program("primes.py", "process pool", ("--limit=200000",)),
    Program("factorials.py", "pool, small calls", ("--rows=200",)),
    Program("photo_pipeline.py", "pool, arrays", ("--photos=2", "--width=400"), needs="numpy"),
    Program("async_service.py", "asyncio and pool", ("--letters=100",)),
    Program("crawler.py", "asyncio, web", ("--pages=100",)),
    Program("chat_server.py", "asyncio, streams", ("--clients=5",)),
    Program("failing_member.py", "TaskGroup", ("--orders=500",)),
    Program("graceful_shutdown.py", "signals, streams", ("--jobs=500",)),
    Program("rate_limited_client.py", "policies, web", ("--orders=60",)),
    Program("download_files.py", "downloads, web", ("--files=40",)),
    Program("mixed_pipeline.py", "pipeline, two models", ("--pages=100",), needs="requests"),
    Program("wrong_choice.py", "for advise", ("--rounds=10",)),
    Program("word_counts.py", "map, two models", ("--documents=40",)),
    Program("shared_counter.py", "shared memory", ("--rounds=1000",)),
    Program("process_chain.py", "process queues", ("--items=500",)),
)


@dataclass(frozen=True)
class Run:
    """How one run of a program went."""

    seconds: float
    status: int | None
    """The exit status, or None if the run was ended at `RUN_TIMEOUT`."""
    stdout: str
    stderr: str

    @property
    def failure(self) -> str | None:
        """What to say of a run that failed; None of one that did not."""
        if self.status == 0:
            return None
        how = f"over {RUN_TIMEOUT:.0f} s" if self.status is None else f"exit status {self.status}"
        last_words = self.stderr.strip().splitlines()[-1:] or ["nothing on standard error"]
        return f"{how}: {last_words[0]}"


@dataclass(frozen=True)
class Row:
    """One line of the table: all the runs of one program."""

    program: str
    standard: Sequence[Run]
    juggler: Sequence[Run]

    @property
    def problems(self) -> list[str]:
        """The runs that failed, or else that the outputs differ, or else nothing."""
        runs = [("standard library", run) for run in self.standard]
        runs += [("juggler", run) for run in self.juggler]
        failures = [f"{self.program} on {name}: {run.failure}" for name, run in runs if run.failure]
        if failures or self.equal:
            return failures
        return [f"{self.program}: the outputs differ"]

    @property
    def succeeded(self) -> bool:
        """Whether every run ended with status 0, so that its time means something."""
        return not any(run.failure for run in [*self.standard, *self.juggler])

    @property
    def equal(self) -> bool:
        """Whether every run printed the same, on either runtime."""
        return len({run.stdout for run in [*self.standard, *self.juggler]}) == 1

    @property
    def ratio(self) -> float:
        """The standard library's median time by juggler's: above 1, juggler is faster."""
        return seconds(self.standard) / seconds(self.juggler)


def seconds(runs: Sequence[Run]) -> float:
    """Return the median time of `runs`."""
    return median(run.seconds for run in runs)


def execute(command: Sequence[str]) -> Run:
    """Run `command` in the examples' folder and time the whole process."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=FOLDER, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return Run(time.perf_counter() - start, None, "", "")
    return Run(time.perf_counter() - start, done.returncode, done.stdout, done.stderr)


def compare(program: Program, repeat: int, quick: bool, report: Callable[[str], None]) -> Row:
    """Run `program` `repeat` times on each runtime, in turn, and `report` each run before it."""
    arguments = program.quick if quick else ()
    if program.prepare:
        report(f"{program.file}: making its input")
        made = execute([sys.executable, program.file, *arguments, *program.prepare])
        if made.failure:
            return Row(program.file, [made], [made])
    runs: dict[str, list[Run]] = {name: [] for name in RUNTIMES}
    for number in range(1, repeat + 1):
        for name, command in RUNTIMES.items():
            report(f"{program.file} on {name}, run {number} of {repeat}")
            runs[name].append(execute([*command, program.file, *arguments]))
    return Row(program.file, runs["standard library"], runs["juggler"])


@contextmanager
def progress_line(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the next step: a live bar on a terminal, else a line each."""
    if not console.is_terminal:
        done = iter(range(1, steps + 1))
        yield lambda step: console.print(f"[{next(done)}/{steps}] {step}", markup=False)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console) as progress:
        task = progress.add_task("", total=steps, completed=-1)
        yield lambda step: progress.update(task, advance=1, description=step)
        progress.update(task, completed=steps, description="done")


def table(rows: Sequence[Row]) -> Table:
    """Lay out the comparison; a program with a failed run gets no times."""
    purposes = {program.file: program.purpose for program in PROGRAMS}
    result = Table(title="The same programs, unchanged, on both runtimes (median of whole runs)")
    result.add_column("program", no_wrap=True)
    result.add_column("what it does")
    result.add_column("standard\nlibrary", justify="right")
    result.add_column("juggler", justify="right")
    result.add_column("ratio", justify="right")
    result.add_column("outputs\nequal")
    for row in rows:
        cells = ["-", "-", "-", "failed"]
        if row.succeeded:
            cells = [
                f"{seconds(row.standard):.2f} s",
                f"{seconds(row.juggler):.2f} s",
                f"{row.ratio:.2f}x",
                "yes" if row.equal else "NO",
            ]
        result.add_row(row.program, purposes.get(row.program, ""), *cells)
    return result


def deadlock_message(run: Run) -> str | None:
    """Return the message of the `DeadlockError` that ended `run`; None if none did."""
    *_, last = run.stderr.rpartition("DeadlockError: ")
    if run.status in (0, None) or last == run.stderr:
        return None
    return "DeadlockError: " + last.rstrip()


def main() -> None:
    """Compare all the programs, show the table and the deadlock, and judge."""
    parser = argparse.ArgumentParser(description="The examples on both runtimes, compared.")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small inputs, to try it out")
    options = parser.parse_args()
    if options.repeat < 1:
        parser.error(f"argument --repeat: must be at least 1, not {options.repeat}")
    console = Console()
    programs = [program for program in PROGRAMS if program.possible]
    steps = len(programs) * options.repeat * len(RUNTIMES)
    steps += sum(bool(program.prepare) for program in programs) + 1
    with progress_line(console, steps) as report:
        rows = [compare(program, options.repeat, options.quick, report) for program in programs]
        report("deadlock.py on juggler")
        deadlock = execute([*RUNTIMES["juggler"], "deadlock.py"])
    console.print(table(rows))
    for program in PROGRAMS:
        if not program.possible:
            console.print(f"{program.file} was left out: {program.needs} is not installed")
    problems = [problem for row in rows for problem in row.problems]
    message = deadlock_message(deadlock)
    if message is None:
        problems.append(f"deadlock.py on juggler: no DeadlockError ({deadlock.failure})")
    else:
        console.print("\n[bold]deadlock.py, which hangs on the standard library:[/bold]")
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
