"""What a `ProcessPoolExecutor` promises when things go wrong, on every start method."""

import contextlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import leftovers
import pool_calls as calls
import pytest

from juggler import multiprocessing
from juggler.futures import (
    MemoryLimitExceeded,
    ProcessPoolExecutor,
    WorkerDied,
    as_completed,
    wait,
)

METHODS = ["fork", "spawn", "forkserver", "zygote"]
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
LONG = 60


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_pool(method: str) -> Iterator[Any]:
    """Makes pools, and sees that nothing is left of them."""
    pools: list[ProcessPoolExecutor] = []

    def make(workers: int = 2, **options: Any) -> ProcessPoolExecutor:
        context = multiprocessing.get_context(method)
        pools.append(ProcessPoolExecutor(workers, mp_context=context, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.shutdown(cancel_futures=True)
        assert not pool._staff.desks


@pytest.fixture
def pool(make_pool: Any) -> ProcessPoolExecutor:
    made: ProcessPoolExecutor = make_pool()
    return made


def await_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("call", "exitcode"),
    [
        ((calls.kill_self, signal.SIGKILL), -signal.SIGKILL),
        ((calls.segfault,), -signal.SIGSEGV),
        ((calls.exit_now, 5), 5),
    ],
    ids=["killed", "segfault", "exit"],
)
def test_a_dead_worker_loses_its_call_only(
    pool: ProcessPoolExecutor, call: Any, exitcode: int
) -> None:
    before = [pool.submit(calls.identity, number) for number in range(50)]
    lost = pool.submit(*call)
    after = [pool.submit(calls.identity, number) for number in range(50)]
    with pytest.raises(WorkerDied) as caught:
        lost.result(LONG)
    assert caught.value.exitcode == exitcode
    assert caught.value.pid is not None
    assert isinstance(caught.value, BrokenProcessPool)
    assert [f.result(LONG) for f in before + after] == [*range(50), *range(50)]
    assert pool.submit(calls.identity, "on").result(LONG) == "on"


def test_of_a_chunk_the_culprit_only_is_lost(pool: ProcessPoolExecutor) -> None:
    results = pool.map(calls.kill_if, range(40), [27] * 40, chunksize=10)
    taken = []
    with pytest.raises(WorkerDied):
        taken.extend(results)
    results = pool.map(calls.kill_if, range(40), [99] * 40, chunksize=10)
    assert list(results) == list(range(40))


def test_a_lost_call_is_tried_again(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    again = pool.options(retries=1).submit(calls.die_once, str(tmp_path / "a"))
    assert again.result(LONG) == "alive"
    with pytest.raises(WorkerDied):
        pool.options(retries=2).submit(calls.exit_now, 1).result(LONG)


def test_a_call_that_takes_too_long_is_stopped(pool: ProcessPoolExecutor) -> None:
    slow = pool.options(timeout=0.2).submit(calls.sleep_then, LONG, None)
    other = pool.submit(calls.sleep_then, 0.5, "other")
    with pytest.raises(TimeoutError):
        slow.result(LONG)
    assert other.result(LONG) == "other"
    # A sleep is stopped by an exception: its worker lives.
    assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_a_call_that_resists_is_killed(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    slow = pool.options(timeout=0.2).submit(calls.stubborn, str(tmp_path / "a"))
    with pytest.raises(TimeoutError):
        slow.result(LONG)
    assert (tmp_path / "a").exists()
    assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_a_running_call_is_cancelled(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    running = pool.submit(calls.touch_then_sleep, str(tmp_path / "a"), LONG)
    await_file(tmp_path / "a")
    assert running.running()
    assert not running.cancel()
    assert running.cancel(running=True)
    assert running.cancelled()
    assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_too_much_memory_is_an_error_of_the_call(make_pool: Any) -> None:
    pool = make_pool(memory_limit=300 << 20)
    with pytest.raises(MemoryLimitExceeded):
        pool.submit(calls.devour, 600 << 20).result(LONG)
    assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_what_cannot_be_sent_is_an_error_of_the_call(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(pickle.PicklingError, match=r"refuses|Unpicklable"):
        pool.submit(calls.identity, calls.Unpicklable()).result(LONG)
    with pytest.raises(ArithmeticError, match="refuses to be unpickled"):
        pool.submit(calls.identity, calls.Unpickled()).result(LONG)
    with pytest.raises(pickle.PicklingError, match=r"refuses|Unpicklable"):
        pool.submit(calls.make, "unpicklable").result(LONG)
    with pytest.raises(pickle.UnpicklingError, match="refuses to be unpickled"):
        pool.submit(calls.make, "unpickled").result(LONG)
    with pytest.raises(calls.TwoArgumentsError, match="1 and 2"):
        pool.submit(calls.raise_two_arguments).result(LONG)
    with pytest.raises(RuntimeError, match="holds what refuses"):
        pool.submit(calls.raise_unpicklable).result(LONG)
    assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_a_traceback_tells_lines_and_names(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(RuntimeError) as caught:
        pool.submit(calls.raise_with_locals).result(LONG)
    assert "# the source line" in str(caught.value.__cause__)
    assert "marked_local" in str(caught.value.__cause__)


def test_an_initializer_that_raises_breaks_the_pool(make_pool: Any) -> None:
    pool = make_pool(initializer=calls.raise_in_initializer)
    with pytest.raises(BrokenProcessPool):
        pool.submit(calls.identity, 1).result(LONG)
    with pytest.raises(BrokenProcessPool):
        pool.submit(calls.identity, 1)


def use_and_drop(method: str) -> None:
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
    with pool:
        results = [pool.submit(calls.identity, bytes(number * 500)) for number in range(20)]
        lost = pool.submit(calls.exit_now, 1)
        assert isinstance(lost.exception(LONG), WorkerDied)
        assert [len(f.result(LONG)) for f in results] == [n * 500 for n in range(20)]
    # One that nobody shuts down.
    assert ProcessPoolExecutor(1, mp_context=pool._mp_context).submit(pow, 2, 2).result(LONG) == 4


def test_nothing_is_left(method: str) -> None:
    use_and_drop(method)  # what is made once and stays, such as a server
    before = leftovers.open_files()
    threads = threading.active_count()
    children = set(multiprocessing.active_children())
    for _ in range(3):
        use_and_drop(method)
    for thread in threading.enumerate():
        if thread.name.startswith("juggler-"):
            thread.join(LONG)
    assert not leftovers.open_files() - before
    assert threading.active_count() <= threads
    assert set(multiprocessing.active_children()) <= children


def test_another_thread_may_reap_the_workers(make_pool: Any) -> None:
    stop = threading.Event()

    def reap() -> None:
        while not stop.is_set():
            multiprocessing.active_children()

    reapers = [threading.Thread(target=reap) for _ in range(2)]
    for reaper in reapers:
        reaper.start()
    try:
        for _ in range(5):
            pool = make_pool()
            pool.submit(abs, -1).result(LONG)
            pool.shutdown()
            assert not any(worker.pid for worker in pool.stats().workers)
    finally:
        stop.set()
        for reaper in reapers:
            reaper.join()


def test_callbacks_of_a_dead_workers_call_may_wait(make_pool: Any, tmp_path: Path) -> None:
    pool, marker = make_pool(), tmp_path / "added"
    started, go_on = threading.Event(), threading.Event()

    def callback(_future: Any) -> None:
        started.set()
        assert go_on.wait(LONG)

    pool.submit(calls.exit_when, str(marker)).add_done_callback(callback)
    marker.touch()
    assert started.wait(LONG)
    pool.start()
    assert pool.submit(abs, -1).result(LONG) == 1
    go_on.set()


@pytest.mark.parametrize("threads", [0, 1])
def test_a_thread_that_does_not_start_breaks_the_pool(
    make_pool: Any, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    real_start = threading.Thread.start
    left = iter(range(threads))

    def start(thread: threading.Thread) -> None:
        if thread.name.startswith("juggler-") and next(left, None) is None:
            raise RuntimeError("can't start new thread")
        real_start(thread)

    pool = make_pool()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        future = pool.submit(time.sleep, 0.1)
        future.add_done_callback(print)
        with pytest.raises(BrokenProcessPool, match="can't start new thread"):
            future.result(LONG)
    with pytest.raises(BrokenProcessPool):
        pool.submit(abs, -1)


def test_a_stopped_pool_leaves_its_processes_to_the_program(make_pool: Any) -> None:
    pool = make_pool()
    pool.submit(abs, -1).result(LONG)
    workers = [*pool._processes.values()]
    pool.kill_workers()
    for worker in workers:
        worker.join(LONG)
    assert all(worker.exitcode is not None for worker in workers)


@pytest.mark.usefixtures("busy_threads")
def test_threads_may_run_while_the_pool_starts(make_pool: Any) -> None:
    pool = make_pool()
    assert [f.result(LONG) for f in [pool.submit(pow, 2, n) for n in range(20)]]


def test_large_payloads_travel(pool: ProcessPoolExecutor) -> None:
    data = os.urandom(3_000_000)
    assert pool.submit(calls.identity, data).result(LONG) == data
    futures = [pool.submit(calls.identity, bytes([n]) * 100_000) for n in range(64)]
    assert [f.result(LONG)[0] for f in futures] == list(range(64))


def test_workers_that_kill_each_other_lose_no_call(pool: ProcessPoolExecutor) -> None:
    """Kills workers from outside, at random, while calls run."""
    done = threading.Event()

    def kill() -> None:
        kills = 0
        while not done.is_set() and kills < 30:
            pids = [worker.pid for worker in pool.stats().workers if worker.pid and worker.tasks]
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[kills % len(pids)], signal.SIGKILL)
                kills += 1
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    futures = [pool.submit(calls.sleep_then, 0.0005, number) for number in range(4000)]
    results = []
    for number, future in enumerate(futures):
        try:
            assert future.result(LONG) == number
            results.append(True)
        except WorkerDied:
            results.append(False)
    done.set()
    killer.join()
    assert results.count(True) > 3900
    assert pool.submit(calls.identity, 1).result(LONG) == 1


PROGRAM = """
import sys, time
sys.path[:0] = {path!r}
import pool_calls as calls
from juggler import multiprocessing
from juggler.futures import ProcessPoolExecutor
if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, mp_context=multiprocessing.get_context({method!r}))
    print(pool.submit(calls.what_was_initialized).result()[0], flush=True)
    futures = [pool.submit(calls.sleep_then, {seconds}, 0) for _ in range({count})]
    {end}
"""


def start_program(tmp_path: Path, method: str, seconds: float, count: int, end: str) -> Any:
    path = [str(Path(__file__).parent), *sys.path]
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.format(path=path, method=method, seconds=seconds, count=count, end=end)
    )
    return subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(name))
    return found


@pytest.mark.parametrize("seconds", [60, 0], ids=["busy", "idle"])
def test_nothing_outlives_a_killed_parent(method: str, tmp_path: Path, seconds: float) -> None:
    program = start_program(tmp_path, method, seconds, 4, "time.sleep(60)")
    assert program.stdout.readline().strip().isdigit()
    program.kill()
    program.communicate()
    while left := session(program.pid):
        # The test's own time limit is the bound.
        time.sleep(0.02)
    assert not left


def test_results_that_nobody_asks_for_do_not_hold_up_the_exit(method: str, tmp_path: Path) -> None:
    program = start_program(tmp_path, method, 0.1, 4, "pass")
    _, errors = program.communicate(timeout=LONG)
    assert (program.returncode, errors) == (0, "")


def test_one_interrupt_ends_a_map(method: str, tmp_path: Path) -> None:
    work = "list(pool.map(calls.sleep_then, [0.01] * 10000, range(10000)))"
    end = f"print('ready', flush=True); {work}"
    program = start_program(tmp_path, method, 0, 1, end)
    assert program.stdout.readline().strip().isdigit()
    assert program.stdout.readline().strip() == "ready"
    time.sleep(0.3)
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=LONG)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode in (-signal.SIGINT, 130)


def test_a_map_goes_on_after_shutdown_but_not_for_ever(make_pool: Any) -> None:
    with make_pool() as pool:
        results = pool.map(calls.identity, range(3000))
        endless = itertools.count()
        pool.map(calls.identity, endless, buffersize=4)
    assert list(results) == list(range(3000))
    assert next(endless) == 4


def test_chunks_grow_and_keep_the_order(pool: ProcessPoolExecutor) -> None:
    assert list(pool.map(calls.identity, range(20000))) == list(range(20000))
    assert sorted(pool.map(calls.identity, range(5000), ordered=False)) == list(range(5000))
    assert list(pool.map(pow, range(50), range(50), chunksize=7)) == [n**n for n in range(50)]
    some = itertools.islice(pool.map(calls.identity, itertools.count(), buffersize=64), 1000)
    assert list(some) == list(range(1000))


def test_lambdas_travel(pool: ProcessPoolExecutor) -> None:
    factor = 3
    assert pool.submit(lambda value: value * factor, 5).result(LONG) == 15
    assert list(pool.map(lambda value: value + factor, range(100))) == list(range(3, 103))


def test_waiting_for_several_works(pool: ProcessPoolExecutor) -> None:
    futures = [pool.submit(calls.sleep_then, 0.01 * (n % 3), n) for n in range(30)]
    assert sorted(f.result() for f in as_completed(futures, LONG)) == list(range(30))
    assert wait(futures, LONG).not_done == set()


def test_a_pool_in_a_worker(pool: ProcessPoolExecutor, method: str) -> None:
    inner = "spawn" if method == "zygote" else method
    assert pool.submit(calls.nested, inner).result(LONG) == 32
