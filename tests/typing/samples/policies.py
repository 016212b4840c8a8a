"""Policies as a program uses them: type checked, and run."""

from __future__ import annotations

import asyncio
from typing import assert_type

from juggler import policy


def passes(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


api = policy.deadline(60) | policy.retry(2, backoff=0.0, on=passes) | policy.limit(3)
assert_type(api, policy.Policy)
guard = policy.limit(3) | policy.rate("1000/s", burst=10)
assert_type(guard, policy.Guard)


@api
def length(text: str, factor: int = 1) -> int:
    return len(text) * factor


@api | policy.timeout(60)
async def length_later(text: str) -> int:
    return len(text)


@policy.rate("1000/s", per_key=policy.host)
def fetch(url: str) -> str:
    return url


async def main() -> None:
    assert_type(await length_later("four"), int)
    assert_type(await api.call_async(length_later, "four"), int)
    async with guard, policy.timeout(60):
        assert_type(policy.remaining(), "float | None")


assert_type(length("four", factor=2), int)
assert_type(api.call(length, "four"), int)
assert fetch("http://example.com") == "http://example.com"
with guard, policy.circuit(), guard.for_key("host"):
    policy.rate("1MB/s").take(1000)
asyncio.run(main())
with policy.VirtualClock(seed=1) as clock:
    assert_type(clock.run(length_later("four")), int)
    assert clock.time() == 0.0
