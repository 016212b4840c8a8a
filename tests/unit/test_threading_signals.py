"""Signals during waits of the main thread: a handler that raises ends the wait, others don't."""

import _thread
import operator
import os
import queue as stdlib_queue
import signal
import threading as stdlib_threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from juggler import queue, threading

SIGNAL = signal.SIGUSR1


class InterruptError(Exception):
    """What the handler raises."""


class Wait:
    """A wait of the calling thread that lasts until another thread ends it.

    Attributes:
        block: waits.
        waiting: how many wait, or None if that can't be asked.
        end: ends the wait.
        ended: what `block` returns then.
        with_timeout: waits for that many seconds; it must not be ended.
    """

    def __init__(
        self,
        block: Callable[[], object],
        waiting: Callable[[], int] | None,
        end: Callable[[], object],
        ended: object,
        with_timeout: Callable[[float], object] | None = None,
    ) -> None:
        self.block = block
        self.waiting = waiting
        self.end = end
        self.ended = ended
        self.with_timeout = with_timeout


def lock() -> Wait:
    lock = threading.Lock()
    lock.acquire()
    return Wait(
        lock.acquire,
        lambda: lock.statistics().waiting,
        lock.release,
        True,
        lambda seconds: lock.acquire(timeout=seconds),
    )


def lock_by_with() -> Wait:
    lock = threading.Lock()
    lock.acquire()
    return Wait(lock.__enter__, lambda: lock.statistics().waiting, lock.release, True)


def rlock() -> Wait:
    lock = threading.RLock()
    release = stdlib_threading.Event()
    held = stdlib_threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait()

    stdlib_threading.Thread(target=hold, daemon=True).start()
    held.wait()
    return Wait(
        lock.acquire,
        lambda: lock.statistics().waiting,
        release.set,
        True,
        lambda seconds: lock.acquire(timeout=seconds),
    )


def semaphore() -> Wait:
    semaphore = threading.Semaphore(0)
    return Wait(
        semaphore.acquire,
        lambda: semaphore.statistics().waiting,
        semaphore.release,
        True,
        lambda seconds: semaphore.acquire(timeout=seconds),
    )


def bounded_semaphore() -> Wait:
    semaphore = threading.BoundedSemaphore(1)
    semaphore.acquire()
    return Wait(semaphore.acquire, lambda: semaphore.statistics().waiting, semaphore.release, True)


def event() -> Wait:
    event = threading.Event()
    return Wait(event.wait, lambda: event.statistics().waiting, event.set, True, event.wait)


def _condition(lock: Any) -> Wait:
    condition = threading.Condition(lock)

    def wait(seconds: float | None = None) -> bool:
        with condition:
            return condition.wait(seconds)

    def end() -> None:
        with condition:
            condition.notify()

    return Wait(wait, lambda: condition.statistics().waiting, end, True, wait)


def condition() -> Wait:
    return _condition(None)


def condition_of_lock() -> Wait:
    return _condition(threading.Lock())


def condition_of_foreign_lock() -> Wait:
    return _condition(stdlib_threading.RLock())


def condition_wait_for() -> Wait:
    condition = threading.Condition()
    ready: list[str] = []

    def wait(seconds: float | None = None) -> object:
        with condition:
            return condition.wait_for(lambda: ready and "ready", seconds) or False

    def end() -> None:
        with condition:
            ready.append("ready")
            condition.notify()

    return Wait(wait, lambda: condition.statistics().waiting, end, "ready", wait)


def barrier() -> Wait:
    barrier = threading.Barrier(2)
    return Wait(
        lambda: barrier.wait() in (0, 1), lambda: barrier.statistics().waiting, barrier.wait, True
    )


def reader() -> Wait:
    lock = threading.ReadWriteLock()
    lock.acquire_write()
    return Wait(
        lock.acquire_read,
        lambda: lock.statistics().waiting,
        lock.release_write,
        True,
        lock.acquire_read,
    )


def writer() -> Wait:
    lock = threading.ReadWriteLock()
    lock.acquire_read()
    return Wait(
        lambda: lock.write().__enter__(),
        lambda: lock.statistics().waiting,
        lock.release_read,
        True,
        lock.acquire_write,
    )


