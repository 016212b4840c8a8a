"""Queues for tasks: what CPython's tests and the models do not ask."""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from juggler.asyncio import new_event_loop, queues

KINDS: list[Any] = [queues.Queue, queues.LifoQueue, queues.PriorityQueue]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "stdlib": asyncio.new_event_loop,
    "juggler": new_event_loop,
}


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


async def fill_and_empty(queue: Any, items: list[Any]) -> list[Any]:
    """Put the items in by a task of its own and take them out."""

    async def fill() -> None:
        for item in items:
            await queue.put(item)

    filler = asyncio.ensure_future(fill())
    taken = []
    for _ in items:
        taken.append(await queue.get())
        queue.task_done()
    await filler
    await queue.join()
    return taken


def test_the_exceptions_are_the_stdlibs() -> None:
    assert queues.QueueEmpty is asyncio.QueueEmpty
    assert queues.QueueFull is asyncio.QueueFull
    assert queues.QueueShutDown is getattr(asyncio, "QueueShutDown", queues.QueueShutDown)


class Unique(queues.Queue[int]):
    """Takes each item once: all hooks are overridden."""

    def _init(self, maxsize: int) -> None:
        self.seen: set[int] = set()
        self.line: deque[int] = deque()

    def _put(self, item: int) -> None:
        if item not in self.seen:
            self.seen.add(item)
            self.line.append(item)

    def _get(self) -> int:
        return self.line.popleft()

    def qsize(self) -> int:
        return len(self.line)

    def empty(self) -> bool:
        return not self.line


def test_a_subclass_may_override_all_hooks(runner: asyncio.Runner) -> None:
    async def main() -> None:
        queue = Unique(2)
        for item in (1, 1, 2):
            await queue.put(item)
        assert queue.full()
        with pytest.raises(asyncio.QueueFull):
            queue.put_nowait(3)
        assert [await queue.get(), queue.get_nowait()] == [1, 2]
        with pytest.raises(asyncio.QueueEmpty):
            queue.get_nowait()
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        queue.put_nowait(4)
        assert await getter == 4

        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        getter.cancel()
        await asyncio.wait([getter])
        assert not queue._getters

        queue.put_nowait(5)
        queue.shutdown(immediate=True)
        with pytest.raises(queues.QueueShutDown):
            await queue.get()
        with pytest.raises(queues.QueueShutDown):
            await queue.put(6)

    runner.run(main())


