"""`juggler.map` and `juggler.Pool` as a program uses them: type checked, and run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import assert_type

import juggler


def length(text: str) -> int:
    return len(text)


def power(base: int, exponent: int) -> float:
    return float(base**exponent)


async def length_later(text: str) -> int:
    return len(text)


async def words() -> AsyncIterator[str]:
    yield "one"
    yield "three"


WORDS = ["one", "three"]

results = juggler.map(length, WORDS, on="threads", limit=2, ordered=False, chunk="auto")
assert_type(results, juggler.Results[int])
assert sorted(results) == [3, 5]
assert_type(list(juggler.map(length_later, WORDS)), list[int])
assert_type(list(juggler.map(length, words(), errors="skip")), list[int])
outcomes = juggler.map(length, WORDS, errors="return", on="serial")
assert_type(outcomes, juggler.Results[int | Exception])
assert_type(list(juggler.starmap(power, [(2, 3)], progress=None)), list[float])
assert_type(list(juggler.map(power, [{"base": 2, "exponent": 3}], star="**")), list[float])
assert_type(juggler.last_choice(), juggler.Choice | None)


async def main() -> None:
    async with juggler.map(length_later, words(), rate="1000/s", retries=1, timeout=60) as found:
        async for number in found:
            assert_type(number, int)


asyncio.run(main())

with juggler.Pool("threads", limit=3) as pool:
    assert_type(list(pool.map(length, WORDS)), list[int])
    assert_type(pool.map(length_later, WORDS, errors="return"), juggler.Results[int | Exception])
    assert list(juggler.map(length, WORDS, on=pool)) == [3, 5]
    assert pool.submit(power, 2, 3).result() == 8.0
