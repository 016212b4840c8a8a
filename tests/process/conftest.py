"""Runs programs, and sees what they and the tests themselves leave behind."""

import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import leftovers
import pytest
from children import Start, starter

from juggler import multiprocessing

_MARK = "JUGGLER_TEST_MARK"


class Programs:
    """Starts programs whose processes, children's children too, can be found by a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self._started: list[subprocess.Popen[str]] = []

    def start(self, source: str, *options: str) -> "subprocess.Popen[str]":
        """Start a program, in a process group of its own, from a file unless options say how."""
        path = self.folder / "program.py"
        path.write_text(source, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, *(options or [str(path)])],
            cwd=self.folder,
            env={**os.environ, _MARK: self.mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, source: str, *options: str, stdin: str = "") -> str:
        """Run a program that is to succeed and to say nothing on standard error; its output."""
        process = self.start(source, *options)
        output, errors = process.communicate(stdin, timeout=100)
        assert (process.returncode, errors) == (0, ""), output
        self.expect_none_left()
        return output

    def alive(self) -> list[int]:
        """The numbers of the marked processes."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/environ", "rb") as environ:
                    if self.mark.encode() in environ.read():
                        found.append(int(entry))
            except (OSError, ValueError):
                continue
        return found

    def expect_none_left(self) -> None:
        """Wait until the last marked process has ended; the test's own time limit applies."""
        while self.alive():
            time.sleep(0.01)

    def close(self) -> None:
        for pid in self.alive():
            os.kill(pid, 9)
        for process in self._started:
            process.communicate()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Programs in an empty folder, ended with the test."""
    programs = Programs(tmp_path)
    yield programs
    programs.close()


@pytest.fixture
def run_program(programs: Programs) -> Callable[..., str]:
    """Runs the text of a program, expects it to succeed, and gives what it printed."""
    return programs.run


@pytest.fixture
def start(context: Any) -> Iterator[Start]:
    """Starts a child by each method that the test's `context` has; all are gone at the end."""
    yield from starter(context)


# ---------------------------------------------------------------- what a test leaves behind here

_PATIENCE = 30
"""Seconds until what is on its way to its end must have ended."""


def remains() -> dict[str, Counter[str]]:
    """What a test could leave behind."""
    files = leftovers.open_files()
    del files["/memfd:juggler (deleted)"]  # the heap of what processes share, which stays
    return {
        "open files": files,
        "threads": leftovers.threads(),
        "processes": Counter(map(str, leftovers.children())),
        "shared memory": leftovers.shared_memory(),
    }


def _nothing() -> None:
    pass


@pytest.fixture(scope="session")
def _servers() -> None:
    """What is started once and stays: zygote, forkserver, resource tracker."""
    resource_tracker.ensure_running()
    for method in ("zygote", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=_nothing)
        process.start()
        process.join()
        process.close()


@pytest.fixture(autouse=True)
def nothing_is_left(_servers: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test leaves no open file, no thread, no process and no shared memory.

    Other programs may have named memory meanwhile: what was there at once and stays is the test's.
    """
    before = remains()
    yield
    request.node.funcargs.clear()  # what the test's fixtures gave it
    end = time.monotonic() + _PATIENCE
    left = {what: now - before[what] for what, now in remains().items()}
    while any(left.values()):
        assert time.monotonic() < end, f"the test left {left}"
        time.sleep(0.01)
        left = {what: (now - before[what]) & left[what] for what, now in remains().items()}


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Has four threads allocate and compute while the test runs."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            str({"a": [1]} | {"b": sorted(range(50))})

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
