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
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCHES = ROOT / "benches" / "python"

sys.path.insert(0, str(ROOT / "examples"))
demo: Any = importlib.import_module("demo")
demo.RUN_TIMEOUT = 300.0  # a build that counts is slower, and the benchmarks take longer


def commands(quick: bool) -> list[list[str]]:
    """What is run."""
    found = []
    for program in demo.PROGRAMS:
        if program.possible:
            if program.prepare:
                found.append([sys.executable, program.file, *program.quick, *program.prepare])
            found.append([*demo.RUNTIMES["juggler"], program.file, *program.quick])
    for benchmark in ("threads.py", "processes.py", "loop.py"):
        effort = ["--quick"] if quick else []
        command = [sys.executable, str(BENCHES / benchmark), "--only=juggler", "--rounds=1"]
        found.append([*command, *effort])
    return found


def main() -> int:
    """Run them all, and tell what takes how long; 1 as soon as one fails."""
    parser = argparse.ArgumentParser(description="Train a profile-guided build.")
    parser.add_argument("--quick", action="store_true", help="small workloads: no training")
    everything = commands(parser.parse_args().quick)
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    for number, command in enumerate(everything, 1):
        done = demo.execute(command)
        line = f"[{number}/{len(everything)}] {' '.join(command[1:])}: {done.seconds:.1f} s"
        print(line, file=sys.stderr, flush=True)
        if done.failure:
            print(f"{done.stdout}{done.stderr}\n{done.failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
