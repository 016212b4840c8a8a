"""What processes wait with: deaths of owners, signals, many of them, and what is left behind."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import leftovers
import pytest
from children import Start

from juggler import multiprocessing
from juggler.multiprocessing import sharedctypes, synchronize
from juggler.multiprocessing.synchronize import OwnerDied

pytestmark = pytest.mark.filterwarnings(
    # What is forked here is forked beside no thread that holds anything.
    "ignore:This process:DeprecationWarning"
)

METHODS = ["zygote", "fork", "spawn", "forkserver"]


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> BaseContext:
    chosen: BaseContext = multiprocessing.get_context(request.param)
    return chosen


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.001)


def kill(child: BaseProcess) -> None:
    child.kill()
    child.join()


def hold(lock: Any, held: Any) -> None:
    with lock:
        held.set()
        time.sleep(600)


def wait_in(condition: synchronize.Condition, woken: Any) -> None:
    with condition:
        condition.wait()
        woken.release()


def meet(barrier: synchronize.Barrier, broken: Any) -> None:
    try:
        barrier.wait()
    except threading.BrokenBarrierError:
        broken.release()


def add(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1
        value.get_obj()


def fetch_add(value: Any, times: int) -> None:
    for _ in range(times):
        value.fetch_add()


@pytest.mark.parametrize("make", [synchronize.Lock, synchronize.RLock])
@pytest.mark.parametrize("deadline", [{}, {"timeout": 60}, {"block": False}])
def test_a_dead_holders_lock_is_taken_over_and_told_once(
    start: Start, make: Callable[[], Any], deadline: dict[str, Any]
) -> None:
    lock, held = make(), synchronize.Event()
    child = start(hold, lock, held)
    held.wait()
    assert repr(lock).startswith(f"<{make.__name__}(") and "SomeOtherProcess" in repr(lock)
    assert not lock.acquire(False)
    kill(child)
    with pytest.warns(OwnerDied, match=f"died while it held a {make.__name__}"):
        assert lock.acquire(**deadline)
    lock.release()
    with lock:
        pass


@pytest.mark.parametrize("make", [synchronize.Lock, synchronize.RLock])
def test_where_warnings_are_errors_the_lock_is_free_again(
    start: Start, make: Callable[[], Any]
) -> None:
    lock, held = make(), synchronize.Event()
    child = start(hold, lock, held)
    held.wait()
    kill(child)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OwnerDied)
        with pytest.raises(OwnerDied), lock:
            pass
    assert lock.acquire(False)
    lock.release()


def test_of_the_waiters_one_is_told_and_all_get_the_lock(start: Start) -> None:
    lock, held, value = synchronize.Lock(), synchronize.Event(), sharedctypes.Value("i", 0)
    child = start(hold, lock, held)
    held.wait()
    others = [start(take_and_count, lock, value) for _ in range(3)]
    kill(child)
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert value.value == 1


def take_and_count(lock: synchronize.Lock, told: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with lock:
            told.fetch_add(len(caught))


def test_a_notification_that_reached_the_dead_goes_to_the_living(start: Start) -> None:
    condition, woken = synchronize.Condition(), synchronize.Semaphore(0)
    dead = start(wait_in, condition, woken)
    until(lambda: condition._room.waiting() == 1)
    alive = start(wait_in, condition, woken)
    until(lambda: condition._room.waiting() == 2)
    kill(dead)
    with condition:
        condition.notify()
    woken.acquire()
    alive.join()
    assert alive.exitcode == 0


def test_a_waiter_that_dies_with_the_conditions_lock_hangs_nobody(start: Start) -> None:
    condition, held = synchronize.Condition(), synchronize.Event()
    kill_me = start(hold, condition, held)
    held.wait()
    kill(kill_me)
    with pytest.warns(OwnerDied), condition:
        condition.notify_all()


def test_a_party_that_dies_breaks_the_barrier_for_the_others(start: Start) -> None:
    barrier, broken = synchronize.Barrier(3), synchronize.Semaphore(0)
    dead = start(meet, barrier, broken)
    until(lambda: barrier.n_waiting == 1)
    alive = start(meet, barrier, broken)
    until(lambda: barrier.n_waiting == 2)
    kill(dead)
    broken.acquire()
    alive.join()
    assert barrier.broken
    barrier.reset()
    others = [start(meet, barrier, broken) for _ in range(2)]
    assert barrier.wait() in range(3)
    for other in others:
        other.join()
    assert broken.get_value() == 0


def wait_for(primitive: Any, ready: Any) -> None:
    ready.release()
    (primitive.wait if isinstance(primitive, synchronize.Event) else primitive.acquire)()


@pytest.mark.parametrize("make", [lambda: synchronize.Semaphore(0), synchronize.Event])
def test_a_waiter_that_dies_takes_nothing_with_it(start: Start, make: Callable[[], Any]) -> None:
    primitive, ready = make(), synchronize.Semaphore(0)
    dead, alive = (start(wait_for, primitive, ready) for _ in range(2))
    ready.acquire(), ready.acquire()
    kill(dead)
    (primitive.set if isinstance(primitive, synchronize.Event) else primitive.release)()
    alive.join()
    assert alive.exitcode == 0


def test_a_count_under_the_lock_and_an_atomic_one_lose_nothing(start: Start) -> None:
    locked, atomic = sharedctypes.Value("i", 0), sharedctypes.Value("q", 0)
    children = [start(add, locked, 2_000) for _ in range(2)]
    children += [start(fetch_add, atomic, 20_000) for _ in range(2)]
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert (locked.value, atomic.value) == (4_000, 40_000)


def descriptors() -> int:
    return leftovers.open_files().total()


def use(locks: list[Any], array: Any) -> None:
    for lock in locks:
        with lock:
            array[0] += 1


def test_ten_thousand_locks_take_few_descriptors_and_travel(start: Start) -> None:
    before = descriptors()
    locks = [synchronize.Lock() for _ in range(10_000)]
    assert descriptors() - before <= 1
    array = sharedctypes.Array("l", 1)
    child = start(use, locks, array)
    child.join()
    assert child.exitcode == 0
    assert array[:] == [10_000]


def drop_and_use(lock: Any, event: Any) -> None:
    event.wait()
    lock.release()


def test_memory_that_a_child_may_use_is_not_used_again(start: Start) -> None:
    lock, event = synchronize.Lock(), synchronize.Event()
    lock.acquire()
    child = start(drop_and_use, lock, event)
    del lock
    gc.collect()
    # The child frees its lock: none of these may be the same.
    others = [synchronize.Lock() for _ in range(2_000)]
    for other in others:
        other.acquire()
    event.set()
    child.join()
    assert child.exitcode == 0
    assert all(other.locked() for other in others)


def test_nothing_is_left_behind(start: Start) -> None:
    gc.collect()
    before = descriptors()
    for _ in range(3):
        large = sharedctypes.RawArray("d", 100_000)
        assert descriptors() > before
        del large
        gc.collect()
        assert descriptors() == before
    for _ in range(50_000):
        synchronize.Condition()
    assert descriptors() <= before + 2, "a page each, used again and again"
    child = start(add, sharedctypes.Value("i"), 1)
    child.join()
    assert child.exitcode == 0


def test_nothing_can_be_pickled_but_to_a_child() -> None:
    import pickle

    for primitive in (
        synchronize.Lock(),
        synchronize.Condition(),
        synchronize.Barrier(2),
        synchronize.Event(),
        sharedctypes.Value("i"),
        sharedctypes.Array("c", 3),
    ):
        with pytest.raises(RuntimeError, match="should only be shared between processes"):
            pickle.dumps(primitive)


def test_timeouts() -> None:
    lock = synchronize.Lock()
    lock.acquire()
    for timeout in (-1, 0, 0.02):
        start = time.monotonic()
        assert lock.acquire(True, timeout) is False
        assert time.monotonic() - start >= timeout
        assert synchronize.Semaphore(0).acquire(timeout=timeout) is False
        assert synchronize.Event().wait(timeout) is False
        with (condition := synchronize.Condition()):
            assert condition.wait(timeout) is False
            assert condition.wait_for(lambda: 0, timeout) == 0
        with pytest.raises(threading.BrokenBarrierError):
            synchronize.Barrier(2, timeout=60).wait(timeout)
    with pytest.raises(TypeError):
        lock.acquire(True, "soon")  # type: ignore[arg-type]
    assert lock.acquire(False, 5) is False


def test_bad_use_gets_the_standard_librarys_errors() -> None:
    with pytest.raises(ValueError, match="released too many times"):
        synchronize.Lock().release()
    with pytest.raises(AssertionError, match="not owned by thread"):
        synchronize.RLock().release()
    with pytest.raises(ValueError, match="released too many times"):
        synchronize.BoundedSemaphore(2).release()
    for value in (-1, synchronize.SEM_VALUE_MAX + 1):
        with pytest.raises(ValueError, match="value must be 0 to"):
            synchronize.Semaphore(value)
    with pytest.raises(ValueError, match="released too many times"):
        synchronize.Semaphore(synchronize.SEM_VALUE_MAX).release()
    with pytest.raises(AssertionError, match="must acquire"):
        synchronize.Condition().wait()
    with pytest.raises(AssertionError, match="not owned"):
        synchronize.Condition().notify()
    with pytest.raises(ValueError, match="parties"):
        synchronize.Barrier(0)
    with pytest.raises(AttributeError, match="no method 'acquire'"):
        sharedctypes.Value("i", lock="lock")


@pytest.mark.parametrize("code", "bBhHiIlLqQ")
def test_integers_wrap_around_as_those_of_ctypes(code: str) -> None:
    value, plain = sharedctypes.Value(code), sharedctypes.typecode_to_type[code]()
    for number in (1, -1, 2**31, 2**63, 2**70 + 3):
        value.value = plain.value = number
        assert value.value == value.load() == value.get_obj().value == plain.value
        before = plain.value
        plain.value += 2**62 + 1
        assert value.fetch_add(2**62 + 1) == before
        assert value.value == plain.value
    assert value.compare_exchange(value.value, 7)
    assert not value.compare_exchange(8, 9)
    value.store(5)
    assert value.load() == 5
    for wrong in ("1", 1.5, None):
        with pytest.raises(TypeError):
            value.value = wrong


def test_floats_have_no_atomic_addition() -> None:
    for code in "fd":
        value = sharedctypes.Value(code, 0.5)
        value.value += 1
        assert value.value == value.load() == 1.5
        with pytest.raises(TypeError, match="integer type"):
            value.fetch_add(1)


def test_a_value_takes_the_lock_that_it_is_given() -> None:
    lock = synchronize.Lock()
    value = sharedctypes.Value("i", 3, lock=lock)
    assert value.get_lock() is lock
    assert value.value == 3
    value.value = 4
    with pytest.raises(TypeError):
        value.value = "four"
    assert not lock.locked()
    assert isinstance(sharedctypes.Value("i", lock=False), sharedctypes.typecode_to_type["i"])


WAITS = {
    "lock": "lock = synchronize.Lock(); lock.acquire(); lock.acquire()",
    "with": "lock = synchronize.Lock(); lock.acquire()\nwith lock: pass",
    "rlock": (
        "import threading; lock = synchronize.RLock(); t = threading.Thread(target=lock.acquire);"
        " t.start(); t.join(); lock.acquire()"
    ),
    "semaphore": "synchronize.Semaphore(0).acquire()",
    "event": "synchronize.Event().wait()",
    "condition": "c = synchronize.Condition(); c.acquire(); c.wait()",
    "barrier": "synchronize.Barrier(2).wait()",
    "long": "synchronize.Event().wait(10 ** 6)",
}


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends_a_wait(name: str) -> None:
    program = (
        "from juggler.multiprocessing import synchronize\n"
        "print('ready', flush=True)\n"
        f"{WAITS[name]}"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wchan = Path(f"/proc/{process.pid}/syscall")
        # Asleep in the futex call, several times in a row: waits wake up to look for the dead.
        for _ in range(5):
            until(lambda: re.match(r"(202|98) ", wchan.read_text()))
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
