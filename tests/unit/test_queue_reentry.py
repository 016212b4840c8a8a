"""Queues used from what their own operations run: destructors, comparisons, weak callbacks."""

import gc
import queue as stdlib_queue
import threading as stdlib_threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from juggler import queue

KINDS = [queue.Queue, queue.LifoQueue, queue.PriorityQueue]


class Item:
    """Runs `action` when it dies; ordered by `rank`."""

    def __init__(self, action: Callable[[], object], rank: int = 0) -> None:
        self.action = action
        self.rank = rank

    def __lt__(self, other: "Item") -> bool:
        return self.rank < other.rank

    def __del__(self) -> None:
        self.action()


def started(function: Callable[..., object], *args: object) -> stdlib_threading.Thread:
    thread = stdlib_threading.Thread(target=function, args=args)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", KINDS)
def test_a_destructor_may_put_and_get(kind: Any) -> None:
    items = kind()
    got: list[object] = []

    def act() -> None:
        items.put(1)
        got.append((items.qsize(), items.get(), items.empty()))

    items.put(Item(act))
    items.get()
    assert got == [(1, 1, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_items_that_die_with_the_queue_may_use_it(kind: Any) -> None:
    items = kind()
    dead: list[int] = []
    reference = weakref.ref(items)

    def act() -> None:
        alive = reference()
        dead.append(0 if alive is None else alive.qsize())

    for rank in range(3):
        items.put(Item(act, rank))
    del items
    gc.collect()
    assert len(dead) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_items_thrown_away_by_an_immediate_shutdown_may_use_it(kind: Any) -> None:
    items = kind()
    seen: list[tuple[int, bool]] = []
    for rank in range(3):
        items.put(Item(lambda: seen.append((items.qsize(), items.is_shutdown)), rank))
    items.shutdown(immediate=True)
    assert seen == [(0, True)] * 3


def test_a_refused_item_may_use_the_queue_as_it_dies() -> None:
    items = queue.Queue(1)
    items.put("first")
    seen: list[int] = []
    with pytest.raises(queue.Full):
        items.put(Item(lambda: seen.append(items.qsize())), False)
    with pytest.raises(queue.Full):
        items.put(Item(lambda: seen.append(items.qsize())), timeout=0.001)
    assert seen == [1, 1]


def test_the_garbage_collector_may_use_a_queue_at_any_moment() -> None:
    # What python/cpython#76757 is about: the collector, in the middle of a put, runs a destructor
    # that puts.
    items = queue.Queue()
    count = 0

    class Cycle:
        def __init__(self) -> None:
            self.myself = self

        def __del__(self) -> None:
            nonlocal count
            count += 1
            items.put("from a destructor")

    before = gc.get_threshold()
    gc.set_threshold(5)
    try:
        threads = [started(lambda: [(Cycle(), items.put([Cycle()])) for _ in range(200)])]
        for _ in range(200):
            items.put([Cycle()])
            items.get()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    while not items.empty():
        items.get()
    gc.collect()
    assert count == 600


def test_a_weak_references_callback_may_use_the_queue() -> None:
    class Thing:
        pass

    items = queue.LifoQueue()
    thing = Thing()
    reference = weakref.ref(thing, lambda _: items.put("gone"))
    items.put(thing)
    del thing
    items.get()
    assert items.get(False) == "gone"
    assert reference() is None


class Ranked:
    """Compares by calling `compare`."""

    def __init__(self, rank: int, compare: Callable[[], object] = lambda: None) -> None:
        self.rank = rank
        self.compare = compare

    def __lt__(self, other: "Ranked") -> bool:
        self.compare()
        other.compare()
        return self.rank < other.rank


def fail() -> None:
    raise ArithmeticError("can't compare")


def ranks(items: Any) -> list[int]:
    return [items.get(False).rank for _ in range(items.qsize())]


def test_a_comparison_that_raises_in_put_leaves_the_queue_as_it_was() -> None:
    items = queue.PriorityQueue()
    for rank in (5, 3, 4, 1, 2):
        items.put(Ranked(rank))
    for _ in range(3):
        with pytest.raises(ArithmeticError):
            items.put(Ranked(0, fail))
    assert items.qsize() == 5
    assert items.unfinished_tasks == 5
    assert ranks(items) == [1, 2, 3, 4, 5]


def test_a_comparison_that_raises_in_get_leaves_the_queue_as_it_was() -> None:
    broken: list[bool] = []

    def maybe_fail() -> None:
        if broken:
            fail()

    items = queue.PriorityQueue()
    for rank in (5, 3, 4, 1, 2):
        items.put(Ranked(rank, maybe_fail))
    broken.append(True)
    for _ in range(3):
        with pytest.raises(ArithmeticError):
            items.get()
        assert items.qsize() == 5
    broken.clear()
    assert ranks(items) == [1, 2, 3, 4, 5]


def test_a_failed_comparison_leaves_room_and_waiters_as_they_were() -> None:
    items = queue.PriorityQueue(2)
    items.put(Ranked(1))
    with pytest.raises(ArithmeticError):
        items.put(Ranked(0, fail))
    items.put(Ranked(2))
    assert items.full()
    got: list[int] = []
    thread = started(lambda: items.put(Ranked(3)))
    got += [items.get().rank for _ in range(3)]
    thread.join()
    assert got == [1, 2, 3]


def test_items_that_have_no_order() -> None:
    items = queue.PriorityQueue()
    items.put({})
    with pytest.raises(TypeError, match="'<' not supported between instances of 'dict' and"):
        items.put({})
    assert items.get() == {}


@pytest.mark.parametrize(
    "use",
    [
        lambda items: items.put(Ranked(9)),
        lambda items: items.get(),
        lambda items: items.get_nowait(),
        lambda items: items.put(Ranked(9), timeout=5),
    ],
)
def test_a_comparison_that_uses_its_own_queue_is_told(use: Callable[[Any], object]) -> None:
    items = queue.PriorityQueue()
    items.put(Ranked(1))
    with pytest.raises(RuntimeError, match="used while it compares its own items"):
        items.put(Ranked(0, lambda: use(items)))
    assert items.qsize() == 1
    assert items.get().rank == 1


def test_a_comparison_may_look_at_its_own_queue() -> None:
    items = queue.PriorityQueue()
    sizes: list[int] = []
    items.put(Ranked(1))
    items.put(Ranked(0, lambda: sizes.append(items.qsize())))
    assert len(sizes) == 1
    assert sizes[0] in (1, 2)


def test_a_comparison_may_use_another_queue() -> None:
    items, other = queue.PriorityQueue(), queue.PriorityQueue()
    items.put(Ranked(1))
    items.put(Ranked(0, lambda: other.put(Ranked(7))))
    assert other.get(False).rank == 7


def test_a_slow_comparison_keeps_other_threads_waiting_not_failing() -> None:
    items = queue.PriorityQueue()
    compares = stdlib_threading.Event()
    go_on = stdlib_threading.Event()

    def compare() -> None:
        compares.set()
        go_on.wait()

    items.put(Ranked(5))
    slow = started(items.put, Ranked(4, compare))
    compares.wait()
    got: list[int] = []
    other = started(lambda: got.append(items.get().rank))
    third = started(items.put, Ranked(6))
    go_on.set()
    for thread in (slow, other, third):
        thread.join()
    assert sorted(got + ranks(items)) == [4, 5, 6]


def test_reversed_and_partial_orders() -> None:
    class Backwards(Ranked):
        def __lt__(self, other: Ranked) -> bool:
            return self.rank > other.rank

    items = queue.PriorityQueue()
    for rank in (2, 5, 1):
        items.put(Backwards(rank))
    assert ranks(items) == [5, 2, 1]


def test_only_less_than_is_asked() -> None:
    class OnlyLess:
        def __init__(self, rank: int) -> None:
            self.rank = rank

        def __lt__(self, other: "OnlyLess") -> bool:
            return self.rank < other.rank

        def __eq__(self, other: object) -> bool:
            raise AssertionError

        __gt__ = __le__ = __ge__ = __eq__  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    items = queue.PriorityQueue()
    for rank in (2, 3, 1):
        items.put(OnlyLess(rank))
    assert ranks(items) == [1, 2, 3]


def test_identical_items_are_compared_as_any_others() -> None:
    # The standard library's heap asks `<` of an item and itself, too: NaN is below nothing.
    nan = float("nan")
    for module in (queue, stdlib_queue):
        items = module.PriorityQueue()
        for item in (nan, 1.0, nan, 0.0):
            items.put(item)
        results = [items.get() for _ in range(4)]
        if module is queue:
            ours = results
    assert [repr(item) for item in ours] == [repr(item) for item in results]


def test_a_comparisons_truth_may_raise() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise LookupError("undecided")

    class Vague:
        def __lt__(self, other: object) -> Undecided:
            return Undecided()

    items = queue.PriorityQueue()
    items.put(Vague())
    with pytest.raises(LookupError):
        items.put(Vague())
    assert items.qsize() == 1
