"""Turn a file of orders into a file of invoices through three stages joined by queues.

A reader, several transformers and a writer run in threads of their own and hand each other one row
at a time through `queue.Queue`, over a CSV file of 150,000 orders (made on the first run, the same
on every machine, and kept in the cache folder).

    python csv_pipeline.py
    juggler run csv_pipeline.py

What to look at:

* The queues are bounded. A fast stage waits for a slow one and memory stays small, however long
  the file is.
* The end of the input is a sentinel. A stage that meets it puts it back for its siblings, and the
  last sibling to finish passes it on.
* A stage that fails keeps draining its input until the sentinel. Nobody upstream is left waiting
  on a full queue for ever, the program ends, and the first error is what it ends with. Try
  `--corrupt-row 500`.
* Several transformers finish out of order; the writer puts the rows back in order by their number,
  so that the output never depends on luck.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import os
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any, Final

COLUMNS = ("order_id", "date", "customer", "country", "product", "quantity", "unit_price")
INVOICE_COLUMNS = ("order_id", "date", "customer", "country", "net", "vat", "total")
VAT_PERCENT = {"AT": 20, "CH": 8, "DE": 19, "FR": 20, "IT": 22, "NL": 21, "PL": 23, "SE": 25}
PRICES_IN_CENTS = {"lamp": 4990, "chair": 12900, "desk": 34950, "shelf": 7990, "rug": 15900}
DISCOUNT_FROM_QUANTITY = 10
"""Orders of this many pieces or more are five per cent cheaper."""

Order = list[str]
Invoice = tuple[str, str, str, str, str, str, str]
Work = Callable[[Iterator[Any]], Iterable[Any]]
DONE: Final = None
"""The sentinel: what a stage puts into its output when no more is to come."""


class BadRowError(Exception):
    """A row of the input cannot be read as an order."""


def make_orders(path: Path, rows: int, seed: int) -> None:
    """Write `rows` orders, which depend on `rows` and `seed` only, to `path` in one step."""
    choose = random.Random(seed)
    countries, products = list(VAT_PERCENT), list(PRICES_IN_CENTS)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another run may be making the same file: each writes its own and the last rename stays.
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".csv")
    try:
        with open(descriptor, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for number in range(1, rows + 1):
                product = choose.choice(products)
                cents = PRICES_IN_CENTS[product] * choose.randint(85, 115) // 100
                writer.writerow(
                    (
                        number,
                        f"2025-{choose.randint(1, 12):02}-{choose.randint(1, 28):02}",
                        f"customer-{choose.randint(1, max(1, rows // 20))}",
                        choose.choice(countries),
                        product,
                        choose.randint(1, 20),
                        format_cents(cents),
                    )
                )
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def cached_orders(rows: int, seed: int) -> Path:
    """Return the path of the orders in the user's cache folder, made first if need be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "juggler-examples" / f"orders-{rows}-{seed}.csv"
    if not path.exists():
        make_orders(path, rows, seed)
    return path


def parse_cents(amount: str) -> int:
    """Read an amount such as `12.90` as 1290 cents; money is never a float."""
    whole, _, cents = amount.partition(".")
    if len(cents) != 2:
        raise ValueError(f"not an amount with two decimals: {amount!r}")
    return int(whole) * 100 + int(cents)


def format_cents(cents: int) -> str:
    """Write 1290 cents as `12.90`."""
    return f"{cents // 100}.{cents % 100:02}"


def invoice(order: Order) -> Invoice:
    """Work out the invoice for one order; raise `BadRowError` if it is not an order."""
    try:
        order_id, date, customer, country, _product, quantity, unit_price = order
        pieces = int(quantity)
        net = pieces * parse_cents(unit_price)
        if pieces >= DISCOUNT_FROM_QUANTITY:
            net -= net * 5 // 100
        vat = net * VAT_PERCENT[country] // 100
    except (ValueError, KeyError) as error:
        raise BadRowError(f"{','.join(order)}: {error}") from error
    return (
        order_id,
        date,
        customer,
        country,
        format_cents(net),
        format_cents(vat),
        format_cents(net + vat),
    )


