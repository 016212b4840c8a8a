"""A chain of processes: a producer, transformers, and one that saves.

    python process_chain.py
    juggler run process_chain.py

What to look at:

* Two queues of bounded size join the stages, so that a fast stage waits for a slow one and memory
  stays small.
* The end travels through the chain as an item of its own: the producer sends one for each
  transformer, each of them passes one on.
* Several transformers mix the order; the number that each item carries brings it back.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any


def produce(out: Any, items: int, transformers: int) -> None:
    """Put numbered texts, then an end for each transformer."""
    for number in range(items):
        out.put((number, f"record {number} " * 20))
    for _ in range(transformers):
        out.put(None)


def transform(source: Any, out: Any) -> None:
    """Replace each text by its digest."""
    while (item := source.get()) is not None:
        number, text = item
        out.put((number, hashlib.sha256(text.encode()).hexdigest()))
    out.put(None)


def save(source: Any, path: Path, transformers: int) -> None:
    """Write the digests to a file, in the order of their numbers."""
    digests: dict[int, str] = {}
    while transformers:
        item = source.get()
        if item is None:
            transformers -= 1
        else:
            digests[item[0]] = item[1]
    path.write_text("".join(f"{number} {digests[number]}\n" for number in sorted(digests)))


def main() -> int:
    """Run the chain, check what it saved, and return the exit status."""
    parser = argparse.ArgumentParser(description="A chain of processes joined by queues.")
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--transformers", type=int, default=2)
    parser.add_argument("--capacity", type=int, default=64, help="items that a queue holds")
    options = parser.parse_args()

    texts: Any = multiprocessing.Queue(options.capacity)
    digests: Any = multiprocessing.Queue(options.capacity)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digests.txt"
        stages = [
            multiprocessing.Process(
                target=produce, args=(texts, options.items, options.transformers)
            ),
            *(
                multiprocessing.Process(target=transform, args=(texts, digests))
                for _ in range(options.transformers)
            ),
            multiprocessing.Process(target=save, args=(digests, path, options.transformers)),
        ]
        for stage in stages:
            stage.start()
        for stage in stages:
            stage.join()
        saved = path.read_text()
    print(f"saved  {saved.count(chr(10))}")
    print(f"digest of all  {hashlib.sha256(saved.encode()).hexdigest()[:16]}")
    complete = saved.count("\n") == options.items and not any(stage.exitcode for stage in stages)
    print(f"every stage ended well  {'yes' if complete else 'no'}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
