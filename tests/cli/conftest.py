"""Runs the same command line on ``python`` and on ``juggler run``."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

JUGGLER_RUN = [sys.executable, "-m", "juggler", "run"]

# Differs from run to run.
_ADDRESS = re.compile("at 0x[0-9a-f]+")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function that runs a command in an empty folder and captures what it prints."""

    def run(
        command: list[str], *, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            input=stdin,
            # Without colours, whatever runs the tests, and with what the test wants on top.
            env={**_ENVIRONMENT, **(env or {})},
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=60,
            check=False,
        )
        done.stdout, done.stderr = (_ADDRESS.sub("at 0x", t) for t in (done.stdout, done.stderr))
        return done

    return run


@pytest.fixture
def check(run: Run, tmp_path: Path) -> Callable[..., str]:
    """A function that runs the text of a program, expects it to succeed, and gives its output."""

    def check(program: str, *, juggler: bool = False) -> str:
        path = tmp_path / "program.py"
        path.write_text(program, encoding="utf-8")
        done = run([*(JUGGLER_RUN if juggler else [sys.executable]), str(path)])
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return check


_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONPATH", "PYTHONUNBUFFERED", "FORCE_COLOR", "PYTHON_COLORS")
}
