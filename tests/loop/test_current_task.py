"""Which task is current: in each place where a program can ask, as the standard library has it."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import threading
from asyncio import tasks as asyncio_tasks
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import juggler.asyncio

STEPS = 50

# Before 3.14 the current tasks are in a dictionary by loop. A loop that has none is not in it.
in_a_dictionary = pytest.mark.skipif(sys.version_info >= (3, 14), reason="there is none any more")


LEFT_WITHIN = re.compile(
    "does not match the current task None"
    if sys.version_info < (3, 14)
    else "attempt to leave task .* while task None"
)


def known() -> dict[Any, Any]:
    return asyncio_tasks._current_tasks  # type: ignore[attr-defined, no-any-return]


def is_none(loop: Any) -> bool:
    """Whether no task of the loop is current, and it is not in the dictionary."""
    absent = sys.version_info >= (3, 14) or loop not in known()
    return absent and asyncio.current_task(loop) is None


async def step(times: int = STEPS, also: Callable[[], object] = lambda: None) -> None:
    """Take some steps, in each of which this task is current."""
    this = asyncio.current_task()
    assert this is not None
    for _ in range(times):
        await asyncio.sleep(0)
        assert asyncio.current_task() is this
        also()
        assert asyncio.current_task() is this


async def together(*works: Any) -> None:
    for task in [asyncio.ensure_future(work) for work in works]:
        await task


def make_stock(loop: Any, coroutine: Any, **options: Any) -> Any:
    return asyncio.Task(coroutine, loop=loop, **options)


def test_none_in_a_callback_between_steps(any_loop: Any) -> None:
    seen: list[bool] = []

    async def work() -> None:
        await step(also=lambda: any_loop.call_soon(lambda: seen.append(is_none(any_loop))))

    any_loop.run_until_complete(together(work(), step(), work(), step()))
    assert seen == [True] * 2 * STEPS
    assert is_none(any_loop)


@pytest.mark.parametrize("debug", [False, True])
def test_stock_tasks_between_native_ones(any_loop: Any, debug: bool) -> None:
    any_loop.set_debug(debug)

    async def main() -> None:
        works = []
        for factory in (None, make_stock, None, make_stock, None):
            any_loop.set_task_factory(factory)
            works.append(any_loop.create_task(step()))
        await asyncio.wait(works)
        assert [work.exception() for work in works] == [None] * 5

    any_loop.run_until_complete(main())
    assert is_none(any_loop)


def test_the_steps_of_tasks_that_are_not_ours_in_a_callback(any_loop: Any) -> None:
    seen: list[object] = []

    async def main() -> None:
        other = any_loop.create_task(step())
        this: Any = asyncio.current_task()

        def callback() -> None:
            asyncio_tasks._enter_task(any_loop, this)
            seen.append(asyncio.current_task())
            asyncio_tasks._leave_task(any_loop, this)
            seen.append(asyncio.current_task())

        def refused() -> None:
            with pytest.raises(RuntimeError, match="Cannot enter into task"):
                asyncio_tasks._enter_task(any_loop, other)
            any_loop.call_soon(callback)

        await step(also=refused)
        await other
        assert seen == [this, None] * STEPS

    any_loop.run_until_complete(main())


def test_a_step_that_is_left_within(any_loop: Any) -> None:
    problems: list[str] = []
    any_loop.set_exception_handler(lambda _, context: problems.append(str(context["exception"])))

    async def leaves() -> None:
        for _ in range(3):
            asyncio_tasks._leave_task(any_loop, asyncio.current_task())  # type: ignore[arg-type]
            assert asyncio.current_task() is None
            await asyncio.sleep(0)

    any_loop.run_until_complete(together(step(), leaves(), step()))
    assert len(problems) == 3
    assert all(LEFT_WITHIN.search(problem) for problem in problems), problems
    assert is_none(any_loop)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_none_after_what_ends_the_loop(any_loop: Any, error: type[BaseException]) -> None:
    async def fails() -> None:
        await step(5)
        raise error

    work = any_loop.create_task(step())
    failing = any_loop.create_task(fails())
    other = any_loop.create_task(step())
    with pytest.raises(error):
        any_loop.run_forever()
    assert is_none(any_loop)
    assert isinstance(failing.exception(), error)
    any_loop.run_until_complete(asyncio.wait([work, other]))
    assert is_none(any_loop)
    work.result()
    other.result()


def test_none_after_stop(any_loop: Any) -> None:
    stops = 3

    async def work() -> None:
        for _ in range(stops):
            await step(3)
            any_loop.stop()

    works = [any_loop.create_task(each()) for each in (step, work, step)]
    for _ in range(stops):
        any_loop.run_forever()
        assert is_none(any_loop)
    any_loop.run_until_complete(asyncio.wait(works))
    assert is_none(any_loop)
    for each in works:
        each.result()


def test_run_again_and_again(any_loop: Any) -> None:
    for _ in range(3):
        any_loop.run_until_complete(together(step(), step()))
        assert is_none(any_loop)


def test_what_a_finalizer_sees(any_loop: Any) -> None:
    seen: list[object] = []

    class Item:
        def __del__(self) -> None:
            seen.append(asyncio.current_task())

    async def make() -> Item:
        return Item()

    async def main() -> None:
        for _ in range(3):
            any_loop.create_task(make())
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    any_loop.run_until_complete(together(step(), main(), step()))
    assert seen == [None] * 3


def test_what_another_thread_sees(any_loop: Any) -> None:
    seen: list[object] = []

    def ask_after(event: threading.Event) -> object:
        event.wait()
        return asyncio.current_task(any_loop)

    def ask() -> None:
        thread = threading.Thread(target=lambda: seen.append(asyncio.current_task(any_loop)))
        thread.start()
        thread.join()

    async def main() -> None:
        this = asyncio.current_task()
        other = any_loop.create_task(step())
        await step(3, ask)
        assert seen == [this] * 3
        await step(3, lambda: any_loop.call_soon(ask))
        await asyncio.sleep(0)
        assert seen == [this] * 3 + [None] * 3
        await other
        # While the loop sleeps, or is about to.
        after = threading.Event()
        any_loop.call_soon(after.set)
        seen.append(await asyncio.to_thread(ask_after, after))
        assert seen[6:] == [None]

    any_loop.run_until_complete(main())


@pytest.fixture
def often_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switching")
def test_loops_in_several_threads() -> None:
    problems: list[BaseException] = []

    def run(times: int) -> None:
        try:
            for _ in range(times):
                with asyncio.Runner(loop_factory=juggler.asyncio.new_event_loop) as runner:
                    runner.run(together(step(200), step(200)))
                    assert is_none(runner.get_loop())
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(times,)) for times in (5, 5, 5, 5, 5, 5, 5, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


@in_a_dictionary
def test_a_dictionary_that_changes(any_loop: Any) -> None:
    def change() -> None:
        others = [object() for _ in range(100)]
        known().update(dict.fromkeys(others))
        any_loop.call_soon(lambda: [known().pop(other) for other in others])

    async def other() -> None:
        await step(3)
        change()
        await step(3)
        tasks = dict(known())
        known().clear()
        known().update(tasks)
        await step(3)

    any_loop.run_until_complete(together(other(), step(), other(), step()))
    assert is_none(any_loop)


REPLACED = """
import asyncio
asyncio.tasks._current_tasks = object()
import juggler.asyncio

