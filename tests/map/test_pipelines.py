"""Pipelines: what goes in comes out, once and in order, whatever fails, and nothing is left."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juggler
from juggler.threading import Event

LONG = 60.0


def double(number: int) -> int:
    return 2 * number


async def add_one(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


def is_even(number: int) -> bool:
    return number % 2 == 0


def digits(number: int) -> list[int]:
    return [int(digit) for digit in str(number)]


def refuse_seven(number: int) -> int:
    if number == 7:
        raise LookupError("seven")
    return number


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread of a pipeline outlives it."""
    before = set(threading.enumerate())
    yield
    end = time.monotonic() + 10
    while left := [
        thread
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith(("juggler-pipeline", "juggler-map", "juggler-shutdown"))
    ]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


def test_stages_on_every_model() -> None:
    results = (
        juggler.pipeline(range(200))
        .filter(is_even, on="threads", limit=4)
        .map(double, on="serial")
        .map(add_one, limit=10)
        .batch(16)
        .map(sum, on="processes")
        .map(str, name="text")
        .flat_map(digits, on="threads")
        .stream()
    )
    numbers = [2 * n + 1 for n in range(0, 200, 2)]
    sums = [sum(numbers[k : k + 16]) for k in range(0, 100, 16)]
    expected = [int(digit) for number in sums for digit in str(number)]
    assert list(results) == expected
    done = [report.done for report in results.reports()]
    assert done == [100, 100, 100, 7, 7, 7, len(expected)]


def test_a_pipeline_is_a_value() -> None:
    numbers = juggler.pipeline([1, 2, 3])
    doubled = numbers.map(double, on="serial")
    assert list(doubled.stream()) == [2, 4, 6]
    assert list(doubled.stream()) == [2, 4, 6]
    assert list(doubled.map(double, on="serial").stream()) == [4, 8, 12]
    assert list(numbers.stream()) == [1, 2, 3]
    assert repr(doubled.batch(2)) == "<juggler.pipeline: double -> batch(2)>"


def test_run_tells_what_the_stages_did() -> None:
    seen: list[int] = []
    reports = (
        juggler.pipeline(range(20))
        .map(refuse_seven, on="threads", errors="skip", name="refuse")
        .map(seen.append, on="serial", name="keep")
        .run()
    )
    assert seen == [n for n in range(20) if n != 7]
    assert [(r.name, r.done, r.failed, r.retried) for r in reports] == [
        ("refuse", 19, 1, 0),
        ("keep", 19, 0, 0),
    ]
    assert all(r.seconds > 0 for r in reports)
    assert reports[0].model.startswith("threads")


def test_retries_are_a_stage_s_own() -> None:
    failed: set[int] = set()

    def flaky(number: int) -> int:
        if number not in failed:
            failed.add(number)
            raise ConnectionError(number)
        return number

    stream = juggler.pipeline(range(5)).map(flaky, on="threads", retries=2).stream()
    assert list(stream) == list(range(5))
    assert stream.reports()[0].retried == 5


def test_a_slow_stage_slows_down_the_source() -> None:
    pulled: list[int] = []
    go = Event()

    def source() -> Iterator[int]:
        for number in count():
            pulled.append(number)
            yield number

    def slow(number: int) -> int:
        go.wait()
        return number

    with (
        juggler.pipeline(source())
        .map(double, on="threads", limit=2)
        .map(slow, on="threads", limit=2)
        .stream(buffer=3)
    ) as stream:
        last = -1
        while len(pulled) != last:  # until nothing moves
            last = len(pulled)
            time.sleep(0.3)
        # Three joints' worth, what two stages may take, and what each thread holds in its hands.
        assert 3 < len(pulled) <= 3 * 3 + 2 * 4 * 2 + 3
        go.set()
        assert list(islice(stream, 50)) == list(range(0, 100, 2))


def test_what_is_ready_does_not_wait_for_the_source() -> None:
    more = Event()

    def source() -> Iterator[int]:
        yield 1
        assert more.wait(LONG)
        yield 2

    stream = juggler.pipeline(source()).map(double, on="threads").map(add_one).stream()
    assert next(stream) == 3
    more.set()
    assert list(stream) == [5]


