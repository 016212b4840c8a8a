"""Whatever is asked for: nothing is lost, nothing comes twice, order is kept."""

import asyncio
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juggler

OPTIONS = st.fixed_dictionaries(
    {
        "limit": st.none() | st.integers(1, 5),
        "buffer": st.none() | st.integers(1, 20),
        "chunk": st.just("auto") | st.integers(1, 7),
        "ordered": st.booleans(),
        "errors": st.sampled_from(["raise", "return", "skip"]),
    }
)
ITEMS = st.lists(st.integers(0, 1000), max_size=60)
FAILS = st.sampled_from([2, 7, 5000])


class Fragile:
    """Gives back what it gets, some time later; fails for multiples of a number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, item: int) -> int:
        time.sleep(random.Random(item).random() * 0.001)
        if item % self.number == 1:
            raise KeyError(item)
        return item


def expected(items: list[int], number: int, errors: str) -> tuple[list[Any], bool]:
    """What comes, and whether an error ends it."""
    come: list[Any] = []
    for item in items:
        if item % number == 1:
            if errors == "raise":
                return come, True
            if errors == "return":
                come.append(("failed", item))
        else:
            come.append(item)
    return come, False


def plain(outcome: Any) -> Any:
    return ("failed", outcome.args[0]) if isinstance(outcome, KeyError) else outcome


def compare(got: list[Any], raised: bool, items: list[int], number: int, options: Any) -> None:
    come, ends = expected(items, number, options["errors"])
    assert raised is ends
    if options["ordered"]:
        assert got == come
    elif not raised:
        assert sorted(map(str, got)) == sorted(map(str, come))
    else:  # some of the others came before the error
        rest = [item for item in items if item % number != 1]
        for one in got:
            rest.remove(one)


@pytest.mark.parametrize("on", ["serial", "threads", "auto"])
@settings(max_examples=40, deadline=None)
@given(items=ITEMS, number=FAILS, options=OPTIONS)
def test_in_a_plain_loop(on: Any, items: list[int], number: int, options: Any) -> None:
    got: list[Any] = []
    raised = False
    try:
        got.extend(plain(one) for one in juggler.map(Fragile(number), items, on=on, **options))
    except KeyError:
        raised = True
    compare(got, raised, items, number, options)


@pytest.mark.parametrize("on", ["threads", "auto", "loop"])
@settings(max_examples=40, deadline=None)
@given(items=ITEMS, number=FAILS, options=OPTIONS)
def test_in_a_coroutine(on: Any, items: list[int], number: int, options: Any) -> None:
    fragile = Fragile(number)

    async def call(item: int) -> int:
        await asyncio.sleep(random.Random(item).random() * 0.001)
        return fragile(item)

    got: list[Any] = []

    async def main() -> None:
        fn: Any = call if on == "loop" else fragile
        async for one in juggler.map(fn, items, on=on, **options):
            got.append(plain(one))

    raised = False
    try:
        asyncio.run(main())
    except KeyError:
        raised = True
    compare(got, raised, items, number, options)


_pool: list[juggler.Pool] = []


@pytest.fixture(scope="module", autouse=True)
def pool() -> Any:
    with juggler.Pool("processes", limit=2) as processes:
        _pool.append(processes)
        yield processes
        _pool.clear()


@settings(max_examples=40, deadline=None)
@given(items=ITEMS, number=FAILS, options=OPTIONS)
def test_in_processes(items: list[int], number: int, options: Any) -> None:
    del options["limit"]
    got: list[Any] = []
    raised = False
    try:
        got.extend(plain(one) for one in _pool[0].map(Fragile(number), items, **options))
    except KeyError:
        raised = True
    compare(got, raised, items, number, options)
