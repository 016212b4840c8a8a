"""A program that chose wrongly, for `juggler advise` to say so.

It counts primes in a pool of threads, which take turns with the GIL, so that a second processor is
of no use to it; and it waits for answers in a pool of processes, which are dear places to wait in.

    python wrong_choice.py
    juggler advise wrong_choice.py

What to look at:

* The advice is the other way round: `count_primes` should run on processes, `wait` on threads.
* Both of them become `juggler.map(function, items)`, and then nothing has to be advised.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def count_primes(start: int) -> int:
    """How many primes there are among the next thousand numbers."""
    numbers = range(max(2, start), start + 1000)
    return sum(all(number % d for d in range(2, int(number**0.5) + 1)) for number in numbers)


def wait(seconds: float) -> float:
    """What stands for a question to somebody far away."""
    time.sleep(seconds)
    return seconds


def main(rounds: int) -> None:
    """Make the calls."""
    with ThreadPoolExecutor() as threads:
        primes = threads.map(count_primes, range(100_000, 100_000 + 1000 * rounds, 1000))
        print(f"{sum(primes)} primes")
    with ProcessPoolExecutor(2) as processes:
        answers = list(processes.map(wait, [0.02] * rounds))
        print(f"{len(answers)} answers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    main(parser.parse_args().rounds)
