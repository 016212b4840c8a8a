"""What a program's end means for the calls of its pools: as in the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import sys, threading, time
from juggler import futures, multiprocessing as ours

def begun(path, seconds):
    with open(path, "w") as file:
        time.sleep(seconds)
        file.write("ended")

if __name__ == "__main__":
    context = ours.get_context({method!r})
    path = {path!r}
"""
METHODS = pytest.mark.parametrize("method", ["zygote", "fork", "spawn", "forkserver"])


def run(method: str, body: str, path: Path) -> str:
    program = path.parent / "program.py"
    program.write_text(HEAD.format(method=method, path=str(path)) + body)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return path.read_text()


@METHODS
def test_an_executor_makes_the_calls_that_it_took(method: str, tmp_path: Path) -> None:
    body = """
    futures.ProcessPoolExecutor(1, context).submit(begun, path, 0.3)
"""
    assert run(method, body, tmp_path / "begun") == "ended"


@METHODS
def test_a_pool_ends_with_the_program(method: str, tmp_path: Path) -> None:
    body = """
    import os
    pool = context.Pool(1)
    pool.apply_async(begun, (path, 3600))
    while not os.path.exists(path):
        time.sleep(0.01)
"""
    assert run(method, body, tmp_path / "begun") == ""


@METHODS
def test_a_pool_goes_on_for_a_thread(method: str, tmp_path: Path) -> None:
    body = """
    pool = context.Pool(1)
    thread = threading.Thread(target=pool.apply, args=(begun, (path, 0.3)))
    thread.start()
    while not pool._executor.stats().busy:
        time.sleep(0.01)
"""
    assert run(method, body, tmp_path / "begun") == "ended"
