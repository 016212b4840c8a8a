"""Every option, whatever runs the calls."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from calls import EVERYWHERE, FIXED, add, brittle, double, process, running, sleepy

import juggler
from juggler import policy

Map = Callable[..., Any]


@pytest.fixture(params=EVERYWHERE)
def map_(request: pytest.FixtureRequest) -> Iterator[Map]:
    with running(request.param) as found:
        yield found


@pytest.fixture(params=FIXED)
def fixed(request: pytest.FixtureRequest) -> Iterator[Map]:
    with running(request.param) as found:
        yield found


def test_results_come_in_the_order_of_the_items(map_: Map) -> None:
    assert list(map_(double, range(300))) == [2 * number for number in range(300)]


def test_without_order_nothing_is_lost(map_: Map) -> None:
    assert sorted(map_(double, range(300), ordered=False)) == [2 * n for n in range(300)]


def test_no_items_are_no_results(map_: Map) -> None:
    assert list(map_(double, [])) == []


def test_an_error_is_raised_in_its_turn_and_ends_it(map_: Map) -> None:
    results = map_(brittle, itertools.count(1))
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="3 is a multiple of 3") as caught:
        next(results)
    assert "juggler.map: item 2" in caught.value.__notes__
    assert list(results) == []


def test_errors_are_returned(map_: Map) -> None:
    outcomes = list(map_(brittle, range(10), errors="return"))
    assert [str(one) for one in outcomes] == [
        f"{n} is a multiple of 3" if n % 3 == 0 else str(n) for n in range(10)
    ]
    assert all(isinstance(one, ValueError) for one in outcomes[::3])


def test_errors_are_skipped(map_: Map) -> None:
    with map_(brittle, range(10), errors="skip") as results:
        assert list(results) == [1, 2, 4, 5, 7, 8]
    assert results.failures == 4


def test_tuples_are_arguments(map_: Map) -> None:
    assert list(map_(add, [(1, 2), (3, 4)], star=True)) == [3, 7]
    assert list(map_(add, [[1, 2], [3, 4]], star=True)) == [3, 7]


def test_dictionaries_are_named_arguments(map_: Map) -> None:
    items = [{"first": 1, "second": 2}, {"second": 3, "first": 4}]
    assert list(map_(add, items, star="**")) == [3, 7]


def test_a_chunk_of_one_and_of_many(map_: Map) -> None:
    for chunk in (1, 7):
        assert list(map_(double, range(50), chunk=chunk)) == [2 * n for n in range(50)]
    outcomes = list(map_(brittle, range(50), chunk=7, errors="skip"))
    assert outcomes == [n for n in range(50) if n % 3]


def test_a_limit_holds(fixed: Map) -> None:
    lock, most, now = threading.Lock(), 0, 0

    def count(seconds: float) -> float:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        sleepy(seconds)
        with lock:
            now -= 1
        return seconds

    # In other processes the counting is done, but stays there.
    if list(fixed(process, [0], limit=3)) != list(juggler.map(process, [0], on="serial")):
        assert len({*fixed(process, range(40), limit=2)}) <= 2
        return
    assert list(fixed(count, [0.01] * 20, limit=3)) == [0.01] * 20
    assert 1 <= most <= 3


def test_what_fails_is_tried_again(map_: Map, tmp_path: Any) -> None:
    def flaky(name: str) -> str:
        with open(tmp_path / name, "a+") as attempts:
            attempts.write("x")
            attempts.seek(0)
            if len(attempts.read()) < 3:
                raise ConnectionError("again")
        return name

    names = ["a", "b", "c"]
    assert list(map_(flaky, names, retries=2)) == names
    assert [(tmp_path / name).read_text() for name in names] == ["xxx"] * 3


def test_retries_end(map_: Map) -> None:
    outcomes = list(map_(brittle, [1, 3], retries=1, errors="return"))
    assert outcomes[0] == 1
    assert any("gave up" in note for note in outcomes[1].__notes__)


def test_a_rate_is_one_for_all(map_: Map) -> None:
    import time

    began = time.monotonic()
    assert list(map_(double, range(6), rate="50/s")) == [0, 2, 4, 6, 8, 10]
    assert time.monotonic() - began >= 0.099


def test_policies_are_around_the_calls(map_: Map) -> None:
    breaker = policy.circuit(failures=1, reset=60)
    outcomes = list(map_(brittle, [3, 4, 5], limit=1, policy=breaker, errors="return"))
    assert [type(one) for one in outcomes] == [
        ValueError,
        policy.CircuitOpenError,
        policy.CircuitOpenError,
    ]


def test_an_item_has_a_deadline(map_: Map) -> None:
    outcomes = list(map_(brittle, [3, 1], retries=50, deadline=0.3, errors="return"))
    assert isinstance(outcomes[0], ValueError | policy.DeadlineError)
    assert outcomes[1] == 1


@pytest.mark.parametrize("name", ["processes", "loop", "loop of threads", "auto", "auto loop"])
def test_a_call_that_takes_too_long_is_stopped(name: str) -> None:
    import asyncio

    async def slow(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    on: Any = {"loop of threads": "threads", "auto loop": "auto"}.get(name, name)
    fn: Any = slow if "loop" in name else sleepy
    outcomes = list(juggler.map(fn, [0.0, 60.0, 0.0], on=on, timeout=0.5, errors="return"))
    assert outcomes[::2] == [0.0, 0.0]
    assert isinstance(outcomes[1], TimeoutError)


@pytest.mark.parametrize("on", ["serial", "threads"])
def test_a_timeout_where_nothing_can_be_stopped_is_refused(on: Any) -> None:
    with pytest.raises(TypeError, match='use on="processes"'):
        next(juggler.map(sleepy, [1.0], on=on, timeout=1))


def test_starmap() -> None:
    assert list(juggler.starmap(add, zip(range(3), range(3), strict=True))) == [0, 2, 4]


def test_a_lambda_runs_anywhere() -> None:
    for on in ("serial", "threads", "processes", "auto"):
        assert list(juggler.map(lambda x: x + 1, range(5), on=on)) == [1, 2, 3, 4, 5]


def test_processes_are_processes() -> None:
    import os

    found = {*juggler.map(process, range(4), on="processes", limit=2)}
    assert os.getpid() not in found


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((3, [1]), {}, TypeError, "fn must be callable, not 3"),
        (([1], double), {}, TypeError, "fn comes first"),
        ((double, 3), {}, TypeError, "items must be iterable"),
        ((double, [1]), {"on": "thread"}, ValueError, "did you mean 'threads'"),
        ((double, [1]), {"on": 7}, TypeError, "or an executor"),
        ((double, [1]), {"limit": 0}, ValueError, "limit must be 1 or more"),
        ((double, [1]), {"limit": "2"}, TypeError, "limit must be an integer"),
        ((double, [1]), {"buffer": -1}, ValueError, "buffer must be 1 or more"),
        ((double, [1]), {"chunk": "all"}, TypeError, "or 'auto'"),
        ((double, [1]), {"errors": "ignore"}, ValueError, "'skip'"),
        ((double, [1]), {"star": "*"}, ValueError, "star must be"),
        ((double, [1]), {"retries": -1}, ValueError, "retries must be 0 or more"),
        ((double, [1]), {"retries": 1.5}, TypeError, "retries must be an integer"),
        ((double, [1]), {"timeout": 0}, ValueError, "timeout must be a number of seconds"),
        ((double, [1]), {"deadline": "1"}, ValueError, "deadline must be a number of seconds"),
        ((double, [1]), {"rate": "fast"}, ValueError, "no rate"),
        ((double, [1]), {"policy": 3}, TypeError, "must be of juggler.policy"),
        ((double, [1]), {"progress": "bar"}, TypeError, "progress must be"),
    ],
)
def test_what_is_wrong_is_said_at_once(
    arguments: Any, options: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        juggler.map(*arguments, **options)


def test_a_plain_function_on_the_loop_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a coroutine function"):
        next(juggler.map(double, [1], on="loop"))
