"""A thread that computes lets in whom it has woken, long before its switch interval is over."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor as StdlibExecutor

import pytest

from juggler import futures, queue


@pytest.fixture(autouse=True)
def nobody_is_made_to_give_way() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(60)
    yield
    sys.setswitchinterval(before)


def is_let_in(hand_over: Callable[[], object], seen: threading.Event) -> bool:
    """Whether another thread sets `seen` while this one hands to it and computes, some time."""
    for _ in range(50):
        time.sleep(0.002)  # the other has slept for long
        assert not seen.is_set()
        hand_over()
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            if seen.is_set():
                return True
        seen.wait(30)
        seen.clear()
    return False


def produce_for_a_consumer() -> bool:
    items: queue.Queue[object] = queue.Queue()
    seen = threading.Event()

    def consume() -> None:
        while items.get() is not None:
            seen.set()

    consumer = threading.Thread(target=consume)
    consumer.start()
    let_in = is_let_in(lambda: items.put(1), seen)
    items.put(None)
    consumer.join()
    return let_in


def test_the_main_thread_lets_its_consumer_in() -> None:
    assert threading.current_thread() is threading.main_thread()
    assert produce_for_a_consumer()


def test_another_thread_lets_its_consumer_in() -> None:
    with StdlibExecutor(1) as other:
        assert other.submit(produce_for_a_consumer).result()


def test_who_submits_lets_the_worker_in() -> None:
    seen = threading.Event()
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        assert is_let_in(lambda: pool.submit(seen.set), seen)


def test_a_getter_lets_in_the_putter_for_whom_it_made_room() -> None:
    items: queue.Queue[int] = queue.Queue(1)
    items.put(0)
    seen, stop = threading.Event(), threading.Event()

    def produce() -> None:
        while not stop.is_set():
            items.put(1)
            seen.set()

    producer = threading.Thread(target=produce)
    producer.start()
    let_in = is_let_in(items.get, seen)
    stop.set()
    while producer.is_alive():
        items.get()
        producer.join(0.01)
    assert let_in


def test_many_are_woken_and_none_is_forgotten() -> None:
    """Only the last of them is expected when the first of them knocks."""
    boxes = [queue.Queue[int]() for _ in range(400)]
    got: list[int] = []
    threads = [threading.Thread(target=lambda box=box: got.append(box.get())) for box in boxes]
    for thread in threads:
        thread.start()
    time.sleep(0.002)
    for number, box in enumerate(boxes):
        box.put(number)
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(400))
