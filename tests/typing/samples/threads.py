"""Threads' primitives as a program uses them: type checked, and run."""

from __future__ import annotations

import threading as stdlib
from typing import assert_type

from juggler import threading


def held_by_hand(lock: threading.Lock) -> bool:
    if lock.acquire(timeout=1.5):
        assert_type(lock.locked(), bool)
        lock.release()
    assert_type(lock.acquire(False), bool)
    lock.release()
    with lock as taken:
        assert_type(taken, bool)
    return lock.locked()


class Account:
    def __init__(self, name: str) -> None:
        self.lock = threading.RLock(name=name)
        self.balance = 0

    def add(self, amount: int) -> None:
        with self.lock:
            self.balance += amount


class Countdown(threading.Condition):
    """Subclassing keeps the types."""

    def __init__(self, count: int) -> None:
        super().__init__(threading.Lock())
        self.count = count

    def step(self) -> None:
        with self:
            self.count -= 1
            self.notify_all()

    def rest(self) -> int:
        return self.count


def main() -> None:
    lock = threading.Lock(name="the lock")
    assert_type(lock.name, "str | None")
    assert held_by_hand(lock) is False
    assert_type(lock.statistics(), threading.LockStatistics)
    assert_type(lock.statistics().waiting, int)

    account = Account("ours")
    account.add(3)
    assert_type(account.lock.statistics().owner, "int | None")

    countdown = Countdown(2)
    threads = [threading.Thread(target=countdown.step) for _ in range(2)]
    assert_type(threads, list[stdlib.Thread])
    for thread in threads:
        thread.start()
    with countdown:
        assert_type(countdown.wait_for(lambda: countdown.rest() == 0, timeout=60), bool)
        assert_type(countdown.wait_for(lambda: "yes"), str)
        assert_type(countdown.wait(0), bool)
    for thread in threads:
        thread.join()
    with threading.Condition(stdlib.Lock()) as foreign:  # any lock will do
        assert_type(foreign, bool)

    semaphore: threading.Semaphore = threading.BoundedSemaphore(2)
    assert_type(semaphore.acquire(timeout=None), bool)
    semaphore.release(n=1)
    assert_type(semaphore.statistics().bound, "int | None")

    event = threading.Event()
    assert_type(event.wait(0), bool)
    event.set()
    assert event.statistics().is_set

    barrier = threading.Barrier(1, action=event.clear, timeout=60)
    assert_type(barrier.wait(), int)
    assert_type(barrier.statistics(), threading.BarrierStatistics)
    assert not event.is_set()

    shared = threading.ReadWriteLock(name="shared")
    with shared.read():
        assert_type(shared.acquire_write(timeout=0), bool)
    with shared.write():
        assert_type(shared.statistics().writing, bool)

    with threading.acquire_all(lock, account.lock, timeout=60):
        assert_type(threading.current_thread(), stdlib.Thread)

    threading.detect_deadlocks()
    threading.detect_deadlocks(False)
    failures: list[type[RuntimeError]] = [threading.DeadlockError, threading.BrokenBarrierError]
    assert all(issubclass(failure, Exception) for failure in failures)


if __name__ == "__main__":
    main()
