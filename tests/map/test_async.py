"""`async for` over a map."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calls import Pulled, awaiting, brittle, double, process, sleepy

import juggler

MODELS = ("serial", "threads", "processes", "auto")


@pytest.mark.parametrize("on", [*MODELS, "loop"])
def test_results_come_in_order(on: Any) -> None:
    async def main() -> list[int]:
        fn: Any = awaiting(double) if on == "loop" else double
        return [result async for result in juggler.map(fn, range(100), on=on)]

    assert asyncio.run(main()) == [2 * n for n in range(100)]


@pytest.mark.parametrize("on", [*MODELS, "loop"])
def test_the_input_may_be_asynchronous(on: Any) -> None:
    async def count() -> AsyncIterator[int]:
        for number in itertools.count():
            await asyncio.sleep(0)
            yield number

    async def main() -> list[int]:
        fn: Any = awaiting(double) if on == "loop" else double
        found: list[int] = []
        async with juggler.map(fn, count(), on=on, limit=4) as results:
            async for result in results:
                found.append(result)
                if len(found) == 50:
                    break
        return found

    assert asyncio.run(main()) == [2 * n for n in range(50)]


def test_results_do_not_wait_for_the_next_item() -> None:
    async def main() -> None:
        gate = asyncio.Event()

        async def stuck() -> AsyncIterator[int]:
            yield 1
            await gate.wait()
            yield 2

        results = juggler.map(double, stuck(), on="threads")
        assert await anext(results) == 2
        gate.set()
        assert [result async for result in results] == [4]

    asyncio.run(main())


def test_coroutines_run_in_the_loop_that_asks_within_the_limit() -> None:
    async def main() -> None:
        loop, now, most = asyncio.get_running_loop(), 0, 0

        async def call(number: int) -> int:
            nonlocal now, most
            assert asyncio.get_running_loop() is loop
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            return number

        source = Pulled(itertools.count())
        async with juggler.map(call, source, limit=5) as results:
            taken = 0
            async for _ in results:
                taken += 1
                assert source.count <= taken + 20
                if taken == 100:
                    break
        assert most == 5
        assert results.choice is not None and results.choice.model == "loop"

    asyncio.run(main())


def test_the_loop_goes_on_while_threads_work() -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticker = asyncio.create_task(tick())
        async for _ in juggler.map(sleepy, [0.05] * 4, on="threads", limit=2):
            pass
        ticker.cancel()
        return ticks

    assert asyncio.run(main()) > 5


def test_a_cancelled_task_cancels_what_it_called() -> None:
    async def main() -> None:
        ended: list[int] = []
        begun = asyncio.Event()

        async def call(number: int) -> None:
            begun.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.append(number)

        async def consume() -> None:
            async for _ in juggler.map(call, itertools.count(), limit=3):
                pass

        task = asyncio.create_task(consume())
        await begun.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while len(ended) < 3:
            await asyncio.sleep(0)
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(main())


def test_leaving_the_block_waits_for_what_was_cancelled() -> None:
    async def main() -> None:
        ended: list[int] = []

        async def call(number: int) -> int:
            if number == 0:
                return number
            try:
                await asyncio.sleep(600)
            finally:
                await asyncio.sleep(0.01)
                ended.append(number)
            return number

        async with juggler.map(call, range(3), limit=3) as results:
            assert await anext(results) == 0
        assert sorted(ended) == [1, 2]
        assert [one async for one in results] == []

    asyncio.run(main())


def test_errors() -> None:
    async def main() -> None:
        kept = [one async for one in juggler.map(awaiting(brittle), range(7), errors="skip")]
        assert kept == [1, 2, 4, 5]
        results = juggler.map(awaiting(brittle), range(1, 7))
        assert [await anext(results), await anext(results)] == [1, 2]
        with pytest.raises(ValueError, match="3 is a multiple"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    asyncio.run(main())


def test_an_error_of_the_input_comes_last() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise OSError("gone")

    async def main() -> None:
        results = juggler.map(double, broken(), on="threads")
        assert await anext(results) == 2
        with pytest.raises(OSError, match="gone"):
            await anext(results)

    asyncio.run(main())


def test_no_call_is_made_in_the_loop_s_thread_unless_it_is_asked_for() -> None:
    async def main() -> None:
        me = threading.get_ident()
        async for where in juggler.map(lambda _: threading.get_ident(), range(5000)):
            assert where != me
        async for where in juggler.map(lambda _: threading.get_ident(), range(5), on="serial"):
            assert where == me

    asyncio.run(main())


def test_a_map_that_was_begun_by_for_is_not_for_async_for() -> None:
    results = juggler.map(double, range(5), on="threads")
    assert next(results) == 0

    async def main() -> None:
        with pytest.raises(RuntimeError, match="begun by `for`"):
            await anext(results)

    asyncio.run(main())


def test_a_pool_in_a_loop() -> None:
    async def main() -> None:
        async with juggler.Pool() as pool:
            assert [n async for n in pool.map(double, range(5))] == [0, 2, 4, 6, 8]
            assert await asyncio.wrap_future(pool.submit(awaiting(double), 4)) == 8

    asyncio.run(main())


def test_processes_in_a_loop() -> None:
    async def main() -> set[int]:
        return {pid async for pid in juggler.map(process, range(8), on="processes", limit=2)}

    assert 1 <= len(asyncio.run(main())) <= 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("inside", [False, True], ids=["plain", "inside"])
@pytest.mark.parametrize("retries", [0, 2])
def test_coroutines_that_a_plain_function_makes_are_awaited(inside: bool, retries: int) -> None:
    once = awaiting(brittle)
    results = juggler.map(lambda item: once(item), range(20), errors="return", retries=retries)

    async def main() -> list[Any]:
        return [result async for result in results]

    found = asyncio.run(main()) if inside else list(results)
    assert [str(one) for one in found] == [
        str(one) for one in juggler.map(brittle, range(20), on="serial", errors="return")
    ]
    assert results.choice is not None
    assert (results.choice.model, results.choice.why) == ("loop", "fn makes coroutines")
