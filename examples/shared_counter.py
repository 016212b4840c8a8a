"""Processes that count in shared memory, one number and a histogram.

    python shared_counter.py
    juggler run shared_counter.py

What to look at:

* `Value` and `Array` live in memory that all the processes see; nothing is sent.
* `counter.value += 1` is a read and a write. Only under the counter's own lock does no increment
  get lost.
* A barrier lets all begin at once, so that they really meet.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from typing import Any


def count(counter: Any, histogram: Any, barrier: Any, rounds: int, mine: int) -> None:
    """Add to the counter and to this process's place in the histogram."""
    barrier.wait()
    for _ in range(rounds):
        with counter.get_lock():
            counter.value += 1
        with histogram.get_lock():
            histogram[mine] += 1


def main() -> int:
    """Count, check that nothing was lost, and return the exit status."""
    parser = argparse.ArgumentParser(description="Count in shared memory.")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=60_000, help="increments of each process")
    options = parser.parse_args()

    counter: Any = multiprocessing.Value("q", 0)
    histogram: Any = multiprocessing.Array("q", options.processes)
    barrier = multiprocessing.Barrier(options.processes)
    processes = [
        multiprocessing.Process(
            target=count, args=(counter, histogram, barrier, options.rounds, mine)
        )
        for mine in range(options.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(f"counted  {counter.value}")
    print(f"by each  {', '.join(str(n) for n in histogram)}")
    complete = counter.value == options.processes * options.rounds == sum(histogram)
    print(f"nothing lost  {'yes' if complete else 'no'}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
