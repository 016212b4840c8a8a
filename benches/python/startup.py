"""What `juggler run` and `import juggler` add to the start and the end of a program.

Runs pairs of commands alternately, so that a slow moment of the machine falls on both, and prints
the medians and their difference. The budgets are 20 ms for `juggler run` and 15 ms for the import.

    python benches/python/startup.py [--rounds N] [INTERPRETER ...]

An interpreter is one that has juggler installed; this one by default.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

# By what they import: the names of the rows, and the programs.
PROGRAMS = {
    "an empty program": "",
    "threads, queues, futures": (
        "import threading, queue, concurrent.futures\nfrom concurrent.futures import *\n"
    ),
    "asyncio, one coroutine": (
        "import asyncio\nasync def main(): await asyncio.sleep(0)\nasyncio.run(main())\n"
    ),
    "multiprocessing": "import multiprocessing\n",
    "ProcessPoolExecutor": "from concurrent.futures import ProcessPoolExecutor\n",
    "everything": (
        "import threading, queue, asyncio, multiprocessing\nfrom concurrent.futures import *\n"
        "async def main(): await asyncio.sleep(0)\nasyncio.run(main())\n"
    ),
}

# Users have their bytecode cached: with this variable every start would compile juggler anew.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def seconds(command: Sequence[str]) -> float:
    """The wall time of one run of `command`, which must succeed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, env=ENVIRONMENT)
    return time.perf_counter() - started


def compare(plain: Sequence[str], ours: Sequence[str], rounds: int) -> tuple[float, float]:
    """The median times of two commands, in milliseconds."""
    for command in (plain, ours):  # fills the caches of the disk and of bytecode
        seconds(command)
    times = [(seconds(plain), seconds(ours)) for _ in range(rounds)]
    first, second = zip(*times, strict=True)
    return statistics.median(first) * 1e3, statistics.median(second) * 1e3


def main() -> None:
    """Measure each interpreter and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="runs of each command (40)")
    parser.add_argument("interpreters", nargs="*", default=[sys.executable], metavar="INTERPRETER")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        programs = {}
        for number, (name, code) in enumerate(PROGRAMS.items()):
            programs[name] = os.path.join(folder, f"{number}.py")
            with open(programs[name], "w", encoding="utf-8") as file:
                file.write(code)
        print(f"{'':<34}{'python':>10}{'juggler':>10}{'added':>10}   (medians, ms)")
        for python in arguments.interpreters:
            version = subprocess.check_output([python, "-V"], text=True).strip()
            # The installed command where there is one: `-m` adds a run of `runpy`.
            script = os.path.join(os.path.dirname(python), "juggler")
            juggler = [script] if os.path.exists(script) else [python, "-m", "juggler"]
            rows = {
                f"run: {name}": ([python, program], [*juggler, "run", program])
                for name, program in programs.items()
            }
            rows["import juggler"] = [python, "-c", ""], [python, "-c", "import juggler"]
            print(version)
            for name, (plain, ours) in rows.items():
                before, after = compare(plain, ours, arguments.rounds)
                print(f"  {name:<32}{before:>10.2f}{after:>10.2f}{after - before:>+10.2f}")


if __name__ == "__main__":
    main()
