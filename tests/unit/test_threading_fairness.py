"""`fair=True`: the order of arrival, and nothing but it."""

import threading as stdlib_threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from juggler import threading

FAIR: list[Callable[[], Any]] = [
    lambda: threading.Lock(fair=True),
    lambda: threading.RLock(fair=True),
    lambda: threading.Semaphore(1, fair=True),
    lambda: threading.BoundedSemaphore(1, fair=True),
]
NAMES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore"]
fair = pytest.mark.parametrize("make", FAIR, ids=NAMES)


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.0005)


def in_line(lock: Any, function: Callable[[], object]) -> stdlib_threading.Thread:
    """Starts a thread that calls `function`, and waits until it waits for `lock`."""
    before = lock.statistics().waiting
    thread = stdlib_threading.Thread(target=function)
    thread.start()
    until(lambda: lock.statistics().waiting == before + 1)
    return thread


@fair
def test_threads_get_it_in_the_order_of_their_arrival(make: Callable[[], Any]) -> None:
    lock, order = make(), []
    lock.acquire()

    def enter(number: int) -> None:
        with lock:
            order.append(number)

    threads = [in_line(lock, lambda number=number: enter(number)) for number in range(8)]
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))
    assert lock.acquire(blocking=False) is True


@fair
def test_nobody_comes_before_who_waits(make: Callable[[], Any]) -> None:
    lock, order = make(), []
    for _ in range(50):
        lock.acquire()

        def enter() -> None:
            with lock:
                order.append("waiter")

        thread = in_line(lock, enter)
        lock.release()
        # A barging lock would be free until the woken thread runs.
        with lock:
            order.append("releaser")
        thread.join()
    assert order == ["waiter", "releaser"] * 50


@fair
def test_it_is_handed_over_before_the_next_runs(make: Callable[[], Any]) -> None:
    lock = make()
    may_leave = stdlib_threading.Event()
    lock.acquire()

    def enter() -> None:
        with lock:
            may_leave.wait()

    thread = in_line(lock, enter)
    lock.release()
    assert lock.acquire(blocking=False) is False
    assert lock.acquire(timeout=0.001) is False
    may_leave.set()
    thread.join()
    assert lock.acquire(blocking=False) is True


@fair
def test_who_gives_up_leaves_the_line(make: Callable[[], Any]) -> None:
    lock, results = make(), []
    lock.acquire()

    def enter(**how: float) -> None:
        results.append(lock.acquire(**how))

    gives_up = in_line(lock, lambda: enter(timeout=0.01))
    stays = in_line(lock, enter)
    gives_up.join()
    assert results == [False]
    assert lock.statistics().waiting == 1
    lock.release()
    stays.join()
    assert results == [False, True]
    # An `RLock` is the other thread's for good.
    if isinstance(lock, type(threading.RLock())):
        assert lock.locked()
        return
    lock.release()
    assert lock.acquire(blocking=False) is True


def test_as_many_enter_as_permits_come() -> None:
    semaphore, order = threading.Semaphore(0, fair=True), []

    def enter(number: int) -> None:
        semaphore.acquire()
        order.append(number)

    threads = [in_line(semaphore, lambda number=number: enter(number)) for number in range(3)]
    semaphore.release(2)
    threads[0].join()
    threads[1].join()
    assert sorted(order) == [0, 1]
    assert semaphore.statistics().waiting == 1
    semaphore.release(2)
    threads[2].join()
    assert semaphore.statistics().permits == 1


@pytest.mark.parametrize("make", FAIR[:2], ids=NAMES[:2])
def test_a_condition_takes_its_fair_lock_back(make: Callable[[], Any]) -> None:
    condition, woken = threading.Condition(make()), []

    def wait() -> None:
        with condition:
            woken.append(condition.wait())

    threads = [in_line(condition, wait) for _ in range(3)]
    with condition:
        condition.notify_all()
    for thread in threads:
        thread.join()
    assert woken == [True] * 3
    assert condition.locked() is False


def test_releasing_what_nobody_holds_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        threading.Lock(fair=True).release()
    with pytest.raises(RuntimeError):
        threading.RLock(fair=True).release()
    with pytest.raises(ValueError, match="too many"):
        threading.BoundedSemaphore(1, fair=True).release()


def test_fair_is_a_keyword() -> None:
    with pytest.raises(TypeError):
        threading.Semaphore(1, True)  # type: ignore[misc]
    with pytest.raises(TypeError):
        threading.BoundedSemaphore(1, True)  # type: ignore[misc]
    with pytest.raises(TypeError):
        threading.Lock(True)  # type: ignore[misc]


def test_a_subclass_may_ask_for_it() -> None:
    class Fair(threading.RLock):
        def __init__(self, label: str) -> None:
            super().__init__(name=label, fair=True)

    lock, order = Fair("ours"), []

    def enter() -> None:
        with lock:
            order.append("waiter")

    lock.acquire()
    thread = in_line(lock, enter)
    lock.release()
    with lock:
        order.append("releaser")
    thread.join()
    assert (lock.name, order) == ("ours", ["waiter", "releaser"])
