"""What a profile-guided build is trained by runs through, the benchmarks' rows among it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_training_runs_through() -> None:
    command = [sys.executable, "tools/training/train.py", "--quick"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    for program in ("crawler.py", "threads.py", "processes.py", "loop.py"):
        assert f"{program} -" in done.stderr
