"""Waiting and computing in one program, each on what suits it, without saying so.

Some documents lie on a slow shelf: each takes a moment to bring, in which nothing is computed.
Then their words are counted, which is Python and nothing else. Both are calls of `juggler.map`, and
neither says what to run on: the first runs in threads, and the second in processes if there is a
processor to spare, because that is what its first calls measured. What was chosen, and why, goes to
standard error.

    python word_counts.py
    python word_counts.py --documents 400

What to look at:

* The second map takes the first one as its input: documents are counted while others are brought.
* A document that is missing is brought again (`retries`), and nothing else in the program knows.
* Only so many documents are asked for in a second (`rate`), whatever runs the calls.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import juggler

WORDS = ["time", "person", "year", "way", "day", "thing", "man", "world", "life", "hand", "part"]


class MissingError(Exception):
    """A document was not on the shelf this time."""


class Shelf:
    """Brings documents, slowly; each seventh one only when it is asked for again."""

    def __init__(self) -> None:
        self.asked: set[int] = set()

    def bring(self, number: int) -> str:
        """The text of a document."""
        time.sleep(0.01)  # it is a walk
        if number % 7 == 3 and number not in self.asked:
            self.asked.add(number)
            raise MissingError(number)
        source = random.Random(number)
        return " ".join(source.choices(WORDS, k=20_000))


def count(text: str) -> Counter[str]:
    """How often each word is there, and each pair of neighbours."""
    words = text.split()
    found = Counter(words)
    found.update(f"{first} {second}" for first, second in pairwise(words))
    return found


def run(documents: int) -> Iterator[str]:
    """The lines of the result."""
    shelf = Shelf()
    texts = juggler.map(shelf.bring, range(documents), rate="1000/s", retries=2)
    total: Counter[str] = Counter()
    with texts, juggler.map(count, texts, ordered=False) as counts:
        for found in counts:
            total += found
        print(f"bring: {texts.choice}\ncount: {counts.choice}", file=sys.stderr)
    yield f"{documents} documents, {sum(total.values())} words and pairs"
    for words, times in sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))[:5]:
        yield f"{times:8} {words}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=200)
    for line in run(parser.parse_args().documents):
        print(line)