def all_locks() -> Wait:
    locks = [threading.Lock() for _ in range(3)]
    locks[1].acquire()

    def wait() -> None:
        with threading.acquire_all(*locks):
            pass

    return Wait(wait, lambda: locks[1].statistics().waiting, locks[1].release, None)


def _get(queue: Any, opened: bool) -> Wait:
    if opened:
        waiting = queue.not_empty.statistics
        count = lambda: waiting().waiting  # noqa: E731
    else:
        count = lambda: queue.statistics().getters  # noqa: E731

    def get(seconds: float) -> bool:
        try:
            queue.get(timeout=seconds)
        except stdlib_queue.Empty:
            return False
        return True

    return Wait(queue.get, count, lambda: queue.put(5), 5, get)


def queue_get() -> Wait:
    return _get(queue.Queue(), opened=False)


def priority_queue_get() -> Wait:
    return _get(queue.PriorityQueue(), opened=False)


def open_queue_get() -> Wait:
    return _get(queue.LifoQueue(), opened=True)


def _put(queue: Any, opened: bool) -> Wait:
    queue.put(1)
    if opened:
        waiting = queue.not_full.statistics
        count = lambda: waiting().waiting  # noqa: E731
    else:
        count = lambda: queue.statistics().putters  # noqa: E731

    def put(seconds: float) -> bool:
        try:
            queue.put(2, timeout=seconds)
        except stdlib_queue.Full:
            return False
        return True

    return Wait(lambda: queue.put(2), count, queue.get, None, put)


def queue_put() -> Wait:
    return _put(queue.Queue(1), opened=False)


def open_queue_put() -> Wait:
    return _put(queue.Queue(1), opened=True)


def queue_join() -> Wait:
    waited = queue.Queue()
    waited.put(1)
    return Wait(waited.join, None, waited.task_done, None)


def open_queue_join() -> Wait:
    waited = queue.Queue()
    waited.put(1)
    finished = waited.all_tasks_done
    return Wait(waited.join, lambda: finished.statistics().waiting, waited.task_done, None)


WAITS = [
    lock,
    lock_by_with,
    rlock,
    semaphore,
    bounded_semaphore,
    event,
    condition,
    condition_of_lock,
    condition_of_foreign_lock,
    condition_wait_for,
    barrier,
    reader,
    writer,
    all_locks,
    queue_get,
    priority_queue_get,
    open_queue_get,
    queue_put,
    open_queue_put,
    queue_join,
    open_queue_join,
]
TIMED = [make for make in WAITS if make().with_timeout is not None]


@contextmanager
def handler(function: Callable[[], None]) -> Iterator[None]:
    """Has `function` called on `SIGNAL`."""
    before = signal.signal(SIGNAL, lambda *_: function())
    try:
        yield
    finally:
        signal.signal(SIGNAL, before)