async def main(): ...

seen = []
loop = juggler.asyncio.new_event_loop()
loop.set_exception_handler(lambda _, context: (seen.append(context["exception"]), loop.stop()))
loop.create_task(main())
loop.run_forever()
assert type(seen[0]) is TypeError, seen
"""


@in_a_dictionary
def test_something_else_in_place_of_the_dictionary() -> None:
    subprocess.run([sys.executable, "-c", REPLACED], check=True, timeout=60)


@in_a_dictionary
@pytest.mark.skipif(sys.version_info < (3, 12), reason="swapping is new in 3.12")
def test_swapped_tasks(any_loop: Any) -> None:
    swap = getattr(asyncio_tasks, "_swap_current_task", None)
    assert swap is not None

    def within(other: Any) -> None:
        this = asyncio.current_task()
        assert swap(any_loop, other) is this
        assert asyncio.current_task() is other
        assert swap(any_loop, this) is other

    def outside(other: Any) -> None:
        assert swap(any_loop, other) is None
        assert asyncio.current_task() is other
        assert swap(any_loop, None) is other
        seen.append(is_none(any_loop))

    seen: list[bool] = []

    async def main() -> None:
        other = any_loop.create_task(step())
        await step(also=lambda: within(other))
        await step(also=lambda: any_loop.call_soon(outside, other))

    any_loop.run_until_complete(together(main(), step()))
    assert all(seen)
    assert len(seen) >= STEPS - 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
@pytest.mark.parametrize("factory", [asyncio.Task, juggler.asyncio.Task])
def test_eager_tasks_within_steps(any_loop: Any, factory: Any) -> None:
    begun: list[object] = []

    async def first() -> None:
        this = asyncio.current_task()
        begun.append(this)
        inner = factory(second(), loop=any_loop, eager_start=True)
        assert begun[-1] is inner
        assert asyncio.current_task() is this

    async def second() -> None:
        begun.append(asyncio.current_task())

    def begin() -> None:
        task = factory(first(), loop=any_loop, eager_start=True)
        assert begun[-2] is task

    any_loop.run_until_complete(together(step(), step(also=begin), step()))
    assert is_none(any_loop)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a timer's signal")
def test_what_a_signals_handler_sees(any_loop: Any) -> None:
    seen: list[object] = []
    works: list[Any] = []

    def note(*_: object) -> None:
        seen.append(asyncio.current_task(any_loop))

    async def until_seen() -> None:
        while len(seen) < 20:
            await step(10)

    async def main() -> None:
        works.extend(
            [asyncio.current_task(), *(any_loop.create_task(until_seen()) for _ in range(2))]
        )
        await asyncio.wait(works[1:])

    before = signal.signal(signal.SIGALRM, note)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        any_loop.run_until_complete(main())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(seen) <= {None, *works}
    assert is_none(any_loop)
