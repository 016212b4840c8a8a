"""The collector meets objects that are just being made."""

import gc
import weakref

import pytest

from juggler import futures, queue, threading

CLASSES = [
    threading.Condition,
    threading.Barrier,
    threading.Semaphore,
    threading.BoundedSemaphore,
    threading.Event,
    threading.RLock,
    queue.Queue,
    queue.LifoQueue,
    queue.PriorityQueue,
    futures.Future,
    futures.ThreadPoolExecutor,
]


@pytest.mark.parametrize("base", CLASSES, ids=lambda base: base.__name__)
def test_a_collection_while_an_instance_of_a_subclass_is_made(base: type) -> None:
    derived = type("Derived", (base,), {})
    arguments = (2,) if base is threading.Barrier else ()
    thresholds = gc.get_threshold()
    made = []
    try:
        # With every allocation: also with that of the instance's own dictionary.
        gc.set_threshold(1)
        made = [derived(*arguments) for _ in range(200)]
    finally:
        gc.set_threshold(*thresholds)
    assert all(isinstance(instance, base) for instance in made)


@pytest.mark.parametrize("base", CLASSES, ids=lambda base: base.__name__)
def test_an_instance_leaves_nothing_behind(base: type) -> None:
    derived = type("Derived", (base,), {})
    made = [derived(*((2,) if base is threading.Barrier else ())) for _ in range(10)]
    for instance in made:
        # A cycle through its own dictionary.
        instance.itself = instance
    gone = [*map(weakref.ref, made), weakref.ref(derived)]
    del made, instance, derived
    gc.collect()
    assert [reference() for reference in gone] == [None] * 11
