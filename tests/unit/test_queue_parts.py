"""Queues whose parts programs poke, and subclasses that override the hooks."""

import collections
import heapq
import queue as stdlib_queue
import threading as stdlib_threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from juggler import queue, threading

KINDS = ["Queue", "LifoQueue", "PriorityQueue"]
PARTS = ["mutex", "not_empty", "not_full", "all_tasks_done", "queue"]
MODULES = [queue, stdlib_queue]


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.0005)


def started(function: Callable[..., object], *args: object) -> stdlib_threading.Thread:
    thread = stdlib_threading.Thread(target=function, args=args)
    thread.start()
    return thread


def drain(items: Any) -> list[Any]:
    return [items.get(False) for _ in range(items.qsize())]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_container(module: Any, kind: str) -> None:
    items = getattr(module, kind)()
    for item in (3, 1, 2):
        items.put(item)
    assert type(items.queue) is (collections.deque if kind == "Queue" else list)
    assert sorted(items.queue) == [1, 2, 3]
    if kind == "Queue":
        items.queue.appendleft(0)
    elif kind == "LifoQueue":
        items.queue.append(0)
    else:
        heapq.heappush(items.queue, 0)
    assert items.qsize() == 4
    assert items.get() == 0
    assert 1 in items.queue


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", KINDS)
def test_clear_with_the_mutex_held(module: Any, kind: str) -> None:
    items = getattr(module, kind)(3)
    for item in (3, 1, 2):
        items.put(item)
    with items.mutex:
        items.queue.clear()
        items.not_full.notify_all()
        items.unfinished_tasks = 0
        items.all_tasks_done.notify_all()
    assert items.empty()
    assert items.qsize() == 0
    assert not items.full()
    items.join()
    items.put(5)
    assert items.get() == 5


@pytest.mark.parametrize("module", MODULES)
def test_the_container_may_be_replaced(module: Any) -> None:
    items = module.Queue()
    items.put(1)
    items.queue = collections.deque("abc")
    assert drain(items) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", PARTS)
def test_asking_for_a_part_changes_nothing_else(kind: str, part: str) -> None:
    results = []
    for module in MODULES:
        items = getattr(module, kind)(5)
        for item in (3, 1, 2, 1):
            items.put(item)
        items.get()
        items.task_done()
        getattr(items, part)
        results.append(
            (
                items.qsize(),
                items.maxsize,
                items.unfinished_tasks,
                items.full(),
                items.empty(),
                drain(items),
                items.unfinished_tasks,
            )
        )
        with pytest.raises(stdlib_queue.Empty):
            items.get_nowait()
    assert results[0] == results[1]


def test_parts_are_the_same_each_time_and_share_the_mutex() -> None:
    items = queue.Queue()
    for part in PARTS:
        assert getattr(items, part) is getattr(items, part)
    for part in ("not_empty", "not_full", "all_tasks_done"):
        condition = getattr(items, part)
        assert isinstance(condition, threading.Condition)
        assert condition._lock is items.mutex
    with items.mutex:
        assert not items.not_empty.acquire(False)


def test_a_held_mutex_keeps_others_out() -> None:
    items = queue.Queue()
    done: list[str] = []
    mutex = items.mutex
    with mutex:
        thread = started(lambda: [items.put(1), done.append("put")])
        until(lambda: mutex.statistics().waiting)
        assert not done
    thread.join()
    assert done == ["put"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_opening_while_a_getter_waits(kind: str, part: str) -> None:
    items = getattr(queue, kind)()
    got: list[object] = []
    threads = [started(lambda: got.append(items.get())) for _ in range(3)]
    until(lambda: items.statistics().getters == 3)
    getattr(items, part)
    items.put(1)
    items.put(2)
    with items.mutex:
        items._put(3)
        items.unfinished_tasks += 1
        items.not_empty.notify()
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 2, 3]
    assert items.unfinished_tasks == 3


