"""What juggler has beyond the standard library: `ReadWriteLock` and `acquire_all`."""

import random
import threading as stdlib_threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from juggler import threading


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.0005)


def started(function: Callable[..., object], *args: object) -> stdlib_threading.Thread:
    thread = stdlib_threading.Thread(target=function, args=args)
    thread.start()
    return thread


def started_result(function: Callable[..., object], *args: object) -> object:
    """What `function` returns in another thread."""
    results: list[object] = []
    started(lambda: results.append(function(*args))).join()
    return results[0]


class TestReadWriteLock:
    def test_readers_share(self) -> None:
        lock = threading.ReadWriteLock()
        with lock.read(), lock.read():
            assert lock.statistics().readers == 2
            assert lock.acquire_read(0) is True
            lock.release_read()
        assert lock.statistics().readers == 0

    def test_a_writer_is_alone(self) -> None:
        lock = threading.ReadWriteLock()
        with lock.write():
            assert lock.acquire_read(0) is False
            assert lock.acquire_write(0) is False
            assert lock.acquire_write(timeout=0.001) is False
        with lock.read():
            assert lock.acquire_write(0) is False
        assert lock.acquire_write(0) is True

    def test_a_writer_that_waits_comes_before_new_readers(self) -> None:
        lock = threading.ReadWriteLock()
        lock.acquire_read()
        order: list[str] = []

        def write() -> None:
            with lock.write():
                order.append("writer")

        def read() -> None:
            with lock.read():
                order.append("reader")

        writer = started(write)
        until(lambda: lock.statistics().waiting == 1)
        assert lock.acquire_read(0) is False
        reader = started(read)
        until(lambda: lock.statistics().waiting == 2)
        lock.release_read()
        writer.join()
        reader.join()
        assert order == ["writer", "reader"]

    def test_readers_go_on_when_a_writer_gives_up(self) -> None:
        lock = threading.ReadWriteLock()
        lock.acquire_read()
        gave_up: list[bool] = []
        writer = started(lambda: gave_up.append(lock.acquire_write(0.05)))
        until(lambda: lock.statistics().waiting == 1)
        reader = started(lock.acquire_read)
        writer.join()
        reader.join()
        assert gave_up == [False]
        assert lock.statistics().readers == 2

    def test_errors(self) -> None:
        lock = threading.ReadWriteLock()
        for release in (lock.release_read, lock.release_write):
            with pytest.raises(RuntimeError, match="release of a ReadWriteLock"):
                release()
        lock.acquire_read()
        with pytest.raises(RuntimeError, match="no writer holds"):
            lock.release_write()
        lock.release_read()
        lock.acquire_write()
        with pytest.raises(RuntimeError, match="no reader holds"):
            lock.release_read()
        lock.release_write()
        for timeout in ("1", [], 1j):
            with pytest.raises(TypeError):
                lock.acquire_read(timeout)
        with pytest.raises(OverflowError):
            lock.acquire_write(1e300)
        with pytest.raises(ValueError, match="NaN"):
            lock.acquire_write(float("nan"))

    def test_an_exception_frees_it(self) -> None:
        lock = threading.ReadWriteLock()
        for side in (lock.read, lock.write):
            with pytest.raises(ZeroDivisionError), side():
                _ = 1 // 0
        assert lock.acquire_write(0)

    def test_negative_timeouts_do_not_wait(self) -> None:
        lock = threading.ReadWriteLock()
        lock.acquire_write()
        assert lock.acquire_read(-1) is False

    def test_a_side_may_be_used_again(self) -> None:
        lock = threading.ReadWriteLock()
        writing = lock.write()
        for _ in range(3):
            with writing:
                assert lock.statistics().writing

    def test_readers_never_see_half_a_write(self) -> None:
        lock = threading.ReadWriteLock()
        pair = [0, 0]
        torn: list[bool] = []

        def write() -> None:
            for _ in range(300):
                with lock.write():
                    pair[0] += 1
                    time.sleep(0)
                    pair[1] += 1

        def read() -> None:
            for _ in range(300):
                with lock.read():
                    torn.append(pair[0] != pair[1])

        threads = [started(function) for function in (write, write, read, read)]
        for thread in threads:
            thread.join()
        assert pair == [600, 600]
        assert not any(torn)


