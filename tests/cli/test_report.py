"""The report's rendering, from rows as the native module gives them."""

import io
import json
import re
from pathlib import Path

import pytest

from juggler._report import Row, duration, write_report

LOCK: Row = {
    "kind": "Lock",
    "name": "accounts[main]",
    "site": "bank.py:12",
    "instances": 1_000,
    "uses": 123_456,
    "waits": 7,
    "wait_seconds": 0.25,
    "longest_wait": 0.1,
    "deepest": None,
    "busy_seconds": None,
    "capacity_seconds": None,
}
QUEUE: Row = {
    **LOCK,
    "kind": "Queue",
    "name": None,
    "site": "a/very/long/path/" * 12 + "pipeline.py:3",
    "instances": 1,
    "waits": 2,
    "wait_seconds": 1.5,
    "longest_wait": 1.25,
    "deepest": 64,
}
POOL: Row = {
    **LOCK,
    "kind": "ThreadPoolExecutor",
    "name": None,
    "site": None,
    "instances": 1,
    "uses": 40,
    "waits": 0,
    "wait_seconds": 0.0,
    "longest_wait": 0.0,
    "deepest": 36,
    "busy_seconds": 3.0,
    "capacity_seconds": 4.0,
}


def render(rows: list[Row], path: Path, form: str = "table") -> str:
    write_report(rows, seconds=2.0, form=form, path=str(path))
    return path.read_text("utf-8")


def test_table(tmp_path: Path) -> None:
    text = render([POOL, LOCK, QUEUE], tmp_path / "report")
    summary, _, heading, _, *rows = (line.strip() for line in text.splitlines())
    assert summary == "juggler: ran 2.00 s; 1,002 primitives, 9 waits, 1.75 s in all"
    headings = "primitive name made at made uses waits waited longest deepest busy"
    assert " ".join(heading.split()) == headings
    # By time waited; whole, however long; brackets are no markup.
    assert rows[0].split() == [
        "Queue", QUEUE["site"], "1", "123,456", "2", "1.50", "s", "1.25", "s", "64",
    ]  # fmt: skip
    assert rows[1].split() == [
        "Lock", "accounts[main]", "bank.py:12", "1,000", "123,456", "7", "250", "ms", "100", "ms",
    ]  # fmt: skip
    assert rows[2].split() == ["ThreadPoolExecutor", "1", "40", "0", "0", "0", "36", "75%"]


def test_narrow_terminal_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.__stderr__", terminal)
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")
    write_report([QUEUE], seconds=2.0, form="table", path=None)
    lines = re.sub("\x1b\\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= 70
    # The place is one column, spread over lines: none of it is lost.
    assert QUEUE["site"] is not None
    letters = "".join("".join(lines[4:]).split())
    assert all(letters.count(letter) >= QUEUE["site"].count(letter) for letter in "verylongpath/")


def test_json(tmp_path: Path) -> None:
    report = json.loads(render([LOCK, QUEUE], tmp_path / "report", "json"))
    assert report["wall_seconds"] == 2.0
    assert report["primitives"] == [QUEUE, LOCK]


def test_singular(tmp_path: Path) -> None:
    row: Row = {**LOCK, "instances": 1, "waits": 1}
    assert "; 1 primitive, 1 wait, 250 ms in all\n" in render([row], tmp_path / "report")


def test_pool_that_never_had_a_worker(tmp_path: Path) -> None:
    row: Row = {**POOL, "busy_seconds": 0.0, "capacity_seconds": 0.0}
    assert "%" not in render([row], tmp_path / "report")


def test_broken_stderr_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            raise BrokenPipeError

    monkeypatch.setattr("sys.__stderr__", Broken())
    write_report([], seconds=1.0, form="json", path=None)
    assert written


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0"),
        (3600, "3,600 s"),
        (99.94, "99.9 s"),
        (99.96, "100 s"),
        (1, "1.00 s"),
        (0.99951, "1.00 s"),
        (0.9994, "999 ms"),
        (0.00996, "9.96 ms"),
        (0.000_84, "840 µs"),
        (0.000_000_5, "500 ns"),
        (1e-10, "0.10 ns"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
