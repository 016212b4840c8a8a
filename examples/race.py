"""A lost update, and the lock that prevents it.

Several threads count on one counter. `value = value + 1` is a read, an addition and a write, and
another thread may run between any two of them: both read 7, both write 8, and one count is lost.
The little sleep between read and write stands for whatever takes time there in a real program; it
only makes visible within a second what would otherwise show once a month.

    python race.py
    juggler run race.py

No runtime can repair this for a program: juggler makes locks cheaper, not superfluous. How many
counts were lost differs from run to run and goes to standard error.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable


class Counter:
    """A counter whose `add` has the fault and whose `add_locked` has the cure."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """Count one, and lose it if another thread counts at the same time."""
        value = self.value
        time.sleep(0.000_1)
        self.value = value + 1

    def add_locked(self) -> None:
        """Count one; no other thread comes between the read and the write."""
        with self._lock:
            self.add()


def count(add: Callable[[], None], threads: int, rounds: int) -> None:
    """Let `threads` threads, started together, call `add` `rounds` times each."""
    start = threading.Barrier(threads)

    def run() -> None:
        start.wait()
        for _ in range(rounds):
            add()

    runners = [threading.Thread(target=run) for _ in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()


def main() -> None:
    """Count with and without the lock and compare with what was to be counted."""
    parser = argparse.ArgumentParser(description="A lost update and its cure.")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    expected = options.threads * options.rounds

    unlocked = Counter()
    count(unlocked.add, options.threads, options.rounds)
    locked = Counter()
    count(locked.add_locked, options.threads, options.rounds)

    print(f"without a lock: {expected - unlocked.value} of {expected} lost", file=sys.stderr)
    print(f"counted              {expected}")
    print(f"lost without a lock  {'some' if unlocked.value < expected else 'none'}")
    print(f"lost with a lock     {'some' if locked.value < expected else 'none'}")
    sys.exit(locked.value != expected)


if __name__ == "__main__":
    main()
