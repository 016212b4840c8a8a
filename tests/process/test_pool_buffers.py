"""Large buffers between a pool's processes: in memory that both have, and what becomes of it."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pool_calls as calls
import pytest

from juggler import multiprocessing
from juggler._processes import executor
from juggler.futures import ProcessPoolExecutor, WorkerDied

np = pytest.importorskip("numpy")

METHODS = ["fork", "spawn", "forkserver", "zygote"]
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
LONG = 60
BIG = 1 << 18


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_pool(method: str) -> Iterator[Callable[..., ProcessPoolExecutor]]:
    """Makes pools, and sees that nothing of their arenas is left in use."""
    pools: list[ProcessPoolExecutor] = []

    def make(workers: int = 2) -> ProcessPoolExecutor:
        context = multiprocessing.get_context(method)
        pools.append(ProcessPoolExecutor(workers, mp_context=context))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(cancel_futures=True)
        assert used(pool) == 0, "a block was leaked"


@pytest.fixture
def pool(make_pool: Callable[..., ProcessPoolExecutor]) -> ProcessPoolExecutor:
    return make_pool()


@pytest.fixture
def cramped(
    make_pool: Callable[..., ProcessPoolExecutor], monkeypatch: pytest.MonkeyPatch
) -> ProcessPoolExecutor:
    """A pool with room for two buffers of `BIG` bytes and no more."""
    monkeypatch.setattr(executor, "_arena_size", lambda: 2 * BIG + (1 << 16))
    return make_pool()


def used(pool: ProcessPoolExecutor) -> int:
    gc.collect()
    return int(pool._engine.arena()[1])


def in_arena(pool: ProcessPoolExecutor, array: Any) -> bool:
    """Whether an array is a view on shared memory."""
    start = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= start < last:
            return "juggler-pool" in line
    return False


def test_arrays_travel_there_and_back(pool: ProcessPoolExecutor) -> None:
    array = np.arange(BIG, dtype="f8").reshape(512, -1)
    for _ in range(5):
        got = pool.submit(calls.identity, array).result(LONG)
        assert (got == array).all() and in_arena(pool, got)
        got += 1
        part = got[5, :10]
        del got
        assert part[0] == array[5, 0] + 1
        assert used(pool) > 0, "the view keeps it"
        del part
    turned = np.asfortranarray(array)
    assert (pool.submit(calls.identity, turned).result(LONG) == array).all()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_and_the_like_travel(kind: Any, pool: ProcessPoolExecutor) -> None:
    sent = kind(b"x" * BIG)
    got, number = pool.submit(calls.identity, (sent, 1)).result(LONG)
    assert type(got) is kind and got == sent and number == 1
    named = pool.submit(calls.identity, value={"a": [sent]}).result(LONG)
    assert named == {"a": [sent]}
    assert list(pool.map(calls.identity, [sent] * 5)) == [sent] * 5
    assert list(pool.map(calls.identity, [sent] * 5, chunksize=2)) == [sent] * 5


def test_what_goes_by_value_has_buffers_too(pool: ProcessPoolExecutor) -> None:
    array = np.ones(BIG)
    doubled = pool.submit(lambda: array * 2).result(LONG)
    assert doubled.sum() == 2 * BIG and doubled.flags.writeable
    function, got = pool.submit(lambda x: ((lambda: 7), x), array).result(LONG)
    assert function() == 7 and in_arena(pool, got)


def test_a_map_of_arrays(pool: ProcessPoolExecutor) -> None:
    arrays = [np.full(BIG // 8, number, "f8") for number in range(20)]
    for chunksize in (None, 1, 3):
        got = list(pool.map(calls.identity, arrays, chunksize=chunksize))
        assert [array[-1] for array in got] == list(range(20))
        assert all(in_arena(pool, array) for array in got)


def test_a_full_arena_means_the_slower_way(cramped: ProcessPoolExecutor) -> None:
    array = np.arange(BIG, dtype="u1")
    held = [cramped.submit(calls.identity, array).result(LONG) for _ in range(6)]
    assert all((got == array).all() and got.flags.writeable for got in held)
    assert 1 <= [in_arena(cramped, got) for got in held].count(True) <= 2
    both = cramped.submit(calls.identity, [array, array + 1, "x"]).result(LONG)
    assert (both[1] == array + 1).all() and both[2] == "x"
    assert len(cramped.submit(calls.identity, bytes(1 << 24)).result(LONG)) == 1 << 24
    del held


def test_without_memory_for_an_arena_the_pool_works(
    make_pool: Callable[..., ProcessPoolExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_arena_size", lambda: 1 << 62)  # no system maps that much
    pool = make_pool()
    assert pool._engine.arena() == (0, 0, 0)
    array = np.ones(BIG)
    got = pool.submit(calls.identity, array).result(LONG)
    assert (got == array).all() and got.flags.writeable


def test_a_dead_worker_leaves_nothing(pool: ProcessPoolExecutor) -> None:
    array = np.ones(BIG)
    for _ in range(3):
        pids = {pool.submit(os.getpid).result(LONG) for _ in range(8)}
        hoarding = pool.submit(calls.hoard, array)
        assert hoarding.result(LONG) == BIG
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            pool.submit(calls.die_with, array).result(LONG)
        assert pool.submit(calls.identity, array).result(LONG).sum() == BIG


def test_results_of_the_dead_can_be_read(pool: ProcessPoolExecutor) -> None:
    made = [pool.submit(calls.ones_and_pid, BIG) for _ in range(6)]
    while sum(worker.tasks for worker in pool.stats().workers) < 6:  # which collects nothing
        time.sleep(0.01)
    pids = {worker.pid for worker in pool.stats().workers}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for future in made:
        array, pid = future.result(LONG)
        assert array.sum() == BIG and pid in pids


def test_a_retry_finds_its_arguments_as_they_were(
    pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    array = np.ones(BIG)
    marker = str(tmp_path / "marker")
    again = pool.options(retries=1).submit(calls.spoil_and_die_once, array, marker)
    assert again.result(LONG) == BIG


def test_a_cancelled_call_gives_its_memory_back(pool: ProcessPoolExecutor) -> None:
    array = np.ones(BIG)
    first = [pool.submit(time.sleep, 0.3) for _ in range(2)]
    waiting = [pool.submit(calls.identity, array) for _ in range(4)]
    for future in waiting:
        future.cancel()
    for future in first:
        future.result(LONG)
    for future in waiting:
        if not future.cancelled():
            future.result(LONG)
    del waiting, future
    while used(pool):
        time.sleep(0.01)


def test_memory_goes_back_when_the_pool_is_idle(make_pool: Any) -> None:
    pool = make_pool(1)
    array = np.ones(BIG)
    pool.submit(calls.identity, array).result(LONG)
    assert pool._engine.arena()[2] > 0, "it is kept for the next call"
    while any(pool._engine.arena()[1:]):
        time.sleep(0.05)
    assert pool.submit(calls.identity, array).result(LONG).sum() == BIG


def test_results_outlive_their_pool(make_pool: Any) -> None:
    pool = make_pool(1)
    got = pool.submit(calls.identity, np.ones(BIG)).result(LONG)
    pool.shutdown()
    assert got.sum() == BIG
    got[:] = 2
    del got


def test_threads_share_the_arena(pool: ProcessPoolExecutor) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for size in range(20_000, 60_000, 5_000):
                array = np.full(size, number)
                got = pool.submit(calls.identity, array).result(LONG)
                assert (got == number).all() and len(got) == size
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