@pytest.mark.parametrize("on", ["threads", "processes", "serial", "auto"])
def test_an_error_names_the_stage_and_comes_after_what_was_before_it(on: Any) -> None:
    stream = (
        juggler.pipeline(range(100))
        .map(double, on="threads")
        .map(halve_but_seven, on=on, name="halve")
        .map(double, on="threads")
        .stream()
    )
    came = []
    with pytest.raises(LookupError, match="seven") as caught:
        came += iter_into(stream)
    assert iterated(caught.value) == [0, 2, 4, 6, 8, 10, 12]
    notes = caught.value.__notes__
    assert [note for note in notes if "stage" in note] == ["juggler.pipeline: stage 'halve'"]
    assert any("item 7" in note for note in notes)
    assert list(stream) == []


def halve_but_seven(number: int) -> int:
    return refuse_seven(number // 2)


def iter_into(stream: Any) -> list[int]:
    came: list[int] = []
    try:
        for item in stream:
            came.append(item)
    except LookupError as error:
        error.came = came  # type: ignore[attr-defined]
        raise
    return came


def iterated(error: Any) -> Any:
    return error.came


def test_an_error_of_the_source() -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more") as caught:
        iter_into(juggler.pipeline(source()).map(double, on="threads").batch(2).stream())
    assert iterated(caught.value) == [[0, 2], [4, 6], [8]]
    assert caught.value.__notes__ == ["juggler.pipeline: the source"]


def test_batches_in_time() -> None:
    more = Event()

    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        assert more.wait(LONG)
        yield 4

    stream = juggler.pipeline(source()).batch(2, within=0.05).stream()
    assert next(stream) == [1, 2]
    assert next(stream) == [3]
    more.set()
    assert list(stream) == [[4]]


def test_leaving_early_ends_every_stage() -> None:
    closed = Event()

    def source() -> Iterator[int]:
        try:
            yield from count()
        finally:
            closed.set()

    for item in juggler.pipeline(source()).map(double, on="threads").batch(3).stream():
        assert item == [0, 2, 4]
        break
    assert closed.wait(LONG)


def test_calls_that_run_are_waited_for_by_with() -> None:
    ended: list[int] = []

    def slow(number: int) -> int:
        time.sleep(0.2)
        ended.append(number)
        return number

    with (
        juggler.pipeline(range(4))
        .map(slow, on="threads", limit=4, ordered=False)
        .stream() as stream
    ):
        next(stream)
    assert len(ended) == 4


async def later(numbers: range) -> AsyncIterator[int]:
    for number in numbers:
        await asyncio.sleep(0)
        yield number


def test_in_a_coroutine() -> None:
    async def main() -> list[int]:
        pipeline = juggler.pipeline(later(range(50))).map(double, on="threads").map(add_one)
        async with pipeline.stream(buffer=2) as stream:
            return [item async for item in stream]

    assert asyncio.run(main()) == [2 * n + 1 for n in range(50)]


def test_a_source_in_a_loop_ends_in_the_midst_of_a_wait() -> None:
    left = Event()

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            left.set()

    with juggler.pipeline(endless()).map(double, on="threads").stream() as stream:
        assert next(stream) == 2
    assert left.wait(LONG)


def test_a_shutdown_finishes_what_was_taken_in() -> None:
    taken: list[int] = []
    with juggler.shutdown(grace=LONG) as stop:

        def source() -> Iterator[int]:
            for number in count():
                taken.append(number)
                if number == 30:
                    stop.request()
                yield number

        came = list(juggler.pipeline(source()).map(double, on="threads").batch(1).stream())
    assert came == [[2 * n] for n in range(len(came))]
    assert 31 - 1 <= len(came) <= len(taken)
    assert not stop.expired


def test_a_shutdown_ends_the_input_of_a_map() -> None:
    with juggler.shutdown(grace=LONG) as stop:

        def source() -> Iterator[int]:
            for number in count():
                if number == 30:
                    stop.request()
                yield number

        came = list(juggler.map(double, source(), on="threads"))
        assert came == [2 * n for n in range(len(came))]
        assert len(came) >= 31 - 1
        assert list(juggler.map(double, count(), on="threads")) == []
    assert list(juggler.map(double, range(3), on="serial")) == [0, 2, 4]


def test_a_map_that_does_not_end_is_ended() -> None:
    go = Event()
    with juggler.shutdown(grace=0.1) as stop:
        stop.request()
        for _ in juggler.map(go.wait, [LONG], on="threads"):
            raise AssertionError("nothing was to be taken in")
    with juggler.shutdown(grace=0.1) as stop:
        came = []
        for result in juggler.map(lambda number: number or go.wait(LONG), [1, 0], on="threads"):
            came.append(result)
            stop.request()
        assert came == [1]
    assert stop.expired
    go.set()


def test_progress_has_a_row_for_each_stage() -> None:
    rows: list[Any] = []
    pipeline = juggler.pipeline(range(30)).map(double, on="threads").batch(10)
    assert len(list(pipeline.stream(progress=rows.append))) == 3
    assert {row.name for row in rows} == {"double", "batch(10)"}
    last = {row.name: row for row in rows if row.last}
    assert (last["double"].done, last["batch(10)"].done) == (30, 3)


@given(
    numbers=st.lists(st.integers(0, 20), max_size=60),
    buffer=st.integers(1, 8),
    limit=st.integers(1, 5),
    ordered=st.booleans(),
    fails=st.sets(st.integers(0, 20)),
    size=st.integers(1, 7),
)
@settings(max_examples=60, deadline=None)
def test_nothing_is_lost_and_nothing_is_there_twice(
    numbers: list[int], buffer: int, limit: int, ordered: bool, fails: set[int], size: int
) -> None:
    def fail(pair: tuple[int, int]) -> tuple[int, int]:
        if pair[1] in fails:
            raise LookupError(pair)
        return pair

    batches = list(
        juggler.pipeline(enumerate(numbers))
        .map(fail, on="threads", limit=limit, ordered=ordered, errors="skip")
        .batch(size)
        .map(list, on="threads", limit=limit, ordered=ordered)
        .stream(buffer=buffer)
    )
    came = [pair for batch in batches for pair in batch]
    expected = [pair for pair in enumerate(numbers) if pair[1] not in fails]
    assert (came if ordered else sorted(came)) == expected


@given(take=st.integers(0, 40), buffer=st.integers(1, 4), limit=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_what_was_taken_before_leaving_is_the_beginning(take: int, buffer: int, limit: int) -> None:
    with (
        juggler.pipeline(count())
        .map(double, on="threads", limit=limit)
        .filter(is_even, on="threads", limit=limit)
        .stream(buffer=buffer)
    ) as stream:
        assert list(islice(stream, take)) == [2 * n for n in range(take)]


def test_bad_use() -> None:
    with pytest.raises(TypeError, match="source must be iterable"):
        juggler.pipeline(7)  # type: ignore[call-overload]
    pipeline = juggler.pipeline([1])
    with pytest.raises(TypeError, match="fn must be callable"):
        pipeline.map(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="fn must be callable"):
        pipeline.filter(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'threads'"):
        pipeline.map(double, on="thread")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="progress is no option of a stage"):
        pipeline.map(double, progress=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="limits"):
        pipeline.map(double, limits=3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="size must be 1 or more"):
        pipeline.batch(0)
    with pytest.raises(ValueError, match="within must be a number of seconds above 0"):
        pipeline.batch(2, within=0)
    with pytest.raises(ValueError, match="buffer must be 1 or more"):
        pipeline.stream(buffer=0)
    stream = pipeline.stream()
    stream.close()
    with pytest.raises(RuntimeError, match="was closed"), stream:
        pass


def test_an_error_in_what_flat_map_goes_through_names_stage_and_item() -> None:
    def each(number: int) -> Iterator[float]:
        if number == 3:
            raise LookupError("before there is anything to go through")
        yield 1 / (number - 5)

    stages = juggler.pipeline(range(9)).flat_map(each, on="threads", name="each")
    with pytest.raises(LookupError) as caught:
        list(stages.stream())
    assert caught.value.__notes__ == ["juggler.map: item 3", "juggler.pipeline: stage 'each'"]
