"""Policies as values: decorating, composing, entering."""

from __future__ import annotations

import asyncio
import functools
import inspect
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from juggler import policy
from juggler.policy import Guard, Policy, VirtualClock


def plain(value: int) -> int:
    """Return it."""
    return value


async def coroutine(value: int) -> int:
    """Return it."""
    return value


class Caller:
    def __call__(self, value: int) -> int:
        return value

    async def method(self, value: int) -> int:
        return value


class AsyncCaller:
    async def __call__(self, value: int) -> int:
        return value


EVERYTHING = (
    policy.deadline(60)
    | policy.retry(2)
    | policy.circuit()
    | policy.hedge(5)
    | policy.limit(5)
    | policy.rate("1000/s", burst=1000)
)


@pytest.mark.parametrize("function", [plain, Caller(), functools.partial(plain)])
def test_plain_functions_stay_plain(function: Any) -> None:
    wrapped = EVERYTHING(function)
    assert not inspect.iscoroutinefunction(wrapped)
    assert wrapped(3) == 3


@pytest.mark.parametrize(
    "function", [coroutine, AsyncCaller(), Caller().method, functools.partial(coroutine)]
)
def test_coroutine_functions_stay_coroutine_functions(function: Any) -> None:
    wrapped = (EVERYTHING | policy.timeout(5))(function)
    assert inspect.iscoroutinefunction(wrapped)
    assert asyncio.run(wrapped(3)) == 3


def test_a_decorated_function_looks_like_itself() -> None:
    wrapped = EVERYTHING(plain)
    assert (wrapped.__name__, wrapped.__doc__) == ("plain", "Return it.")
    assert str(inspect.signature(wrapped)) == "(value: 'int') -> 'int'"


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator, 3])
def test_what_cannot_be_decorated(function: Any) -> None:
    with pytest.raises(TypeError, match=r"generator function|decorates functions"):
        policy.limit(1)(function)
    with pytest.raises(TypeError):
        policy.limit(1) | 3  # type: ignore[operator]


def test_the_left_policy_is_around_the_right_one() -> None:
    begun = []

    def fails() -> None:
        begun.append(clock.time())
        raise ConnectionError

    with VirtualClock() as clock:
        with pytest.raises(ConnectionError):
            (policy.retry(3, backoff=0.0) | policy.rate("1/s"))(fails)()
        assert begun == [0.0, 1.0, 2.0], "each attempt waits for its turn"
        begun.clear()
        with pytest.raises(ConnectionError):
            (policy.rate("1/h") | policy.retry(3, backoff=0.0))(fails)()
        assert begun == [2.0, 2.0, 2.0], "only the call does"


def test_a_composition_shows_its_parts_in_order() -> None:
    parts = policy.retry(2) | (policy.limit(3) | policy.rate("5/s")) | policy.timeout(1)
    assert repr(parts) == "retry(2) | limit(3) | rate('5/s', burst=1) | timeout(1)"


def test_only_guards_are_context_managers() -> None:
    guard: Guard = policy.rate("5/s") | policy.limit(3)
    assert isinstance(guard, Guard)
    both: Policy = guard | policy.retry(2)
    assert not isinstance(both, Guard) and not hasattr(both, "__enter__")


def test_a_chain_that_cannot_be_entered_is_left() -> None:
    with VirtualClock():
        places, broken = policy.limit(1), policy.circuit(1)
        with pytest.raises(ConnectionError), broken:
            raise ConnectionError
        for _ in range(3):
            with pytest.raises(policy.CircuitOpenError), places | broken:
                pytest.fail("entered")

        async def main() -> None:
            for _ in range(3):
                with pytest.raises(policy.CircuitOpenError):
                    async with places | broken:
                        pytest.fail("entered")

        asyncio.run(main())
        with policy.deadline(1), places:
            pass


def test_an_exception_goes_through_a_chain() -> None:
    with VirtualClock() as clock:
        guard = policy.limit(1) | policy.circuit(1, reset=5)
        with pytest.raises(ConnectionError, match="gone"), guard:
            raise ConnectionError("gone")
        with pytest.raises(policy.CircuitOpenError), guard:
            pytest.fail("the circuit has not seen the failure")
        clock.advance(5)
        with guard:
            pass


def test_a_guard_may_be_entered_again_and_is_left_where_it_was_entered() -> None:
    with VirtualClock():
        two = policy.limit(2)
        with two, two:
            with pytest.raises(policy.DeadlineError), policy.deadline(1), two:
                pytest.fail("a third place")
        with pytest.raises(RuntimeError, match="was not entered"):
            two.__exit__(None, None, None)


def test_call_and_call_async() -> None:
    again = policy.retry(2)
    assert again.call(plain, value=3) == 3

    async def main() -> int:
        return await again.call_async(lambda: coroutine(4))

    assert asyncio.run(main()) == 4


def test_keys_of_a_chain() -> None:
    with VirtualClock() as clock:
        chain = policy.rate("1/s", per_key=plain) | policy.limit(1, per_key=plain)
        assert [chain.call(lambda _key: clock.time(), key) for key in (1, 2, 1)] == [0.0, 0.0, 1.0]
        with chain.for_key(2):
            assert clock.time() == 1.0


# ------------------------------------------------------------------------------- real time


def test_threads_pace_each_other_on_the_machines_clock() -> None:
    begun: list[int] = []

    @policy.rate("100/s") | policy.limit(3)
    def call() -> None:
        begun.append(time.monotonic_ns())

    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 12
    # Each was let through at its time, and noted the time after that.
    assert max(begun) - min(begun) >= 10 * 10_000_000


def test_a_wait_answers_signals() -> None:
    one = policy.rate("1/h")
    one.take(1)

    def handler(*_args: object) -> None:
        raise InterruptedError("told to stop")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        again = policy.retry(2, backoff=3600.0)(fails)
        waits: list[Callable[[], None]] = [lambda: one.take(1), again]
        for wait in waits:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(InterruptedError, match="told to stop"):
                wait()
    finally:
        signal.signal(signal.SIGALRM, before)


def fails() -> None:
    raise ConnectionError


def test_a_wait_that_is_interrupted_gives_its_place_in_line_back() -> None:
    places = policy.limit(1)

    def handler(*_args: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, handler)
    release = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with places:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(InterruptedError), places:
            pytest.fail("entered")
    finally:
        signal.signal(signal.SIGALRM, before)
        release.set()
        holder.join()
    with places:
        pass


def test_a_closed_loop_does_not_keep_a_turn() -> None:
    places = policy.limit(1)
    loop = asyncio.new_event_loop()
    places.__enter__()

    async def wait() -> None:
        async with places:
            pytest.fail("entered")

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    places.__exit__(None, None, None)
    with places:
        pass
    task.get_coro().close()  # type: ignore[union-attr]
    task._log_destroy_pending = False  # type: ignore[attr-defined]
