"""Ctrl-C while a pool's workers make calls that take for ever: nobody waits for those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import multiprocessing, time
from juggler import futures, multiprocessing as ours

def begun(path):
    with open(path, "w"):
        pass
    time.sleep(3600)

if __name__ == "__main__":
    context = ours.get_context({method!r})
    paths = {paths!r}
"""
WAITS = {
    "map": """
    with futures.ProcessPoolExecutor(2, context) as pool:
        list(pool.map(begun, paths, chunksize=1))
""",
    "result": """
    with futures.ProcessPoolExecutor(2, context) as pool:
        calls = [pool.submit(begun, path) for path in paths]
        calls[0].result()
""",
    "no with": """
    pool = futures.ProcessPoolExecutor(2, context)
    calls = [pool.submit(begun, path) for path in paths]
    futures.wait(calls)
""",
    "Pool": """
    pool = context.Pool(2)
    pool.map(begun, paths, chunksize=1)
""",
}


@pytest.mark.parametrize("method", ["zygote", "fork", "spawn", "forkserver"])
@pytest.mark.parametrize("wait", WAITS)
def test_one_ctrl_c_ends_program_and_calls(method: str, wait: str, tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(4)]
    program = tmp_path / "program.py"
    program.write_text(HEAD.format(method=method, paths=paths) + WAITS[wait])
    process = subprocess.Popen(
        [sys.executable, str(program)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        while not (Path(paths[0]).exists() and Path(paths[1]).exists()):
            assert process.poll() is None, process.communicate()[1]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate()  # the calls would take an hour
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
