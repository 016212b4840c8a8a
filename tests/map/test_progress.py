"""How far it is: bars, lines, functions, nothing."""

import io
import subprocess
import sys
import time
from typing import Any

import pytest
from calls import brittle, double, sleepy

import juggler
from juggler import _progress
from juggler._progress import Bars, Lines, Progress


def test_a_function_is_told() -> None:
    told: list[Progress] = []
    list(juggler.map(sleepy, [0.02] * 30, on="threads", limit=1, progress=told.append))
    assert len(told) > 2
    assert [one.done for one in told] == sorted(one.done for one in told)
    last = told[-1]
    assert last.last and not told[-2].last
    assert (last.name, last.done, last.total, last.failed) == ("sleepy", 30, 30, 0)
    assert last.note.startswith("threads, 1 at once")


def test_failures_and_retries_are_counted() -> None:
    told: list[Progress] = []
    list(
        juggler.map(brittle, range(6), on="threads", retries=1, errors="skip", progress=told.append)
    )
    assert (told[-1].done, told[-1].failed, told[-1].retried) == (6, 2, 2)


def test_the_end_of_an_unfinished_map_is_told() -> None:
    told: list[Progress] = []
    with juggler.map(double, range(1000), on="serial", progress=told.append) as results:
        next(results)
    assert told[-1].last and told[-1].done == 1


def test_it_goes_on_while_nothing_arrives() -> None:
    told: list[Progress] = []
    list(juggler.map(sleepy, [1.2], on="threads", progress=told.append))
    assert len(told) >= 3


def test_a_line_for_people() -> None:
    row = Progress("fetch", 200, 50, 3, 7, 12, seconds=100.0)
    assert str(row) == (
        "fetch: 50 of 200 in 1:40, 0.5/s, 5:00 left, 12 under way, 3 failed, 7 retries"
    )
    assert str(Progress("f", None, 5, seconds=2.0, last=True)) == "f: 5 in 2.0 s, 2.5/s"
    assert Progress("f").remaining is None


def test_lines_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(_progress, "monotonic", lambda: now)
    stream = io.StringIO()
    lines = Lines(stream)
    for second in range(61):
        now = float(second)
        lines.show(Progress("f", 100, second, seconds=now, note="threads"))
    lines.show(Progress("f", 100, 61, seconds=61.0, note="threads", last=True))
    printed = stream.getvalue().splitlines()
    assert 5 <= len(printed) <= 12
    assert [line.endswith("; threads") for line in printed] == [True] + [False] * (len(printed) - 1)


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    stream = io.StringIO()
    bars = Bars(Console(file=stream, force_terminal=True, width=120))
    bars.show(Progress("double", 10, 4, seconds=1.0, note="threads, because"))
    time.sleep(0.15)
    bars.show(Progress("double", 10, 10, seconds=2.0, note="threads, because", last=True))
    bars.close()
    shown = stream.getvalue()
    assert "double: threads, because" in shown
    assert "10 of 10 in 2.0 s" in shown


_PROGRAM = """
import sys, juggler
list(juggler.map(abs, range(10), on="threads", progress={progress}))
print([name for name in sys.modules if name.startswith("rich")])
"""


@pytest.mark.parametrize("progress", [False, None, True])
def test_without_a_terminal(progress: Any) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(progress=progress)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert run.stdout == "[]\n"
    if progress:
        assert run.stderr.startswith("abs: 10 of 10 in ")
        assert run.stderr.count("\n") == 1
    else:
        assert run.stderr == ""


def test_on_a_terminal() -> None:
    import os
    import pty

    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM.format(progress=None)],
        stderr=theirs,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    try:
        while received := os.read(ours, 4096):
            shown += received
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert run.wait(60) == 0
    assert b"10 of 10" in shown
