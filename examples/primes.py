"""Primes counted over a pool of processes.

The classic exercise for `concurrent.futures.ProcessPoolExecutor`: work that needs the processor,
cut into pieces that know nothing of each other.

    python primes.py
    juggler run primes.py

What to look at:

* A piece is small enough for the processor's fastest cache, and there are many more pieces than
  workers, so that all are busy until the end though the pieces take different times.
* `map` gives the results in the order of the arguments, whoever finished first.
* A result is a number, not the primes: what travels between processes costs time.
"""

from __future__ import annotations

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor


def count_primes(begin: int, end: int) -> int:
    """How many primes there are from `begin` to before `end`, by a segmented sieve."""
    root = math.isqrt(end) + 1
    small = bytearray([1]) * (root + 1)
    segment = bytearray([1]) * (end - begin)
    for number in range(2, root + 1):
        if small[number]:
            small[number * number :: number] = bytes(len(small[number * number :: number]))
            first = max(number * number, -(-begin // number) * number) - begin
            segment[first::number] = bytes(len(segment[first::number]))
    for number in range(begin, min(end, 2)):
        segment[number - begin] = 0
    return sum(segment)


def main() -> int:
    """Count, print how many there are and return the exit status."""
    parser = argparse.ArgumentParser(description="Count primes over a pool of processes.")
    parser.add_argument("--limit", type=int, default=100_000_000, help="count primes below this")
    parser.add_argument("--pieces", type=int, default=4_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    step = -(-options.limit // options.pieces)
    begins = range(0, options.limit, step)
    ends = [min(begin + step, options.limit) for begin in begins]
    with ProcessPoolExecutor(options.workers) as pool:
        counts = list(pool.map(count_primes, begins, ends))
    print(f"primes below {options.limit}  {sum(counts)}")
    print(f"in the first piece  {counts[0]}, in the last  {counts[-1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
