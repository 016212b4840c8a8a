"""A fresh interpreter for one sample."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1]


def ask(module: str, *arguments: str) -> float:
    """Runs `python -m module arguments` beside this file's package; the number that it prints.

    Raises:
        RuntimeError: The child failed; the message has what it wrote to its standard error.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {arguments} ended with {done.returncode}:\n{done.stderr}")
    return float(done.stdout)