@pytest.mark.parametrize("part", PARTS)
def test_opening_while_a_putter_waits(part: str) -> None:
    items = queue.Queue(1)
    items.put(0)
    threads = [started(items.put, number) for number in (1, 2)]
    until(lambda: items.statistics().putters == 2)
    getattr(items, part)
    got = [items.get() for _ in range(3)]
    for thread in threads:
        thread.join()
    assert got[0] == 0
    assert sorted(got) == [0, 1, 2]


@pytest.mark.parametrize("part", PARTS)
def test_opening_while_somebody_joins(part: str) -> None:
    items = queue.Queue()
    items.put(0)
    joined = started(items.join)
    getattr(items, part)
    items.task_done()
    joined.join()
    assert items.unfinished_tasks == 0


def test_opening_while_waits_have_a_timeout() -> None:
    items = queue.Queue(1)
    results: list[str] = []

    def get() -> None:
        try:
            items.get(timeout=0.05)
        except queue.Empty:
            results.append("empty")

    thread = started(get)
    until(lambda: items.statistics().getters)
    assert not items.queue
    thread.join()
    assert results == ["empty"]


def test_opening_in_the_middle_of_traffic_loses_nothing() -> None:
    for kind in KINDS:
        items = getattr(queue, kind)(4)
        got: list[int] = []

        def produce(first: int, items: Any = items) -> None:
            for number in range(first, first + 200):
                items.put(number)

        def consume(items: Any = items, got: list[int] = got) -> None:
            for _ in range(200):
                got.append(items.get())
                items.task_done()

        threads = [started(produce, first) for first in (0, 200, 400)]
        threads += [started(consume) for _ in range(3)]
        until(lambda got=got: len(got) > 100)
        assert len(items.queue) <= 4
        items.join()
        for thread in threads:
            thread.join()
        assert sorted(got) == list(range(600))


@pytest.mark.parametrize("module", MODULES)
def test_a_task_count_that_is_set(module: Any) -> None:
    items = module.Queue()
    items.unfinished_tasks = 2
    items.task_done()
    items.task_done()
    with pytest.raises(ValueError, match="too many times"):
        items.task_done()
    items.unfinished_tasks += 1
    assert items.unfinished_tasks == 1