@pytest.mark.parametrize(
    "hook", ["_put", "_get", "put_nowait", "get_nowait", "qsize", "full", "empty"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_each_hook_is_called_if_it_is_overridden(
    kind: Any, hook: str, runner: asyncio.Runner
) -> None:
    calls = []

    def overriding(self: Any, *args: Any) -> Any:
        calls.append(hook)
        return getattr(kind, hook)(self, *args)

    subclass = type("Mine", (kind,), {hook: overriding})
    assert runner.run(fill_and_empty(subclass(2), [3, 3, 3])) == [3, 3, 3]
    assert calls

    calls.clear()
    queue = kind(2)
    setattr(queue, hook, lambda *args: overriding(queue, *args))
    assert runner.run(fill_and_empty(queue, [3, 3, 3])) == [3, 3, 3]
    assert calls


@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_that_overrides_nothing_stays_native(kind: Any, runner: asyncio.Runner) -> None:
    class Named(kind):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(maxsize=1)
            self.name = name

    queue = Named("mine")
    assert queue.name == "mine"
    assert runner.run(fill_and_empty(queue, [1, 2, 3])) == [1, 2, 3]
    # A coroutine of Python would have a frame.
    getter = queue.get()
    assert not hasattr(getter, "cr_frame")
    getter.close()


@pytest.mark.parametrize("kind", KINDS)
def test_asking_for_the_container_keeps_the_items(kind: Any, runner: asyncio.Runner) -> None:
    async def main() -> None:
        queue, theirs = kind(), getattr(asyncio, kind.__name__)()
        for item in (2, 1, 3):
            queue.put_nowait(item)
            theirs.put_nowait(item)
        assert queue._queue == theirs._queue
        assert type(queue._queue) is type(theirs._queue)
        assert queue._format() == theirs._format()
        queue.put_nowait(0)
        theirs.put_nowait(0)
        assert [await queue.get() for _ in range(4)] == [await theirs.get() for _ in range(4)]

    runner.run(main())


def test_who_waits_is_served_though_the_queue_is_opened_meanwhile(runner: asyncio.Runner) -> None:
    async def main() -> None:
        queue: Any = queues.Queue(1)
        getter = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        assert not queue._queue
        queue.put_nowait(1)
        assert await getter == 1

        queue.put_nowait(2)
        putter = asyncio.ensure_future(queue.put(3))
        await asyncio.sleep(0)
        assert queue.get_nowait() == 2
        await putter
        assert list(queue._queue) == [3]

    runner.run(main())


@pytest.mark.parametrize("maxsize", [math.inf, -1, 0, -math.inf])
def test_queues_without_a_bound(maxsize: float, runner: asyncio.Runner) -> None:
    async def main() -> None:
        queue = queues.Queue[int](maxsize)  # type: ignore[arg-type]
        assert queue.maxsize == maxsize
        for item in range(100):
            await queue.put(item)
        assert not queue.full()
        assert queue.qsize() == 100

    runner.run(main())


def test_bad_bounds() -> None:
    with pytest.raises(TypeError, match="maxsize must be"):
        queues.Queue("many")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        queues.Queue(math.nan)  # type: ignore[arg-type]


def test_the_bound_may_be_changed(runner: asyncio.Runner) -> None:
    queue: Any = queues.Queue(1)
    queue.put_nowait(1)
    queue._maxsize = 2
    queue.put_nowait(2)
    assert queue.full()
    assert queue.maxsize == 2


class Fragile:
    """Compares until it is told not to."""

    broken = False

    def __init__(self, number: int, use: Callable[[], object] = int) -> None:
        self.number = number
        self.use = use

    def __lt__(self, other: Fragile) -> bool:
        if Fragile.broken:
            raise KeyError("broken")
        self.use()
        return self.number < other.number


def test_a_comparison_that_raises_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: Any = queues.PriorityQueue()
    for number in (3, 1, 2):
        queue.put_nowait(Fragile(number))
    monkeypatch.setattr(Fragile, "broken", True)
    with pytest.raises(KeyError, match="broken"):
        queue.get_nowait()
    with pytest.raises(KeyError, match="broken"):
        queue.put_nowait(Fragile(0))
    assert (queue.qsize(), queue._unfinished_tasks) == (3, 3)
    monkeypatch.setattr(Fragile, "broken", False)
    assert [queue.get_nowait().number for _ in range(3)] == [1, 2, 3]


def test_a_comparison_must_not_use_the_queue() -> None:
    queue: Any = queues.PriorityQueue()
    queue.put_nowait(Fragile(1))
    with pytest.raises(RuntimeError, match="while it compares its own items"):
        queue.put_nowait(Fragile(0, queue.get_nowait))
    assert queue.qsize() == 1


def test_items_are_not_kept(runner: asyncio.Runner) -> None:
    class Item:
        pass

    async def main() -> None:
        queue: Any = queues.Queue()
        gone = []
        for _ in range(3):
            item = Item()
            gone.append(weakref.ref(item))
            await queue.put(item)
        del item
        await queue.get()
        assert gone[0]() is None
        queue.shutdown(immediate=True)
        assert [dead() for dead in gone] == [None] * 3

        queue = queues.Queue()
        queue.put_nowait(queue)
        dead = weakref.ref(queue)
        del queue
        gc.collect()
        assert dead() is None

    runner.run(main())


def test_an_item_of_any_kind_arrives(runner: asyncio.Runner) -> None:
    # What carries a result out of a coroutine treats exceptions and tuples in a way of its own.
    items = [None, True, (1, 2), (), KeyError("item"), StopIteration(3), KeyError]
    assert runner.run(fill_and_empty(queues.Queue(1), items)) == items


def test_task_done_too_often() -> None:
    queue = queues.Queue[int]()
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()


def test_shutdown_wakes_all(runner: asyncio.Runner) -> None:
    async def main() -> None:
        queue = queues.Queue[int](1)
        getters = [asyncio.ensure_future(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.shutdown()
        results = await asyncio.gather(*getters, return_exceptions=True)
        assert [type(result) for result in results] == [queues.QueueShutDown] * 3

        queue = queues.Queue[int](1)
        queue.put_nowait(1)
        putters = [asyncio.ensure_future(queue.put(2)) for _ in range(3)]
        joiner = asyncio.ensure_future(queue.join())
        await asyncio.sleep(0)
        queue.shutdown(immediate=True)
        outcomes = await asyncio.gather(*putters, joiner, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:3]] == [queues.QueueShutDown] * 3
        assert outcomes[3] is None

    runner.run(main())
