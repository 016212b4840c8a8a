"""`juggler.advise`."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from calls import awaiting, double, spin

import juggler


@pytest.mark.parametrize(
    ("function", "item", "kind", "model"),
    [
        (time.sleep, 0.01, "waits", "threads"),
        (spin, 0.02, "computes, holding the GIL", "processes"),
        (double, 1, "computes, holding the GIL", "serial"),
        (awaiting(double), 1, "is a coroutine function", "loop"),
    ],
)
def test_what_a_function_is(
    function: Callable[[Any], Any], item: Any, kind: str, model: str
) -> None:
    calls = 500 if function is double else 10  # more than what comes in between takes
    advice = juggler.advise(function, [item] * calls)
    assert advice.kind == kind, str(advice)
    several = juggler.advise.__globals__["workers"].cores() > 1
    assert advice.model == model or (model == "processes" and not several), str(advice)
    json.dumps(advice.as_dict())
    assert model in str(advice) or not several


def test_what_it_would_gain() -> None:
    advice = juggler.advise(spin, [0.02] * 10)
    assert {2, 4} <= {*advice.gains}
    assert 1.5 < advice.gains[2] <= 2.6
    assert advice.gains[2] < advice.gains[4] <= 5.2


def test_what_stands_in_the_way() -> None:
    lock = threading.Lock()

    def locked(seconds: float) -> None:
        with lock:
            spin(seconds)

    advice = juggler.advise(locked, [0.01] * 5)
    assert advice.model == "serial"
    assert "lock" in advice.stops


def test_it_takes_no_longer_than_it_may_and_no_more_than_it_needs() -> None:
    calls: list[int] = []
    juggler.advise(calls.append, range(10_000))
    assert 1 <= len(calls) <= 200


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="must be an item"):
        juggler.advise(double, [])
    with pytest.raises(TypeError, match="fn must be callable"):
        juggler.advise(3, [1])  # type: ignore[arg-type]
