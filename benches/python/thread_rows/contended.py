"""Several threads at one object: seconds per operation, or per round trip."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench
from harness.timing import lasting, on_one_processor, race

GROUP = "contended"

Prepare = Callable[[Contender, Effort], Callable[[], float]]


def _transfer(items: int, threads: int, maxsize: int | None = None) -> Prepare:
    """`items` through one queue, from `threads` producers to as many consumers."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(count: int) -> float:
            each = count // threads
            queue = contender.make("Queue", *(() if maxsize is None else (maxsize,)))
            put, get = contender.bound(queue, "put", "get")

            def produce() -> None:
                for item in range(each):
                    put(item)

            def consume() -> None:
                for _ in repeat(None, each):
                    get()

            return race(*[produce, consume] * threads)

        return lasting(run, effort.count(items), effort)

    return prepare


def _queue_ping_pong(trips: int) -> Prepare:
    """An item over one queue and back over another: two wake-ups a round trip."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(each: int) -> float:
            put_there, get_there = contender.bound(contender.make("Queue"), "put", "get")
            put_back, get_back = contender.bound(contender.make("Queue"), "put", "get")

            def ping() -> None:
                for item in range(each):
                    put_there(item)
                    get_back()

            def pong() -> None:
                for _ in repeat(None, each):
                    put_back(get_there())

            return race(ping, pong)

        return lasting(run, effort.count(trips), effort)

    return prepare


def _with_block(name: str, operations: int, *args: Any) -> Prepare:
    """Four threads, each entering and leaving one lock over and over."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(count: int) -> float:
            each = count // 4
            lock = contender.make(name, *args)

            def body() -> None:
                for _ in repeat(None, each):
                    with lock:
                        pass

            return race(*[body] * 4)

        return lasting(run, effort.count(operations), effort)

    return prepare


def _condition_ping_pong(trips: int) -> Prepare:
    """Two threads that hand a turn to each other under one condition."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(each: int) -> float:
            condition = contender.make("Condition")
            turn = 0

            def body(mine: int) -> None:
                nonlocal turn
                for _ in repeat(None, each):
                    with condition:
                        while turn != mine:
                            condition.wait()
                        turn = 1 - mine
                        condition.notify()

            return race(lambda: body(0), lambda: body(1))

        return lasting(run, effort.count(trips), effort)

    return prepare


def _event_ping_pong(trips: int) -> Prepare:
    """Two threads that set each other's event."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(each: int) -> float:
            there, back = contender.make("Event"), contender.make("Event")

            def ping() -> None:
                for _ in repeat(None, each):
                    there.set()
                    back.wait()
                    back.clear()

            def pong() -> None:
                for _ in repeat(None, each):
                    there.wait()
                    there.clear()
                    back.set()

            return race(ping, pong)

        return lasting(run, effort.count(trips), effort)

    return prepare


def _barrier(rounds: int) -> Prepare:
    """Four threads that meet again and again."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        def run(each: int) -> float:
            barrier = contender.make("Barrier", 4)

            def body() -> None:
                for _ in repeat(None, each):
                    barrier.wait()

            return race(*[body] * 4)

        return lasting(run, effort.count(rounds), effort)

    return prepare


def _row(name: str, needs: str, prepare: Prepare) -> Bench:
    return bench(GROUP, name, (needs,), prepare)


ROWS = (
    _row("Queue: 1 producer, 1 consumer", "Queue", _transfer(20_000, 1)),
    _row("Queue(100): 1 producer, 1 consumer", "BoundedQueue", _transfer(20_000, 1, 100)),
    _row("Queue: 4 producers, 4 consumers", "Queue", _transfer(20_000, 4)),
    _row("Queue(100): 4 producers, 4 consumers", "BoundedQueue", _transfer(20_000, 4, 100)),
    _row("Queue: there and back", "Queue", _queue_ping_pong(2_000)),
    _row(
        "Queue: there and back, one processor", "Queue", on_one_processor(_queue_ping_pong(2_000))
    ),
    _row("Lock: 4 threads", "Lock", _with_block("Lock", 200_000)),
    _row("RLock: 4 threads", "RLock", _with_block("RLock", 200_000)),
    _row("Semaphore(2): 4 threads", "Semaphore", _with_block("Semaphore", 40_000, 2)),
    _row("Condition: there and back", "Condition", _condition_ping_pong(2_000)),
    _row("Event: there and back", "Event", _event_ping_pong(2_000)),
    _row(
        "Event: there and back, one processor", "Event", on_one_processor(_event_ping_pong(2_000))
    ),
    _row("Barrier(4): a meeting", "Barrier", _barrier(1_000)),
)
