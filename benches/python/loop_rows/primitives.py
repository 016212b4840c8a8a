"""Tasks of one loop at one object: seconds of processor time per operation, or per round trip."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench

GROUP = "primitives"

Main = Callable[[Contender, int], Coroutine[Any, Any, object]]


async def _event_ping_pong(contender: Contender, trips: int) -> None:
    """Two tasks that set each other's event."""
    there, back = contender.make("Event"), contender.make("Event")

    async def ping() -> None:
        for _ in repeat(None, trips):
            there.set()
            await back.wait()
            back.clear()

    async def pong() -> None:
        for _ in repeat(None, trips):
            await there.wait()
            there.clear()
            back.set()

    await contender.make("gather", ping(), pong())


def _contended(name: str, *args: int) -> Main:
    """Ten tasks, each entering one lock over and over, and giving up its turn inside."""

    async def main(contender: Contender, operations: int) -> None:
        lock = contender.make(name, *args)
        sleep = contender.classes["sleep"]

        async def body() -> None:
            for _ in repeat(None, operations // 10):
                async with lock:
                    await sleep(0)

        await contender.make("gather", *[body() for _ in range(10)])

    return main


def _uncontended(name: str) -> Main:
    """One task that enters a lock which is free."""

    async def main(contender: Contender, operations: int) -> None:
        lock = contender.make(name)
        for _ in repeat(None, operations):
            async with lock:
                pass

    return main


async def _condition_ping_pong(contender: Contender, trips: int) -> None:
    """Two tasks that hand a turn to each other under one condition."""
    condition = contender.make("Condition")
    turn = 0

    async def body(mine: int) -> None:
        nonlocal turn
        for _ in repeat(None, trips):
            async with condition:
                while turn != mine:
                    await condition.wait()
                turn = 1 - mine
                condition.notify()

    await contender.make("gather", body(0), body(1))


async def _barrier(contender: Contender, rounds: int) -> None:
    """Four tasks that meet again and again."""
    barrier = contender.make("Barrier", 4)

    async def body() -> None:
        for _ in repeat(None, rounds):
            await barrier.wait()

    await contender.make("gather", *[body() for _ in range(4)])


async def _queue_ping_pong(contender: Contender, trips: int) -> None:
    """An item over one queue and back over another."""
    there, back = contender.make("Queue"), contender.make("Queue")

    async def ping() -> None:
        for item in range(trips):
            await there.put(item)
            await back.get()

    async def pong() -> None:
        for _ in repeat(None, trips):
            await back.put(await there.get())

    await contender.make("gather", ping(), pong())


def _transfer(maxsize: int) -> Main:
    """Items through one queue, from one task to another."""

    async def main(contender: Contender, items: int) -> None:
        queue = contender.make("Queue", maxsize)

        async def produce() -> None:
            for item in range(items):
                await queue.put(item)

        async def consume() -> None:
            for _ in repeat(None, items):
                await queue.get()

        await contender.make("gather", produce(), consume())

    return main


def _row(name: str, needs: str, operations: int, main: Main) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        count = effort.count(operations)

        def sample() -> float:
            loop = contender.make("new_event_loop")
            try:
                began = time.process_time()
                loop.run_until_complete(main(contender, count))
                return (time.process_time() - began) / count
            finally:
                loop.close()

        return sample

    return bench(GROUP, name, (needs, "gather", "new_event_loop"), prepare)


ROWS = (
    _row("Event: there and back", "Event", 10_000, _event_ping_pong),
    _row("Lock: free", "Lock", 100_000, _uncontended("Lock")),
    _row("Lock: 10 tasks", "Lock", 20_000, _contended("Lock")),
    _row("Semaphore: free", "Semaphore", 100_000, _uncontended("Semaphore")),
    _row("Semaphore(3): 10 tasks", "Semaphore", 20_000, _contended("Semaphore", 3)),
    _row("Condition: there and back", "Condition", 5_000, _condition_ping_pong),
    _row("Barrier(4): a meeting", "Barrier", 5_000, _barrier),
    _row("Queue: there and back", "Queue", 10_000, _queue_ping_pong),
    _row("Queue: 1 producer, 1 consumer", "Queue", 50_000, _transfer(0)),
    _row("Queue(1): 1 producer, 1 consumer", "Queue", 20_000, _transfer(1)),
)
