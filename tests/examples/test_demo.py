"""The demo's judgement: medians, equality, failures, the deadlock, and the exit status."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

EXAMPLES = Path(__file__).parents[2] / "examples"
FAKE_RUNTIME = """
import runpy, sys
class DeadlockError(Exception): pass
program = sys.argv[1]
if program == "deadlock.py":
    {on_deadlock}
runpy.run_path(program, run_name="__main__")
print({extra!r}, end="")
"""


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The demo as a module."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("demo")


@pytest.fixture
def small_demo(demo: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the whole demo over one tiny program and a make-believe juggler.

    It takes what the runtime adds to the output, what it does with `deadlock.py`, and programs to
    run also.
    """

    def run(
        extra: str = "",
        on_deadlock: str = "raise DeadlockError('a > b > a')",
        also: tuple[Any, ...] = (),
    ) -> int | None:
        (tmp_path / "tiny.py").write_text("print('hello')")
        (tmp_path / "deadlock.py").write_text("")
        fake = tmp_path / "fake_runtime.py"
        fake.write_text(FAKE_RUNTIME.format(extra=extra, on_deadlock=on_deadlock))
        runtimes = {"standard library": [sys.executable], "juggler": [sys.executable, str(fake)]}
        monkeypatch.setattr(demo, "FOLDER", tmp_path)
        monkeypatch.setattr(demo, "RUNTIMES", runtimes)
        monkeypatch.setattr(demo, "PROGRAMS", (demo.Program("tiny.py", "says hello", ()), *also))
        monkeypatch.setattr(sys, "argv", ["demo.py", "--repeat=2"])
        with pytest.raises(SystemExit) as ended:
            demo.main()
        return int(ended.value.code or 0)

    return run


def runs(demo: Any, *seconds: float, stdout: str = "out") -> list[Any]:
    """Return successful runs that took these times."""
    return [demo.Run(each, 0, stdout, "") for each in seconds]


def text(demo: Any, *rows: Any) -> str:
    """Return the table as it is printed on a wide terminal without colours."""
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(demo.table(rows))
    return captured.get()


def test_ratio_is_of_medians(demo: Any) -> None:
    row = demo.Row("a.py", runs(demo, 9.0, 1.0, 3.0), runs(demo, 1.5, 0.1, 8.0))
    assert row.ratio == 2.0
    assert row.problems == []
    line = next(line for line in text(demo, row).splitlines() if "a.py" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        "a.py",
        "",
        "3.00 s",
        "1.50 s",
        "2.00x",
        "yes",
    ]


def test_one_differing_run_is_enough_to_differ(demo: Any) -> None:
    odd = [*runs(demo, 1.0), *runs(demo, 1.0, stdout="other")]
    row = demo.Row("a.py", runs(demo, 1.0, 1.0), odd)
    assert not row.equal
    assert row.problems == ["a.py: the outputs differ"]
    assert "NO" in text(demo, row)


def test_a_failed_run_gets_no_times_and_says_its_last_words(demo: Any) -> None:
    failed = demo.Run(1.25, 3, "out", "Traceback\nValueError: no\n")
    row = demo.Row("a.py", runs(demo, 1.25), [failed])
    assert row.problems == ["a.py on juggler: exit status 3: ValueError: no"]
    printed = text(demo, row)
    assert "failed" in printed
    assert "1.25" not in printed


def test_a_run_that_takes_too_long_is_ended_and_failed(
    demo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "RUN_TIMEOUT", 0.2)
    run = demo.execute([sys.executable, "-c", "import time; time.sleep(600)"])
    assert run.status is None
    assert run.failure.startswith("over ")


@pytest.mark.parametrize(
    ("status", "stderr", "message"),
    [
        (1, "Traceback:\njuggler.threading.DeadlockError: a\n  b\n", "DeadlockError: a\n  b"),
        (0, "DeadlockError: a\n", None),
        (1, "ValueError: a\n", None),
        (None, "", None),
    ],
)
def test_deadlock_message(demo: Any, status: int | None, stderr: str, message: str | None) -> None:
    assert demo.deadlock_message(demo.Run(1.0, status, "", stderr)) == message


def test_all_is_well(small_demo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert small_demo() == 0
    printed = capsys.readouterr().out
    assert "[1/5] tiny.py on standard library, run 1 of 2" in printed
    assert "[5/5] deadlock.py on juggler" in printed
    assert "DeadlockError: a > b > a" in printed


def test_differing_output_fails_the_demo(
    small_demo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small_demo(extra="more") == 1
    assert "tiny.py: the outputs differ" in capsys.readouterr().out


def test_a_missed_deadlock_fails_the_demo(
    small_demo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert small_demo(on_deadlock="pass") == 1
    assert "no DeadlockError" in capsys.readouterr().out


def test_a_program_that_lacks_a_package_is_left_out_and_named(
    demo: Any, small_demo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = demo.Program("lacking.py", "", (), needs="a_package_that_nobody_has")
    assert small_demo(also=(lacking,)) == 0
    printed = capsys.readouterr().out
    assert "lacking.py was left out: a_package_that_nobody_has is not installed" in printed
    assert "[5/5] deadlock.py" in printed


def test_the_real_demo_on_small_inputs(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--quick", "--repeat=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("│ yes" in line for line in done.stdout.splitlines()) == sum(
        program.possible for program in demo.PROGRAMS
    )
    assert "DeadlockError: " in done.stdout