@contextmanager
def running(function: Callable[[], object]) -> Iterator[None]:
    """Runs `function` in a thread, and joins it."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = stdlib_threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert not failed


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.0005)


def main_thread_sleeps() -> bool:
    ident = stdlib_threading.main_thread().native_id
    state = Path(f"/proc/self/task/{ident}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S"


def until_main_waits(wait: Wait) -> None:
    if wait.waiting is None:
        time.sleep(0.01)  # it is about to; the thread that runs this must not be what it waits for
        until(main_thread_sleeps)
    else:
        until(wait.waiting)


def signal_until(answered: Callable[[], object]) -> None:
    """Signals the main thread until that has an effect.

    One signal is not enough to be quick: one that comes just before the main thread goes to sleep
    is seen when it gets up, after a second.
    """
    while not answered():
        os.kill(os.getpid(), SIGNAL)
        time.sleep(0.002)


@pytest.mark.parametrize("make", WAITS)
def test_a_handler_that_raises_ends_the_wait(make: Callable[[], Wait]) -> None:
    wait = make()
    raised: list[bool] = []

    def interrupt() -> None:
        if not raised:
            raised.append(True)
            raise InterruptError

    def send() -> None:
        until_main_waits(wait)
        signal_until(lambda: raised)

    with handler(interrupt):
        with running(send), pytest.raises(InterruptError):
            wait.block()
    if wait.waiting is not None:
        assert wait.waiting() == 0
    wait.end() if make is not barrier else None


@pytest.mark.parametrize("make", [lock, event, condition, queue_get])
def test_a_signal_that_does_not_end_the_sleep_is_not_lost(make: Callable[[], Wait]) -> None:
    wait = make()

    def interrupt() -> None:
        raise InterruptError

    def send() -> None:
        until_main_waits(wait)
        until(main_thread_sleeps)
        # As if it had come in the moment before: noted, and nobody woken.
        _thread.interrupt_main(SIGNAL)

    with handler(interrupt), running(send), pytest.raises(InterruptError):
        wait.block()


@pytest.mark.parametrize("make", WAITS)
def test_after_a_handler_that_returns_the_wait_goes_on(make: Callable[[], Wait]) -> None:
    wait = make()
    handled: list[bool] = []

    def send() -> None:
        until_main_waits(wait)
        signal_until(lambda: len(handled) >= 3)
        wait.end()

    with handler(lambda: handled.append(True)), running(send):
        assert wait.block() == wait.ended
    assert len(handled) >= 3


@pytest.mark.parametrize("make", TIMED)
def test_after_a_handler_that_returns_the_deadline_is_the_same(make: Callable[[], Wait]) -> None:
    wait = make()
    assert wait.with_timeout is not None
    over = stdlib_threading.Event()
    handled: list[bool] = []

    def send() -> None:
        until_main_waits(wait)
        # Would the wait begin anew with each signal, it would never end.
        signal_until(over.is_set)

    with handler(lambda: handled.append(True)), running(send):
        begin = time.monotonic()
        try:
            assert wait.with_timeout(0.1) is False
        finally:
            over.set()
        assert time.monotonic() - begin >= 0.1
    assert handled
    wait.end()


def test_a_handler_may_end_the_wait_itself() -> None:
    for make in WAITS:
        if make in (condition, condition_of_lock, condition_of_foreign_lock, condition_wait_for):
            continue  # the handler can't take the lock for sure
        if make in (barrier, rlock, queue_join, open_queue_join):
            continue  # end in another way
        if make in (open_queue_get, open_queue_put):
            continue  # the handler may come while the queue's own mutex is held
        wait = make()
        ended: list[bool] = []

        def end(wait: Wait = wait, ended: list[bool] = ended) -> None:
            if not ended:
                ended.append(True)
                wait.end()

        def send(wait: Wait = wait, ended: list[bool] = ended) -> None:
            until_main_waits(wait)
            signal_until(lambda: ended)

        with handler(end), running(send):
            assert wait.block() == wait.ended


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock, stdlib_threading.RLock])
def test_an_interrupted_condition_takes_its_lock_back(lock: Callable[[], Any]) -> None:
    condition = threading.Condition(lock())
    raised: list[bool] = []

    def interrupt() -> None:
        if not raised:
            raised.append(True)
            raise InterruptError

    def send() -> None:
        until(lambda: condition.statistics().waiting)
        signal_until(lambda: raised)

    with handler(interrupt), running(send):
        with condition:
            with pytest.raises(InterruptError):
                condition.wait()
            assert condition._is_owned()
        assert not condition._is_owned()


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock])
def test_a_handler_that_raises_while_a_condition_takes_its_lock_back(
    lock: Callable[[], Any],
) -> None:
    guard = lock()
    condition = threading.Condition(guard)
    raised: list[bool] = []
    still_held: list[bool] = []

    def interrupt() -> None:
        if not raised:
            raised.append(True)
            raise InterruptError

    def send() -> None:
        until(lambda: condition.statistics().waiting)
        with condition:
            condition.notify()
            until(lambda: guard.statistics().waiting)
            signal_until(lambda: raised)
            # The handler has raised, and the wait for the lock goes on.
            until(lambda: guard.statistics().waiting)
            still_held.append(True)

    with handler(interrupt), running(send):
        with condition:
            with pytest.raises(InterruptError):
                condition.wait()
            assert still_held
            assert guard.locked() if lock is threading.Lock else guard._is_owned()


def _race(
    block: Callable[[], object],
    end: Callable[[], object],
    lead: int,
    prepare: Callable[[], object] = lambda: None,
    held: AbstractContextManager[object] | None = None,
) -> list[object]:
    """Signals the main thread's wait, whose handler raises, while another thread ends it.

    Returns what the wait returned, if it did. `lead` shifts the two against each other; `prepare`
    runs before both; the main thread waits with `held` held. `block` must not be written in Python:
    no signal handler is to run between the end of the wait and the keeping of its result.
    """
    armed: list[bool] = []
    raised: list[bool] = []
    results: list[object] = []

    def interrupt() -> None:
        raised.append(True)
        raise InterruptError

    def race() -> None:
        until(lambda: armed)
        prepare()
        if lead % 2:
            until_idle(lead)
        os.kill(os.getpid(), SIGNAL)
        until_idle(lead)
        end()

    with handler(interrupt), running(race):
        try:
            with held or nullcontext():
                armed.append(True)
                results.extend(map(operator.call, [block]))
            until(lambda: raised)
        except InterruptError:
            pass
    return results


def until_idle(steps: int) -> None:
    """Lets other threads run for a varying time."""
    for _ in range(steps % 7):
        time.sleep(0)


ROUNDS = 100


def test_no_permit_is_lost_to_an_interrupted_wait() -> None:
    semaphore = threading.Semaphore(0)
    for lead in range(ROUNDS):
        results = _race(semaphore.acquire, semaphore.release, lead)
        assert results in ([True], [])
        assert semaphore.acquire(False) == (results == [])


def test_no_item_is_lost_to_an_interrupted_wait() -> None:
    for kind in (queue.Queue, queue.PriorityQueue):
        items = kind()
        for number in range(ROUNDS):
            results = _race(items.get, partial(items.put, number), number)
            if not results:
                results.append(items.get(False))
            assert results == [number]
            assert items.empty()


def test_an_interrupted_put_is_not_done() -> None:
    items = queue.Queue(1)
    for lead in range(ROUNDS):
        items.put("first")
        results = _race(partial(items.put, "second"), items.get, lead)
        if results:
            assert items.get(False) == "second"
        assert items.empty()


def test_no_lock_is_lost_to_an_interrupted_wait() -> None:
    lock = threading.Lock()
    for lead in range(ROUNDS):
        lock.acquire()
        results = _race(lock.acquire, lock.release, lead)
        assert lock.locked() == (results == [True])
        if results:
            lock.release()


def test_no_notification_is_lost_to_an_interrupted_wait() -> None:
    # Two wait and the first is notified: if that one is interrupted, the other must learn of it.
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    def notify() -> None:
        with condition:
            condition.notify()

    for lead in range(ROUNDS):
        other = stdlib_threading.Thread(target=wait)

        def prepare(other: stdlib_threading.Thread = other) -> None:
            until(lambda: condition.statistics().waiting == 1)
            other.start()
            until(lambda: condition.statistics().waiting == 2)

        if _race(condition.wait, notify, lead, prepare, condition):
            notify()
        other.join()


def test_a_notification_is_passed_on_if_the_lock_comes_back_with_an_exception() -> None:
    guard = threading.Lock()
    condition = threading.Condition(guard)
    raised: list[bool] = []

    def interrupt() -> None:
        raised.append(True)
        raise InterruptError

    def wait() -> None:
        with condition:
            condition.wait()

    other = stdlib_threading.Thread(target=wait)

    def send() -> None:
        until(lambda: condition.statistics().waiting == 1)
        other.start()
        until(lambda: condition.statistics().waiting == 2)
        with condition:
            condition.notify()
            until(lambda: guard.statistics().waiting)
            signal_until(lambda: raised)

    with handler(lambda: None if raised else interrupt()), running(send):
        with condition:
            with pytest.raises(InterruptError):
                condition.wait()
    other.join()


def test_queue_may_be_used_by_handlers_of_its_own_operations() -> None:
    items = queue.Queue()
    got: list[object] = []
    over = stdlib_threading.Event()

    def handle() -> None:
        items.put("signal")
        got.append(items.get())

    def send() -> None:
        while not over.is_set():
            os.kill(os.getpid(), SIGNAL)
            time.sleep(0.0002)

    with handler(handle), running(send):
        try:
            for number in range(5000):
                items.put(number)
                got.append(items.get())
            until(lambda: "signal" in got)
        finally:
            over.set()
    got += [items.get() for _ in range(items.qsize())]
    assert sorted(item for item in got if item != "signal") == list(range(5000))
