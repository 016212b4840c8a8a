"""Producers and consumers around a bounded buffer written by hand.

The classic exercise for `threading.Condition`: producers wait while the buffer is full, consumers
while it is empty. `queue.Queue` is this and more, and is what a program should use; the example
shows what happens inside, and that hand-written code runs on juggler just as well.

    python bounded_buffer.py
    juggler run bounded_buffer.py

What to look at:

* Two conditions share one lock, so that a put wakes a consumer and never another producer.
* Each wait is a loop around its predicate (`wait_for`): between the wake-up and the lock, some
  other thread may have taken what was announced.
* The end is a state of the buffer (`close`), announced with `notify_all`, since everybody waiting
  has to see it.
* Nothing is lost and nothing arrives twice: every number that was put comes out exactly once.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import deque


class ClosedError(Exception):
    """The buffer is closed: nothing can be put, or nothing is left to be taken."""


class BoundedBuffer:
    """A first-in, first-out buffer that holds at most `capacity` numbers."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[int] = deque()
        self._closed = False
        lock = threading.Lock()
        self._not_full = threading.Condition(lock)
        self._not_empty = threading.Condition(lock)
        self.deepest = 0

    def put(self, item: int) -> None:
        """Append `item`, waiting while the buffer is full; raise `ClosedError` if it is closed."""
        with self._not_full:
            self._not_full.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self.deepest = max(self.deepest, len(self._items))
            self._not_empty.notify()

    def take(self) -> int:
        """Remove the oldest item, waiting for one; raise `ClosedError` once none can come."""
        with self._not_empty:
            self._not_empty.wait_for(lambda: self._closed or self._items)
            if not self._items:
                raise ClosedError
            item = self._items.popleft()
            self._not_full.notify()
            return item

    def close(self) -> None:
        """Refuse further items; consumers still get those that are in the buffer."""
        with self._not_full:
            self._closed = True
            self._not_full.notify_all()
            self._not_empty.notify_all()


def produce(buffer: BoundedBuffer, numbers: range) -> None:
    """Put all of `numbers`, or as many as there are until the buffer is closed."""
    for number in numbers:
        try:
            buffer.put(number)
        except ClosedError:
            return


def consume(buffer: BoundedBuffer, taken: list[int]) -> None:
    """Take numbers until the buffer is closed and empty."""
    while True:
        try:
            taken.append(buffer.take())
        except ClosedError:
            return


def run(items: int, producers: int, consumers: int, capacity: int) -> tuple[list[list[int]], int]:
    """Send the numbers below `items` through a buffer.

    Returns:
        What each consumer took, in its order, and the deepest fill of the buffer.
    """
    buffer = BoundedBuffer(capacity)
    taken: list[list[int]] = [[] for _ in range(consumers)]
    sources = [
        threading.Thread(target=produce, args=(buffer, range(first, items, producers)))
        for first in range(producers)
    ]
    sinks = [threading.Thread(target=consume, args=(buffer, into)) for into in taken]
    try:
        for thread in sources + sinks:
            thread.start()
        for thread in sources:
            thread.join()
    finally:
        buffer.close()  # also after a Ctrl-C: the threads must not wait for ever
    for thread in sinks:
        thread.join()
    return taken, buffer.deepest


def kept_order(numbers: list[int], producers: int) -> bool:
    """Tell whether each producer's numbers, which it put in rising order, were taken in it."""
    latest = [-1] * producers
    for number in numbers:
        if number <= latest[number % producers]:
            return False
        latest[number % producers] = number
    return True


def main() -> None:
    """Run the producers and consumers, then check and print what came through."""
    parser = argparse.ArgumentParser(description="A hand-written bounded buffer.")
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--consumers", type=int, default=4)
    parser.add_argument("--capacity", type=int, default=64)
    options = parser.parse_args()
    taken, deepest = run(options.items, options.producers, options.consumers, options.capacity)
    everything = sorted(number for numbers in taken for number in numbers)
    exactly_once = everything == list(range(options.items))
    in_order = all(kept_order(numbers, options.producers) for numbers in taken)
    within = deepest <= options.capacity
    print(f"items         {len(everything)}")
    print(f"sum           {sum(everything)}")
    print(f"exactly once  {'yes' if exactly_once else 'NO'}")
    print(f"in order      {'yes' if in_order else 'NO'}")
    print(f"never over    {'yes' if within else 'NO'}")
    sys.exit(not (exactly_once and in_order and within))


if __name__ == "__main__":
    main()