@pytest.mark.parametrize("module", MODULES)
class TestHooks:
    def test_all_of_them(self, module: Any) -> None:
        class Unique(module.Queue):  # type: ignore[misc, name-defined]
            def _init(self, maxsize: int) -> None:
                self.initialised = maxsize
                self.items: dict[object, None] = {}

            def _qsize(self) -> int:
                return len(self.items)

            def _put(self, item: object) -> None:
                self.items[item] = None

            def _get(self) -> object:
                item = next(iter(self.items))
                del self.items[item]
                return item

        items = Unique(2)
        assert items.initialised == 2
        for item in "aab":
            items.put(item)
        assert items.full()
        assert items.unfinished_tasks == 3
        with pytest.raises(stdlib_queue.Full):
            items.put("c", False)
        assert drain(items) == ["a", "b"]
        with pytest.raises(stdlib_queue.Empty):
            items.get(timeout=0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_put_alone(self, module: Any, kind: str) -> None:
        class Doubling(getattr(module, kind)):  # type: ignore[misc]
            def _put(self, item: int) -> None:
                super()._put(item * 2)

        items = Doubling()
        for item in (3, 1, 2):
            items.put(item)
        assert sorted(drain(items)) == [2, 4, 6]

    @pytest.mark.parametrize("kind", KINDS)
    def test_get_alone(self, module: Any, kind: str) -> None:
        class Negative(getattr(module, kind)):  # type: ignore[misc]
            def _get(self) -> int:
                return -super()._get()

        items = Negative(2)
        items.put(2)
        items.put(3)
        assert items.full()
        assert sorted(drain(items)) == [-3, -2]

    def test_qsize_alone(self, module: Any) -> None:
        class Heavy(module.Queue):  # type: ignore[misc, name-defined]
            def _qsize(self) -> int:
                return sum(self.queue)

        items = Heavy(10)
        items.put(4)
        assert items.qsize() == 4
        items.put(6)
        assert items.full()
        with pytest.raises(stdlib_queue.Full):
            items.put_nowait(1)

    def test_init_alone(self, module: Any) -> None:
        class Last(module.Queue):  # type: ignore[misc, name-defined]
            def _init(self, maxsize: int) -> None:
                self.queue = collections.deque(maxlen=2)

        items = Last()
        for item in range(5):
            items.put(item)
        assert drain(items) == [3, 4]

    def test_a_hook_that_raises(self, module: Any) -> None:
        class Picky(module.Queue):  # type: ignore[misc, name-defined]
            def _put(self, item: int) -> None:
                if item < 0:
                    raise ArithmeticError(item)
                super()._put(item)

        items = Picky()
        with pytest.raises(ArithmeticError):
            items.put(-1)
        assert items.unfinished_tasks == 0
        items.put(1)
        assert items.get() == 1

    def test_hooks_by_a_mixin(self, module: Any) -> None:
        class Mixin:
            def _put(self, item: object) -> None:
                super()._put((0, item))  # type: ignore[misc]

        class Mixed(Mixin, module.PriorityQueue):  # type: ignore[misc, name-defined]
            pass

        items = Mixed()
        items.put("x")
        assert items.get() == (0, "x")

    def test_a_subclass_without_hooks(self, module: Any) -> None:
        items = module.Queue()
        items.note = "mine"
        assert items.note == "mine"

        class Plain(module.Queue):  # type: ignore[misc, name-defined]
            pass

        plain = Plain(1)
        plain.put(1)
        assert plain.full()
        assert plain.get() == 1

    def test_public_methods_that_are_overridden_are_used_by_the_others(self, module: Any) -> None:
        class Logged(module.Queue):  # type: ignore[misc, name-defined]
            def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
                log.append(("put", item, block))
                super().put(item, block, timeout)

            def get(self, block: bool = True, timeout: float | None = None) -> object:
                log.append(("get", block))
                return super().get(block, timeout)

        log: list[tuple[object, ...]] = []
        items = Logged()
        items.put_nowait("x")
        assert items.get_nowait() == "x"
        assert log == [("put", "x", False), ("get", False)]

    def test_a_join_with_hooks(self, module: Any) -> None:
        class Mine(module.LifoQueue):  # type: ignore[misc, name-defined]
            def _get(self) -> object:
                return super()._get()

        items = Mine()
        items.put(1)
        thread = started(items.join)
        assert items.get() == 1
        items.task_done()
        thread.join()

    def test_blocked_getters_and_putters(self, module: Any) -> None:
        class Mine(module.Queue):  # type: ignore[misc, name-defined]
            def _put(self, item: object) -> None:
                super()._put(item)

        items = Mine(1)
        got: list[object] = []
        getter = started(lambda: got.extend(items.get() for _ in range(20)))
        putter = started(lambda: [items.put(number) for number in range(20)])
        getter.join()
        putter.join()
        assert got == list(range(20))


def test_generic_aliases() -> None:
    for kind in KINDS:
        ours, theirs = (getattr(module, kind)[int] for module in MODULES)
        assert ours.__args__ == theirs.__args__ == (int,)
        assert ours.__origin__ is getattr(queue, kind)
        assert ours().empty()


class TestShutdown:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("opened", [False, True])
    def test_what_is_inside_may_be_got(self, kind: str, opened: bool) -> None:
        items = getattr(queue, kind)()
        items.put(1)
        if opened:
            assert items.queue
        items.shutdown()
        assert items.is_shutdown
        for put in (items.put, items.put_nowait):
            with pytest.raises(queue.ShutDown):
                put(2)
        assert items.get() == 1
        for get in (items.get, items.get_nowait):
            with pytest.raises(queue.ShutDown):
                get()
        items.task_done()
        items.join()
        items.shutdown()

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("opened", [False, True])
    def test_immediate(self, kind: str, opened: bool) -> None:
        items = getattr(queue, kind)()
        for number in range(3):
            items.put(number)
        if opened:
            assert items.queue
        items.get()
        items.shutdown(immediate=True)
        assert items.empty()
        assert items.unfinished_tasks == 1
        with pytest.raises(queue.ShutDown):
            items.get()
        items.task_done()
        items.join()

    @pytest.mark.parametrize("opened", [False, True])
    def test_wakes_everybody(self, opened: bool) -> None:
        empty, full = queue.Queue(), queue.Queue(1)
        full.put(0)
        if opened:
            assert not empty.queue
            assert full.queue
        raised: list[str] = []

        def expect(function: Callable[..., object], *args: object) -> None:
            try:
                function(*args)
            except queue.ShutDown:
                raised.append("shut down")

        threads = [started(expect, empty.get) for _ in range(3)]
        threads += [started(expect, full.put, 1) for _ in range(3)]
        threads += [started(expect, full.join)]
        if opened:
            until(lambda: empty.not_empty.statistics().waiting == 3)
            until(lambda: full.not_full.statistics().waiting == 3)
        else:
            until(lambda: empty.statistics().getters == 3)
            until(lambda: full.statistics().putters == 3)
        empty.shutdown()
        full.shutdown(immediate=True)
        for thread in threads:
            thread.join()
        assert raised == ["shut down"] * 6

    def test_of_a_queue_that_is_opened_afterwards(self) -> None:
        items = queue.Queue()
        items.put(1)
        items.shutdown()
        assert list(items.queue) == [1]
        with pytest.raises(queue.ShutDown):
            items.put(2)
        assert items.get() == 1
        with pytest.raises(queue.ShutDown):
            items.get()

    def test_is_shutdown_may_be_set(self) -> None:
        items = queue.Queue()
        items.is_shutdown = True
        with pytest.raises(queue.ShutDown):
            items.put(1)
        items.is_shutdown = False
        items.put(1)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_that_are_set_on_a_queue(module: Any, kind: str) -> None:
    items = getattr(module, kind)()
    items.put(2)
    put, get, log = items._put, items._get, []

    def noted_put(item: object) -> None:
        log.append(("put", item))
        put(item)

    def noted_get() -> object:
        item = get()
        log.append(("get", item))
        return item

    items._put = noted_put
    items._get = noted_get
    items.put(1)
    assert items.qsize() == 2
    got = [items.get(), items.get_nowait()]
    assert got == ([2, 1] if kind == "Queue" else [1, 2])
    assert log == [("put", 1), ("get", got[0]), ("get", got[1])]
    items._qsize = lambda: 7
    assert items.qsize() == 7
    del items._qsize, items._put, items._get
    assert items.qsize() == 0
    items.put_nowait(3)
    assert items.get() == 3
    assert len(log) == 3


@pytest.mark.parametrize("module", MODULES)
def test_a_hook_that_is_set_while_a_getter_waits(module: Any) -> None:
    items = module.Queue()
    got: list[object] = []
    getter = started(lambda: got.append(items.get()))
    time.sleep(0.01)
    items._put = lambda item: items.queue.append(item * 2)
    items.put(21)
    getter.join()
    assert got == [42]


@pytest.mark.parametrize("kind", KINDS)
def test_other_attributes_do_not_open_a_queue(kind: str) -> None:
    items = getattr(queue, kind)()
    items.note = 1
    items.maxsize = 2
    assert (items.note, items.maxsize) == (1, 2)
    assert set(vars(items)) == {"note"}
    del items.note
    with pytest.raises(AttributeError):
        del items.note
    with pytest.raises(AttributeError):
        items.absent  # noqa: B018
    items.put(1)
    # An open queue counts nothing in the engine.
    assert items.statistics().size == 1