class TestAcquireAll:
    def test_holds_them_all(self) -> None:
        locks = [threading.Lock() for _ in range(4)]
        with threading.acquire_all(*locks):
            assert all(lock.locked() for lock in locks)
        assert not any(lock.locked() for lock in locks)

    def test_none_at_all(self) -> None:
        with threading.acquire_all():
            pass
        with threading.acquire_all(timeout=0):
            pass

    def test_an_exception_frees_them(self) -> None:
        locks = [threading.Lock(), threading.RLock()]
        with pytest.raises(ZeroDivisionError), threading.acquire_all(*locks):
            _ = 1 // 0
        assert all(lock.acquire(False) for lock in locks)

    def test_a_timeout_leaves_none_held(self) -> None:
        locks = [threading.Lock() for _ in range(3)]
        for held in range(3):
            locks[held].acquire()
            for timeout in (0, 0.01, -1):
                with pytest.raises(TimeoutError, match="3 locks were not free together"):
                    with threading.acquire_all(*locks, timeout=timeout):
                        raise AssertionError
            assert [lock.locked() for lock in locks] == [at == held for at in range(3)]
            locks[held].release()

    def test_a_timeout_of_zero_takes_what_is_free(self) -> None:
        locks = [threading.Lock() for _ in range(3)]
        with threading.acquire_all(*locks, timeout=0):
            assert all(lock.locked() for lock in locks)

    @pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
    def test_a_lock_named_twice_is_taken_once(self, kind: Callable[[], Any]) -> None:
        lock, other = kind(), threading.Lock()
        with threading.acquire_all(lock, other, lock, other):
            assert not started_result(lock.acquire, False)
        assert lock.acquire(False)
        assert other.acquire(False)

    def test_reentrant_locks_may_be_held(self) -> None:
        lock, other = threading.RLock(), threading.RLock()
        with lock, threading.acquire_all(other, lock):
            assert lock.statistics().depth == 2
        assert not lock.locked()

    def test_a_timeout_also_ends_tries_that_never_wait(self) -> None:
        class Teasing:
            """Free whenever somebody waits for it, taken whenever somebody only looks."""

            def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
                return blocking

            def release(self) -> None:
                pass

        with pytest.raises(TimeoutError):
            with threading.acquire_all(Teasing(), Teasing(), timeout=0.01):
                raise AssertionError

    def test_takes_the_standard_librarys_locks_semaphores_and_conditions(self) -> None:
        mixed: list[Any] = [
            stdlib_threading.Lock(),
            threading.Semaphore(1),
            threading.Condition(),
            stdlib_threading.RLock(),
        ]
        with threading.acquire_all(*mixed, timeout=5):
            assert mixed[0].locked()
            assert not mixed[1].acquire(blocking=False)
        assert mixed[1].acquire(blocking=False)

    def test_waits_for_the_one_that_is_held(self) -> None:
        locks = [threading.Lock() for _ in range(3)]
        locks[2].acquire()
        taken: list[bool] = []

        def take() -> None:
            with threading.acquire_all(*locks):
                taken.append(True)

        thread = started(take)
        until(lambda: locks[2].statistics().waiting)
        assert not locks[0].locked()
        assert not locks[1].locked()
        locks[2].release()
        thread.join()
        assert taken

    def test_any_order_from_many_threads_never_deadlocks(self) -> None:
        locks = [threading.Lock() for _ in range(5)]
        holders = [0] * 5
        wrong: list[str] = []

        def take(seed: int) -> None:
            rng = random.Random(seed)
            for _ in range(60):
                chosen = rng.sample(range(5), rng.randint(2, 5))
                with threading.acquire_all(*(locks[at] for at in chosen)):
                    for at in chosen:
                        holders[at] += 1
                    time.sleep(0)
                    if any(holders[at] != 1 for at in chosen):
                        wrong.append(f"seed {seed}: {holders}")
                    for at in chosen:
                        holders[at] -= 1

        threads = [started(take, seed) for seed in range(6)]
        for thread in threads:
            thread.join()
        assert not wrong
        assert not any(lock.locked() for lock in locks)
