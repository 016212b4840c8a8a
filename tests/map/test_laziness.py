"""How far the input is read, and when results come."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calls import FIXED, Pulled, brittle, double, running, sleepy

import juggler


def test_nothing_happens_before_the_first_result_is_asked_for() -> None:
    source = Pulled(range(10))
    results = juggler.map(double, source)
    time.sleep(0.05)
    assert source.count == 0
    assert list(results) == [2 * n for n in range(10)]


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_input_is_read_within_bounds(name: str, ordered: bool) -> None:
    with running(name) as map_:
        source = Pulled(itertools.count())
        with map_(double, source, limit=3, chunk=1, ordered=ordered) as results:
            for taken, _ in enumerate(itertools.islice(results, 100), 1):
                assert source.count <= taken + (12 if ordered else 6)


@pytest.mark.parametrize("name", [*FIXED, "auto", "auto loop"])
def test_a_buffer_holds(name: str) -> None:
    with running(name) as map_:
        source = Pulled(itertools.count())
        with map_(double, source, buffer=5) as results:
            for taken, _ in enumerate(itertools.islice(results, 500)):
                assert source.count <= taken + 5 + 1


def test_serial_reads_an_item_when_its_result_is_wanted() -> None:
    source = Pulled(itertools.count())
    results = juggler.map(double, source, on="serial")
    for taken in range(1, 10):
        next(results)
        assert source.count == taken


def test_short_calls_go_together_but_within_bounds() -> None:
    source = Pulled(itertools.count())
    with juggler.map(double, source, on="threads", limit=2) as results:
        for _ in itertools.islice(results, 100_000):
            pass
        # 4 * limit chunks of at most 16,384 calls.
        assert source.count <= 100_000 + 8 * 16_384


def test_results_come_as_soon_as_they_exist() -> None:
    gate = threading.Event()

    def wait(number: int) -> int:
        if number == 0:
            assert gate.wait(60)
        return number

    results = juggler.map(wait, range(6), on="threads", limit=3, ordered=False)
    assert sorted(next(results) for _ in range(5)) == [1, 2, 3, 4, 5]
    gate.set()
    assert list(results) == [0]


def test_a_slow_call_does_not_hold_the_others_up() -> None:
    gate, begun = threading.Event(), []

    def wait(number: int) -> int:
        begun.append(number)
        if number == 0:
            assert gate.wait(60)
        return number

    results = juggler.map(wait, itertools.count(), on="threads", limit=2, buffer=50)
    thread = threading.Timer(0.5, gate.set)
    thread.start()
    assert next(results) == 0
    thread.join()
    results.close()
    assert len(begun) == 50


def test_what_is_ready_does_not_wait_for_a_slow_source() -> None:
    def trickle() -> Any:
        yield from range(4)
        time.sleep(0.05)  # it is slow from here on
        yield 4
        gate.wait(60)
        yield 5

    gate = threading.Event()
    results = juggler.map(double, trickle(), on="threads", limit=8, chunk=1)
    assert [next(results) for _ in range(4)] == [0, 2, 4, 6]
    gate.set()
    assert list(results) == [8, 10]


@pytest.mark.parametrize("on", ["serial", "threads", "processes", "auto"])
def test_a_map_of_a_map(on: Any) -> None:
    inner = juggler.map(double, range(50), on=on)
    assert list(juggler.map(double, inner, on=on)) == [4 * n for n in range(50)]


def test_a_map_of_a_map_in_a_coroutine() -> None:
    async def main() -> list[int]:
        inner = juggler.map(double, range(50), on="threads")
        return [result async for result in juggler.map(double, inner, on="threads")]

    assert asyncio.run(main()) == [4 * n for n in range(50)]


def test_an_asynchronous_input_in_a_plain_loop() -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(20):
            await asyncio.sleep(0.001)
            yield number

    for on in ("threads", "serial", "auto"):
        assert list(juggler.map(double, count(), on=on)) == [2 * n for n in range(20)]


def test_results_of_an_asynchronous_input_do_not_wait_for_the_next_item() -> None:
    gate = threading.Event()

    async def stuck() -> AsyncIterator[int]:
        yield 1
        await asyncio.to_thread(gate.wait, 60)
        yield 2

    results = juggler.map(double, stuck(), on="threads")
    assert next(results) == 2
    gate.set()
    assert list(results) == [4]


def test_a_result_is_not_kept() -> None:
    import weakref

    class Thing:
        pass

    def make(_: int) -> Thing:
        return Thing()

    for on in ("serial", "threads", "auto"):
        results = juggler.map(make, range(3), on=on)
        thing: Thing | None = next(results)
        gone = weakref.ref(thing)
        thing = None
        next(results)
        assert gone() is None
        results.close()


def test_closing_calls_back_what_has_not_begun() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def note(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait(60)
        return number

    with juggler.map(note, itertools.count(), on="threads", limit=2, chunk=1) as results:
        assert next(results) == 0
        results.close()
        seen = len(begun)
        gate.set()
    assert len(begun) <= seen + 1
    assert list(results) == []


def test_a_broken_off_loop_leaves_nothing_behind() -> None:
    before = threading.active_count()
    begun: list[int] = []

    def note(number: int) -> int:
        begun.append(number)
        sleepy(0.01)
        return number

    for _ in juggler.map(note, itertools.count(), on="threads", limit=2):
        break
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert len(begun) <= 5


@pytest.mark.parametrize("on", ["threads", "processes", "auto"])
def test_a_map_closed_in_the_middle_of_a_chunk_hands_out_no_more(on: Any) -> None:
    results = juggler.map(double, range(2_000), on=on, chunk=100)
    taken = list(itertools.islice(results, 150))
    assert taken == [2 * n for n in range(150)]
    assert "under way, 150 results" in repr(results)
    thread = threading.Thread(target=results.close)
    thread.start()
    thread.join()
    assert list(results) == []
    assert "closed, 150 results" in repr(results)


@pytest.mark.parametrize("on", ["serial", "threads", "processes", "auto"])
def test_chunks_with_failures_and_without_are_counted_alike(on: Any) -> None:
    counts = []
    results = juggler.map(brittle, [1, 2, 4, 5, 3, 7, 8, 6], on=on, chunk=2, errors="skip")
    for result in results:
        counts.append((result, results.failures, repr(results).split()[-2]))
    assert counts == [
        (1, 0, "1"),
        (2, 0, "2"),
        (4, 0, "3"),
        (5, 0, "4"),
        (7, 1, "5"),
        (8, 1, "6"),
    ]
    assert results.failures == 2


def test_progress_within_a_chunk_is_told() -> None:
    told: list[tuple[int, int]] = []

    def tell(progress: Any) -> None:
        told.append((progress.done, progress.under_way))

    items = range(100)
    for count, _ in enumerate(
        juggler.map(double, items, on="threads", limit=1, chunk=50, progress=tell), 1
    ):
        assert all(done <= count for done, _ in told)
    assert told[-1] == (100, 0)
