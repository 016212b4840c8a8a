"""What a TaskGroup does when one of its members fails.

A shop prepares many orders at the same time; each takes several steps. One of them fails. The group
cancels its other tasks, waits until all have cleaned up, and only then raises: nothing runs on
behind the program's back, and nothing is half done.

    python failing_member.py
    juggler run failing_member.py

What to look at:

* `except*` catches what came out of the group by its kind. There may be several failures at once,
  which is why they come as a group.
* A cancelled task sees `CancelledError` where it waits. It gives back what it holds in `finally`
  and lets the error go on.
* The other round shows the same orders without a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import sys


class OutOfStockError(Exception):
    """An order can't be prepared."""


class Shop:
    """Prepares orders, with few packing tables for all of them."""

    def __init__(self, tables: int, steps: int) -> None:
        self._tables = asyncio.Semaphore(tables)
        self._steps = steps
        self.on_tables = 0
        self.prepared: list[int] = []
        self.given_back: list[int] = []

    async def prepare(self, order: int, missing: int | None) -> None:
        """Prepare one order, step by step; fail in the middle if it is the one that is missing."""
        async with self._tables:
            self.on_tables += 1
            try:
                for step in range(self._steps):
                    await asyncio.sleep(0)
                    if order == missing and step == self._steps // 2:
                        raise OutOfStockError(f"order {order}: nothing left in step {step}")
            except asyncio.CancelledError:
                self.given_back.append(order)
                raise
            finally:
                self.on_tables -= 1
        self.prepared.append(order)

    async def prepare_all(self, orders: int, missing: int | None) -> list[str]:
        """Prepare `orders` at the same time; return what went wrong."""
        problems: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                for order in range(orders):
                    group.create_task(self.prepare(order, missing), name=f"order {order}")
        except* OutOfStockError as failed:
            problems = [str(problem) for problem in failed.exceptions]
        return problems


async def run(options: argparse.Namespace) -> int:
    """Prepare the orders twice, once with one that fails, and return the exit status."""
    sound = True
    for missing in (None, options.orders // 2):
        shop = Shop(options.tables, options.steps)
        problems = await shop.prepare_all(options.orders, missing)
        print(f"problems  {', '.join(problems) or 'none'}")
        print(f"  prepared  {len(shop.prepared)}")
        print(f"  given back on the way  {len(shop.given_back)}")
        print(f"  still on a table  {shop.on_tables}")
        left = len(asyncio.all_tasks()) - 1
        print(f"  tasks left behind  {left}")
        sound = sound and shop.on_tables == left == 0 and bool(problems) == (missing is not None)
    return 0 if sound else 1


def main() -> int:
    """Read the command line, prepare the orders and return the exit status."""
    parser = argparse.ArgumentParser(description="A TaskGroup with a member that fails.")
    parser.add_argument("--orders", type=int, default=8000)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--steps", type=int, default=40)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
