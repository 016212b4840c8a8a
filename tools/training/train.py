"""What a profile-guided build learns from: the examples and the benchmarks, on juggler alone.

`maturin` runs it between the two builds, with the first one installed (`[tool.maturin]` in
`pyproject.toml`); `make wheel` and the benchmarks have their builds made so. It needs nothing
beyond what juggler itself needs: what an example or a row lacks is left out.

    python tools/training/train.py --quick     # only to see that all of it runs
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BENCHES = ROOT / "benches" / "python"
LONGEST = 300.0
"""Seconds after which a program hangs: none takes a tenth of it."""


def commands(quick: bool) -> list[tuple[Path, list[str]]]:
    """What is run, each in the folder that it is written for."""
    sys.path.insert(0, str(EXAMPLES))
    found = []
    for program in importlib.import_module("demo").PROGRAMS:
        if program.possible:
            if program.prepare:
                found.append((EXAMPLES, [program.file, *program.quick, *program.prepare]))
            found.append((EXAMPLES, ["-m", "juggler", "run", program.file, *program.quick]))
    for benchmark in ("threads.py", "processes.py", "loop.py"):
        effort = ["--quick"] if quick else []
        found.append((BENCHES, [benchmark, "--only=juggler", "--rounds=1", *effort]))
    return found


def main() -> int:
    """Run them all, and tell what takes how long; 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="Train a profile-guided build.")
    parser.add_argument("--quick", action="store_true", help="small workloads: no training")
    everything = commands(parser.parse_args().quick)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    for number, (folder, arguments) in enumerate(everything, 1):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LONGEST,
            check=False,
        )
        taken = time.monotonic() - began
        line = f"[{number}/{len(everything)}] {' '.join(arguments)}: {taken:.1f} s"
        print(line, file=sys.stderr, flush=True)
        if done.returncode:
            print(f"{done.stdout}\nexit status {done.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
