"""Fetch pages, compute something about each, and add it all up: waiting and computing at once.

Most programs that take long do both: they wait for something far away, and they compute. Threads
are right for the waiting and cannot share the computing; processes are right for the computing and
too dear to wait in. A pipeline gives each stage what fits it, and all stages work at the same time.

    python mixed_pipeline.py
    python mixed_pipeline.py --progress

What to look at:

* Each stage says what it runs on, and how many of its calls are made at once. Nothing else in the
  program knows of threads, processes or queues.
* Pages go to the processes in batches: to send one costs some microseconds, however small.
* Between two stages only a few items wait. If computing is the slower part, fetching slows down by
  itself, and memory stays small however many pages there are.
* The first error, wherever it happens, would end the program with a note which stage and item it
  was.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Iterable

import requests
from fetch_pages import CONNECT_AND_READ_TIMEOUT, running_server

import juggler

WORD = re.compile(rb"[a-z]+")
STRENGTH = 300
"""Rounds that the stamp of a page takes to compute: it is meant to be slow."""


def fetch(url: str) -> bytes:
    """Return the page's body; waits for the server."""
    answer = requests.get(url, timeout=CONNECT_AND_READ_TIMEOUT, proxies={"http": ""})
    answer.raise_for_status()
    return answer.content


def is_long(page: bytes) -> bool:
    """Whether a page has twenty paragraphs or more."""
    return page.count(b"<p>") >= 20


def study(pages: list[bytes]) -> list[tuple[bytes, Counter[bytes]]]:
    """Return each page's stamp and how often each word is in it; computes."""
    return [
        (hashlib.pbkdf2_hmac("sha256", page, b"stamp", STRENGTH), Counter(WORD.findall(page)))
        for page in pages
    ]


class Totals:
    """What was found in all the pages."""

    def __init__(self) -> None:
        self.pages = 0
        self.words: Counter[bytes] = Counter()
        self._stamps = hashlib.sha256()

    def add(self, found: Iterable[tuple[bytes, Counter[bytes]]]) -> None:
        """Add some pages' findings; one thread at a time."""
        for stamp, words in found:
            self.pages += 1
            self.words += words
            self._stamps.update(stamp)

    @property
    def stamp(self) -> str:
        """One stamp of all of them, in order."""
        return self._stamps.hexdigest()[:16]


def main() -> None:
    """Run the pipeline and print what it found."""
    parser = argparse.ArgumentParser(description="Fetch pages and compute, in one pipeline.")
    parser.add_argument("--pages", type=int, default=400, help="how many to fetch (400)")
    parser.add_argument("--at-once", type=int, default=16, help="how many at once (16)")
    parser.add_argument(
        "--latency", type=float, default=0.02, help="the server's, in seconds (0.02)"
    )
    parser.add_argument("--progress", action="store_true", help="show how far each stage is")
    options = parser.parse_args()

    totals = Totals()
    with running_server(options.latency) as address:
        reports = (
            juggler.pipeline(f"{address}/page/{number}" for number in range(options.pages))
            .map(fetch, on="threads", limit=options.at_once, retries=2)
            .filter(is_long, on="serial")
            .batch(10)
            .map(study, on="processes")
            .map(totals.add, on="serial")
            .run(progress=options.progress)
        )
    for report in reports:
        print(f"stage {report.name:<12} handed on {report.done}")
    print(f"long pages   {totals.pages}")
    print(f"stamp        {totals.stamp}")
    for word, often in sorted(totals.words.items(), key=lambda item: (-item[1], item[0]))[:3]:
        print(f"{word.decode():<12} {often}")


if __name__ == "__main__":
    main()
