"""What policies promise, on random schedules and the virtual clock, in threads and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler.policy import (
    Backoff,
    DeadlineError,
    Guard,
    VirtualClock,
    deadline,
    limit,
    rate,
    remaining,
    retry,
)

# What a caller does: when it comes, in tenths of a second, and for how long it stays.
SCHEDULES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=9)
SLACK = 1e-6


def in_threads(clock: VirtualClock, policy: Guard, schedule: list[tuple[int, int]]) -> Intervals:
    inside: Intervals = []

    def caller(comes: int, stays: int) -> Callable[[], None]:
        def call() -> None:
            clock.sleep(comes / 10)
            with policy:
                begins = clock.time()
                clock.sleep(stays / 10)
                inside.append((begins, clock.time()))

        return call

    clock.run_threads(*(caller(*times) for times in schedule))
    return inside


def in_tasks(clock: VirtualClock, policy: Guard, schedule: list[tuple[int, int]]) -> Intervals:
    inside: Intervals = []

    async def call(comes: int, stays: int) -> None:
        await asyncio.sleep(comes / 10)
        async with policy:
            begins = clock.time()
            await asyncio.sleep(stays / 10)
            inside.append((begins, clock.time()))

    async def main() -> None:
        await asyncio.gather(*(call(*times) for times in schedule))

    clock.run(main())
    return inside


Intervals = list[tuple[float, float]]
RUNS = [in_threads, in_tasks]


def assert_within_rate(begins: list[float], per_second: float, burst: int) -> None:
    begins = sorted(begins)
    for first, start in enumerate(begins):
        for last in range(first, len(begins)):
            allowed = burst + per_second * (begins[last] - start)
            assert last - first + 1 <= allowed + SLACK


@pytest.mark.parametrize("run", RUNS)
@settings(max_examples=40, deadline=None)
@given(
    schedule=SCHEDULES,
    amount=st.integers(1, 40),
    seconds=st.integers(1, 9),
    burst=st.integers(1, 4),
    most=st.none() | st.integers(1, 3),
)
def test_never_above_the_rate_in_any_window(
    run: Callable[..., Intervals],
    schedule: list[tuple[int, int]],
    amount: int,
    seconds: int,
    burst: int,
    most: int | None,
) -> None:
    guard: Guard = rate(f"{amount}/{seconds}s", burst=burst)
    if most is not None:
        guard = limit(most) | guard
    inside = run(VirtualClock(), guard, schedule)
    assert len(inside) == len(schedule)
    assert_within_rate([begins for begins, _ in inside], amount / seconds, burst)


@pytest.mark.parametrize("run", RUNS)
@settings(max_examples=40, deadline=None)
@given(schedule=SCHEDULES, most=st.integers(1, 4))
def test_never_more_than_the_limit_in_flight(
    run: Callable[..., Intervals], schedule: list[tuple[int, int]], most: int
) -> None:
    inside = run(VirtualClock(), limit(most), schedule)
    assert len(inside) == len(schedule)
    for moment, _ in inside:
        assert sum(begins <= moment < ends for begins, ends in inside) <= most


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 25)),
        min_size=1,
        max_size=12,
    ),
    most=st.integers(1, 3),
    per_second=st.integers(1, 9),
)
def test_cancelled_tasks_leave_no_place_and_no_turn_behind(
    schedule: list[tuple[int, int, int]], most: int, per_second: int
) -> None:
    clock = VirtualClock()
    policy = rate(f"{per_second}/s") | limit(most)
    inside: Intervals = []

    async def call(comes: int, stays: int, patience: int) -> None:
        await asyncio.sleep(comes / 10)
        try:
            async with asyncio.timeout(patience / 10), policy:
                begins = clock.time()
                try:
                    await asyncio.sleep(stays / 10)
                finally:
                    inside.append((begins, clock.time()))
        except TimeoutError:
            pass

    async def main() -> None:
        await asyncio.gather(*(call(*times) for times in schedule))
        # Nobody is inside or in line any more: so many get in at once, each at its turn.
        began = clock.time()
        async with asyncio.timeout((most + 1) / per_second + SLACK):
            for _ in range(most):
                await policy.__aenter__()
        for _ in range(most):
            await policy.__aexit__(None, None, None)
        assert clock.time() - began <= most / per_second + SLACK

    clock.run(main())
    for moment, _ in inside:
        assert sum(begins <= moment < ends for begins, ends in inside) <= most


ATTEMPTS = st.lists(
    st.tuples(st.integers(0, 30), st.none() | st.integers(0, 50)), min_size=9, max_size=9
)


class BusyError(Exception):
    def __init__(self, retry_after: float | None) -> None:
        super().__init__()
        self.retry_after = retry_after


@settings(max_examples=100, deadline=None)
@given(
    tries=ATTEMPTS,
    attempts=st.integers(1, 8),
    budget=st.integers(1, 100),
    jitter=st.sampled_from(["full", "equal", "decorrelated", None]),
    seed=st.integers(0, 9),
)
def test_no_attempt_begins_past_the_deadline(
    tries: list[tuple[int, int | None]], attempts: int, budget: int, jitter: Any, seed: int
) -> None:
    begun: list[float] = []
    ended: list[float] = []
    asked: list[float] = []
    with VirtualClock(seed=seed) as clock:

        @retry(attempts, backoff=Backoff(0.5, 4, jitter), deadline=budget / 10)
        def call() -> None:
            begun.append(clock.time())
            took, wants = tries[len(begun) - 1]
            clock.sleep(took / 10)
            ended.append(clock.time())
            asked.append(wants or 0)
            raise BusyError(wants)

        with pytest.raises(BusyError):
            call()
    assert 1 <= len(begun) <= attempts
    assert all(begins < budget / 10 for begins in begun)
    for ends, wants, begins in zip(ended, asked, begun[1:], strict=False):
        assert begins - ends >= wants - SLACK


@settings(max_examples=60, deadline=None)
@given(
    tries=ATTEMPTS,
    attempts=st.integers(1, 8),
    budget=st.integers(1, 100),
    per_second=st.integers(1, 10),
)
def test_a_coroutine_is_over_at_the_deadline(
    tries: list[tuple[int, int | None]], attempts: int, budget: int, per_second: int
) -> None:
    clock = VirtualClock()
    begun: list[float] = []

    async def call() -> None:
        begun.append(clock.time())
        left = remaining()
        assert left is not None and left > 0
        took, wants = tries[len(begun) - 1]
        await asyncio.sleep(took / 10)
        raise BusyError(wants)

    policy = deadline(budget / 10) | retry(attempts, backoff=0.5) | rate(f"{per_second}/s")

    async def main() -> None:
        with pytest.raises((BusyError, DeadlineError)):
            await policy(call)()
        assert clock.time() <= budget / 10 + SLACK

    clock.run(main())
    assert_within_rate(begun, per_second, 1)


@settings(max_examples=40, deadline=None)
@given(
    schedule=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=1, max_size=9
    ),
    per_second=st.integers(1, 10),
)
def test_each_key_has_a_rate_of_its_own(schedule: list[tuple[int, str]], per_second: int) -> None:
    begun: dict[str, list[float]] = {}
    clock = VirtualClock()

    @rate(f"{per_second}/s", per_key=lambda key: key)
    def call(key: str) -> None:
        begun.setdefault(key, []).append(clock.time())

    def caller(comes: int, key: str) -> None:
        clock.sleep(comes / 10)
        call(key)

    clock.run_threads(*(lambda one=one: caller(*one) for one in schedule))
    assert sum(map(len, begun.values())) == len(schedule)
    for key, moments in begun.items():
        assert_within_rate(moments, per_second, 1)
        came = [comes / 10 for comes, its in schedule if its == key]
        # Calls with other keys do not hold these up.
        assert max(moments) <= max(came) + len(came) / per_second + SLACK
