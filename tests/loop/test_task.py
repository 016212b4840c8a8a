"""Tasks: what the standard library's own tests leave open, on loops of ours and of its."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import weakref
from collections.abc import Generator
from typing import Any

import pytest

import juggler.asyncio
from juggler.asyncio import EventLoop, Task


async def _noop() -> None: ...


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_it_passes_for_the_standard_librarys(loop: EventLoop) -> None:
    task = loop.create_task(_noop())
    assert type(task) is Task
    assert isinstance(task, asyncio.Task)
    assert isinstance(task, asyncio.Future)
    loop.run_until_complete(task)


def test_the_standard_library_sees_it(any_loop: Any) -> None:
    async def main() -> None:
        current = asyncio.current_task()
        assert current is main_task
        assert asyncio.current_task(any_loop) is main_task
        other: Task[None] = Task(_forever(), loop=any_loop)
        assert asyncio.all_tasks() == {main_task, other}
        await asyncio.sleep(0)
        assert asyncio.current_task() is main_task
        other.cancel()
        await asyncio.wait({other})
        assert asyncio.all_tasks() == {main_task}

    main_task: Task[None] = Task(main(), loop=any_loop)
    any_loop.run_until_complete(main_task)
    assert asyncio.all_tasks(any_loop) == set()
    assert asyncio.current_task(any_loop) is None


def test_stock_and_native_tasks_run_side_by_side(loop: EventLoop) -> None:
    order: list[str] = []

    async def work(name: str) -> None:
        for _ in range(2):
            order.append(name)
            assert asyncio.current_task().get_name() == name  # type: ignore[union-attr]
            await asyncio.sleep(0)

    async def main() -> None:
        stock = asyncio.Task(work("stock"), loop=loop, name="stock")
        ours = loop.create_task(work("ours"), name="ours")
        assert {stock, ours} <= asyncio.all_tasks()
        await ours
        await stock

    loop.run_until_complete(main())
    assert order == ["stock", "ours"] * 2


def test_a_task_that_nobody_refers_to_goes_on(any_loop: Any) -> None:
    """Not even the future that it waits for is held by anything but the task itself."""
    ended: list[bool] = []

    async def lonely() -> None:
        future = any_loop.create_future()
        references.append(weakref.ref(future))
        await future
        ended.append(True)

    references: list[Any] = []
    Task(lonely(), loop=any_loop)
    any_loop.run_until_complete(asyncio.sleep(0.001))
    gc.collect()
    references[0]().set_result(None)
    any_loop.run_until_complete(asyncio.sleep(0.001))
    assert ended == [True]


def test_a_loop_that_is_dropped_lets_its_tasks_go(capfd: pytest.CaptureFixture[str]) -> None:
    loop = juggler.asyncio.new_event_loop()
    reported: list[str] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
    task = weakref.ref(loop.create_task(_forever()))
    loop.run_until_complete(_noop())
    gc.collect()
    assert task() is not None
    loop.close()
    gc.collect()
    assert task() is None
    assert reported == ["Task was destroyed but it is pending!"]


def test_many_tasks_leave_nothing_behind(loop: EventLoop) -> None:
    async def main() -> list[Any]:
        tasks = [loop.create_task(_noop()) for _ in range(100)]
        references = [weakref.ref(task) for task in tasks]
        for task in tasks:
            await task
        return references

    references = loop.run_until_complete(main())
    gc.collect()
    assert [reference() for reference in references] == [None] * 100


def test_cancellation_reaches_what_it_waits_for(any_loop: Any) -> None:
    async def main() -> None:
        inner: Task[None] = Task(_forever(), loop=any_loop)

        async def wait() -> None:
            await inner

        outer: Task[None] = Task(wait(), loop=any_loop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert outer.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await outer
        assert inner.cancelled()
        assert outer.cancelled()
        assert outer.cancelling() == 1
        assert outer.uncancel() == outer.uncancel() == 0

    any_loop.run_until_complete(main())


def test_a_context_goes_with_the_task(any_loop: Any) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outer")

    async def work(value: str) -> tuple[str, str]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return before, variable.get()

    async def main() -> None:
        own = contextvars.copy_context()
        first: Task[Any] = Task(work("first"), loop=any_loop)
        second: Task[Any] = Task(work("second"), loop=any_loop, context=own)
        assert await first == ("outer", "first")
        assert await second == ("outer", "second")
        assert variable.get() == "outer"
        assert own[variable] == "second"
        assert second.get_context() is own

    any_loop.run_until_complete(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_ends_the_task(loop: EventLoop, error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error

    task = loop.create_task(fail())
    other = loop.create_task(_noop())
    with pytest.raises(error):
        loop.run_forever()
    assert isinstance(task.exception(), error)
    assert not other.done()
    loop.run_until_complete(other)
    assert asyncio.all_tasks(loop) == set()


class _Yield:
    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, None, None]:
        yield self.value


async def _yield(value: object) -> None:
    await _Yield(value)


def test_a_bad_yield_is_the_coroutines_error(any_loop: Any) -> None:
    other = asyncio.new_event_loop()
    for value, message in (
        (42, "Task got bad yield: 42"),
        (any_loop.create_future(), "yield was used instead of yield from in task"),
        ((number for number in ()), "yield was used instead of yield from for generator in task"),
        (other.create_future(), "attached to a different loop"),
    ):
        with pytest.raises(RuntimeError, match=message):
            any_loop.run_until_complete(Task(_yield(value), loop=any_loop))
    other.close()


def test_it_cannot_wait_for_itself(any_loop: Any) -> None:
    async def wait() -> None:
        await task

    task: Task[None] = Task(wait(), loop=any_loop)
    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        any_loop.run_until_complete(task)


def test_a_factory_makes_the_tasks(loop: EventLoop) -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        made.append(asyncio.Task(coroutine, loop=loop, **options))
        return made[-1]

    async def main() -> None:
        assert juggler.asyncio.create_task(_noop()) is made[-1]
        loop.set_task_factory(None)
        assert type(juggler.asyncio.create_task(_noop())) is Task

    loop.set_task_factory(factory)
    loop.run_until_complete(loop.create_task(main()))
    assert [type(task) for task in made] == [asyncio.Task, asyncio.Task]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_an_eager_task_begins_at_once(any_loop: Any) -> None:
    seen: list[object] = []

    async def work() -> str:
        seen.append(asyncio.current_task())
        return "done"

    async def main() -> None:
        task: Task[str] = Task(work(), loop=any_loop, eager_start=True)
        assert seen == [task]
        assert task.done()
        assert task.get_coro() is None
        assert asyncio.current_task() is main_task
        waits: Task[None] = Task(_forever(), loop=any_loop, eager_start=True)
        assert waits in asyncio.all_tasks()
        waits.cancel()
        await asyncio.wait({waits})

    main_task: Task[None] = Task(main(), loop=any_loop)
    any_loop.run_until_complete(main_task)


def test_a_subclass_of_the_loop_makes_them_its_way() -> None:
    class Counting(EventLoop):
        made = 0

        def create_task(self, coro: Any, **options: Any) -> Any:
            self.made += 1
            return super().create_task(coro, **options)

    async def main() -> None:
        await juggler.asyncio.create_task(_noop())
        async with juggler.asyncio.TaskGroup() as group:
            group.create_task(_noop())
        await juggler.asyncio.gather(_noop())

    loop = Counting()
    loop.run_until_complete(main())
    loop.close()
    assert loop.made == 4


def test_create_task_needs_a_running_loop() -> None:
    coroutine = _noop()
    with pytest.raises(RuntimeError, match="no running event loop"):
        juggler.asyncio.create_task(coroutine)
    coroutine.close()


def test_debug_mode_refuses_other_threads(loop: EventLoop) -> None:
    loop.set_debug(True)
    problems: list[BaseException] = []

    async def main() -> None:
        future = loop.create_future()
        waiting = loop.create_task(_wait(future))
        await asyncio.sleep(0)

        def finish() -> None:
            try:
                future.set_result(None)
            except RuntimeError as error:
                problems.append(error)

        await asyncio.to_thread(finish)
        waiting.cancel()

    async def _wait(future: asyncio.Future[None]) -> None:
        await future

    loop.run_until_complete(main())
    assert "Non-thread-safe operation" in str(problems[0])


def test_a_closed_loop_refuses_its_callbacks(loop: EventLoop) -> None:
    future = loop.create_future()
    loop.create_task(_forever_on(future))
    loop.run_until_complete(_noop())
    loop.close()
    gc.collect()
    future.add_done_callback(print)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.set_result(None)


async def _forever_on(future: asyncio.Future[None]) -> None:
    await future
