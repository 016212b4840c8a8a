"""Where the input is read, and that nothing waits for it that need not."""

import asyncio
import contextvars
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from calls import awaiting, double, sleepy

import juggler

PARALLEL = ("threads", "processes", "auto")


@pytest.mark.parametrize("on", PARALLEL)
@pytest.mark.parametrize("ordered", [True, False])
def test_results_do_not_wait_for_an_input_that_blocks(on: Any, ordered: bool) -> None:
    gate = threading.Event()

    def blocking() -> Iterator[int]:
        yield from range(3)
        assert gate.wait(60)
        yield 3

    results = juggler.map(double, blocking(), on=on, ordered=ordered)
    assert sorted(next(results) for _ in range(3)) == [0, 2, 4]
    gate.set()
    assert list(results) == [6]


def test_nor_in_a_coroutine_nor_does_the_loop() -> None:
    gate = threading.Event()

    def blocking() -> Iterator[int]:
        yield 1
        assert gate.wait(60)
        yield 2

    async def main() -> list[int]:
        results = juggler.map(awaiting(double), blocking())
        found = [await anext(results)]
        asyncio.get_running_loop().call_later(0.01, gate.set)
        return found + [result async for result in results]

    assert asyncio.run(main()) == [2, 4]


def test_a_generator_lives_in_one_thread_from_its_first_item_to_its_end() -> None:
    where = []

    def numbers() -> Iterator[int]:
        where.append(threading.current_thread().name)
        try:
            for number in itertools.count():
                where.append(threading.current_thread().name)
                yield number
        finally:
            where.append(threading.current_thread().name)

    with juggler.map(double, numbers(), on="threads", limit=2) as results:
        assert [next(results) for _ in range(20)] == [2 * n for n in range(20)]
    assert len(where) > 20
    assert {*where} == {"juggler-map-input"}


def test_it_sees_the_context_variables_of_who_began() -> None:
    colour = contextvars.ContextVar("colour", default="none")
    colour.set("red")
    results = juggler.map(str, (colour.get() for _ in range(2)), on="threads")
    assert list(results) == ["red", "red"]
    stream = juggler.pipeline(colour.get() for _ in range(2)).map(str, on="serial").stream()
    assert list(stream) == ["red", "red"]


@pytest.mark.parametrize("items", [[1, 2], (1, 2), range(1, 3), {1: 0, 2: 0}, iter([1, 2])])
def test_what_cannot_block_needs_no_thread(items: Any) -> None:
    before = {*threading.enumerate()}
    results = juggler.map(lambda _: threading.enumerate(), items, on="threads", limit=1)
    names = {thread.name for found in results for thread in {*found} - before}
    assert not any("input" in name for name in names)


def test_serial_reads_where_it_iterates() -> None:
    here = (threading.current_thread().name for _ in range(3))
    assert {*juggler.map(str, here, on="serial")} == {threading.current_thread().name}


def test_leaving_does_not_wait_for_an_input_that_blocks() -> None:
    waits, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def blocking() -> Iterator[int]:
        try:
            yield 1
            waits.set()
            gate.wait(60)
            yield 2
        finally:
            ended.set()

    with juggler.map(double, blocking(), on="threads") as results:
        assert next(results) == 2
        assert waits.wait(60)
    assert not ended.is_set()
    gate.set()
    assert ended.wait(60)


def test_an_input_is_read_no_more_once_it_is_closed() -> None:
    pulled = []

    def slow() -> Iterator[int]:
        for number in range(1000):
            pulled.append(number)
            time.sleep(0.01)
            yield number

    with juggler.map(double, slow(), on="threads") as results:
        next(results)
    count = len(pulled)
    time.sleep(0.1)
    assert len(pulled) <= count + 1


def test_an_error_of_the_input_says_so() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no more pages")

    results = juggler.map(double, broken(), on="threads")
    assert next(results) == 2
    with pytest.raises(LookupError) as caught:
        next(results)
    assert caught.value.__notes__ == ["juggler.map: the input"]


def test_a_map_that_is_the_input_ends_with_its_user() -> None:
    begun = []

    def call(number: int) -> int:
        begun.append(number)
        return sleepy(0.01) and number

    inner = juggler.map(call, itertools.count(), on="threads", limit=2)
    with juggler.map(double, inner, on="threads", limit=2) as outer:
        assert next(outer) == 0
    time.sleep(0.05)
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count
    assert list(inner) == []


def test_a_computing_input_is_not_taken_for_the_function_s_threads() -> None:
    def busy() -> Iterator[float]:
        for _ in range(40):
            end = time.thread_time() + 0.002
            while time.thread_time() < end:
                pass
            yield 0.01

    results = juggler.map(sleepy, busy())
    assert len(list(results)) == 40
    choice = results.choice
    assert choice is not None and choice.facts is not None
    assert choice.facts.busy < 0.3
    assert choice.model == "threads"


def test_short_calls_of_a_generator_go_together() -> None:
    parts = []

    def where(number: int) -> int:
        parts.append(threading.get_ident())
        return number

    numbers = (number for number in range(50_000))
    assert list(juggler.map(where, numbers, on="threads", limit=2)) == list(range(50_000))
    # Were each handed over alone, the two threads would take turns.
    turns = sum(one != other for one, other in itertools.pairwise(parts))
    assert turns < 5_000
