"""A table of factorials, a row of it at a time, over a pool of processes.

Thousands of small calls: what a call costs beyond its own work decides how long this takes.

    python factorials.py
    juggler run factorials.py

What to look at:

* `initializer` runs once in each worker, before its first call. Here it lifts Python's limit on the
  length of numbers that are turned into text, which each process has for itself.
* `map` gives the rows in the order of the table, whoever finished first.
* `--chunksize` hands a worker so many rows at once. By default the standard library hands over one,
  and juggler as many as fill a few milliseconds: a small row would not pay for its journey.
"""

from __future__ import annotations

import argparse
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple


class Row(NamedTuple):
    """What the table says of the factorial of a number."""

    number: int
    digits: int
    zeros: int
    """How many zeros it ends in."""
    digit_sum: int


def row(number: int) -> Row:
    """Work out the factorial of `number`, and what there is to say of it."""
    text = str(math.factorial(number))
    digit_sum = sum(digit * text.count(str(digit)) for digit in range(1, 10))
    return Row(number, len(text), len(text) - len(text.rstrip("0")), digit_sum)


def main() -> int:
    """Work out the table, print some of it and return the exit status."""
    parser = argparse.ArgumentParser(description="A table of factorials over a pool of processes.")
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunksize", type=int, help="rows handed to a worker at once")
    options = parser.parse_args()

    chunks = {} if options.chunksize is None else {"chunksize": options.chunksize}
    no_limit = 0
    with ProcessPoolExecutor(
        options.workers, initializer=sys.set_int_max_str_digits, initargs=(no_limit,)
    ) as pool:
        table = list(pool.map(row, range(1, options.rows + 1), **chunks))

    print("      n!  digits  zeros at the end  sum of digits")
    for number, digits, zeros, digit_sum in table[options.rows // 10 - 1 :: options.rows // 10]:
        print(f"{number:>7}!{digits:>8}{zeros:>18}{digit_sum:>15}")
    print(f"rows  {len(table)}")
    print(f"digits in all  {sum(line.digits for line in table)}")
    # Every factorial from 6! on can be divided by nine, and so can the sum of its digits.
    sound = all(line.digit_sum % 9 == 0 for line in table[5:])
    print(f"sums of digits divisible by nine  {'yes' if sound else 'no'}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