class Pipeline:
    """Threads that hand items along through bounded queues, and the first error among them.

    A stage is a function from the items that come in to the items that go out, as a generator is.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._first_error: Exception | None = None

    def stage(self, name: str, work: Work, source: Queue[Any] | None, size: int = 1) -> Queue[Any]:
        """Add `size` threads that do `work` on what `source` brings; return their output queue."""
        target: Queue[Any] = Queue(self._capacity)
        unfinished = size

        def run() -> None:
            nonlocal unfinished
            items = iter(()) if source is None else until_done(source)
            try:
                for result in work(items):
                    target.put(result)
            except Exception as error:
                with self._lock:
                    self._first_error = self._first_error or error
                for _ in items:
                    pass  # the stage before this one must not wait for ever on a full queue
            with self._lock:
                unfinished -= 1
                last = unfinished == 0
            if last:
                target.put(DONE)

        for number in range(size):
            self._threads.append(threading.Thread(target=run, name=f"{name}-{number}"))
        return target

    def run(self) -> None:
        """Start every stage, wait for all of them, and raise the first error if there was one."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        if self._first_error is not None:
            raise self._first_error


def until_done(source: Queue[Any]) -> Iterator[Any]:
    """Yield from `source` until the sentinel, and put that back for the sibling threads."""
    while (item := source.get()) is not DONE:
        yield item
    source.put(DONE)


def read_orders(
    path: Path, batch: int, corrupt_row: int | None
) -> Iterator[tuple[int, list[Order]]]:
    """Yield the rows of `path` in batches, each with its place in the file, from 0."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != COLUMNS:
            raise BadRowError(f"{path}: the first line is not {','.join(COLUMNS)}")
        place = itertools.count()
        while orders := list(itertools.islice(rows, batch)):
            for order in orders:
                if corrupt_row is not None and int(order[0]) == corrupt_row:
                    order[-1] = "free"
            yield next(place), orders


def make_invoices(
    batches: Iterator[tuple[int, list[Order]]],
) -> Iterator[tuple[int, list[Invoice]]]:
    """Yield the invoices for each batch of orders, under the place that the batch had."""
    for place, orders in batches:
        yield place, [invoice(order) for order in orders]


def write_invoices(
    batches: Iterator[tuple[int, list[Invoice]]], path: Path, totals: Counter[str]
) -> Iterator[int]:
    """Write the invoices to `path` by their places, add up `totals`; yield the number written."""
    written = 0
    early: dict[int, list[Invoice]] = {}
    expected = itertools.count()
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(INVOICE_COLUMNS)
        turn = next(expected)
        for place, invoices in batches:
            early[place] = invoices
            while (ready := early.pop(turn, None)) is not None:
                writer.writerows(ready)
                for _, _, _, country, _, _, total in ready:
                    totals[country] += parse_cents(total)
                written += len(ready)
                turn = next(expected)
    yield written


def convert(source: Path, target: Path, options: argparse.Namespace) -> tuple[int, Counter[str]]:
    """Run the pipeline from file to file; return the number of invoices and totals by country."""
    totals: Counter[str] = Counter()
    pipeline = Pipeline(options.capacity)
    orders = pipeline.stage(
        "reader", lambda _: read_orders(source, options.batch, options.corrupt_row), None
    )
    invoices = pipeline.stage("transformer", make_invoices, orders, options.transformers)
    written = pipeline.stage(
        "writer", lambda batches: write_invoices(batches, target, totals), invoices
    )
    pipeline.run()
    return written.get(), totals


def main() -> None:
    """Find or make the orders, convert them, and print what came out."""
    parser = argparse.ArgumentParser(description="Orders in, invoices out, through three stages.")
    parser.add_argument("--input", type=Path, help="default: orders made into the cache folder")
    parser.add_argument("--output", type=Path, help="default: a temporary file, deleted again")
    parser.add_argument("--rows", type=positive, default=150_000, help="orders to make")
    parser.add_argument("--seed", type=int, default=1, help="for the orders that are made")
    parser.add_argument("--make-only", action="store_true", help="make the orders and stop")
    parser.add_argument("--transformers", type=positive, default=2, help="threads (default: 2)")
    parser.add_argument("--capacity", type=positive, default=1000, help="of each queue, in items")
    parser.add_argument("--batch", type=positive, default=1, help="rows to an item (default: 1)")
    parser.add_argument("--corrupt-row", type=int, help="spoil this order, to see the error")
    options = parser.parse_args()
    source = options.input or cached_orders(options.rows, options.seed)
    if options.make_only:
        print(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        target = options.output or Path(folder, "invoices.csv")
        try:
            written, totals = convert(source, target, options)
        except (BadRowError, OSError) as error:
            sys.exit(f"{Path(__file__).name}: {type(error).__name__}: {error}")
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"invoices  {written}")
    for country, total in sorted(totals.items()):
        print(f"{country}        {format_cents(total):>14}")
    print(f"sha256    {digest}")


def positive(text: str) -> int:
    """Read a command-line number that must be at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    main()
