"""What `juggler.multiprocessing`, its `Pool` and asyncio promise under faults, on every method."""

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import kill_at_random
import pool_calls as calls
import pytest

from juggler import multiprocessing
from juggler.futures import ProcessPoolExecutor, WorkerDied

METHODS = ["fork", "spawn", "forkserver", "zygote"]
LONG = 60
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture
def pool(context: Any) -> Iterator[Any]:
    with context.Pool(2) as pool:
        yield pool
        pool.close()
        pool.join()


# ---------------------------------------------------------------- Pool


@pytest.mark.parametrize(
    ("call", "exitcode"),
    [
        ((calls.kill_self, (signal.SIGKILL,)), -signal.SIGKILL),
        ((calls.segfault,), -signal.SIGSEGV),
        ((calls.exit_now, (5,)), 5),
    ],
    ids=["killed", "segfault", "exit"],
)
def test_a_dead_worker_loses_its_call_only(pool: Any, call: Any, exitcode: int) -> None:
    before = pool.map_async(calls.identity, range(50), chunksize=1)
    lost = pool.apply_async(*call)
    after = pool.map_async(calls.identity, range(50), chunksize=1)
    with pytest.raises(WorkerDied) as caught:
        lost.get(LONG)
    assert caught.value.exitcode == exitcode
    assert before.get(LONG) + after.get(LONG) == [*range(50), *range(50)]
    assert pool.apply(calls.identity, ("on",)) == "on"


def test_of_an_imap_the_culprit_only_is_lost(pool: Any) -> None:
    results = pool.imap(calls.kill_if_27, range(40))
    taken = []
    while len(taken) < 40:
        try:
            taken.append(results.next(LONG))
        except WorkerDied:
            taken.append(None)
    assert taken == [*range(27), None, *range(28, 40)]


def test_what_cannot_be_sent_is_an_error_of_the_call(pool: Any) -> None:
    for call, error, match in [
        ((calls.identity, (calls.Unpicklable(),)), Exception, "refuses|Unpicklable"),
        ((calls.identity, (calls.Unpickled(),)), ArithmeticError, "refuses to be unpickled"),
        ((calls.make, ("unpicklable",)), Exception, "refuses|Unpicklable"),
        ((calls.make, ("unpickled",)), Exception, "refuses to be unpickled"),
        ((calls.make_unknown,), Exception, "only_here"),
        ((calls.raise_two_arguments,), calls.TwoArgumentsError, "1 and 2"),
        ((calls.raise_unpicklable,), RuntimeError, "holds what refuses"),
    ]:
        with pytest.raises(error, match=match):
            pool.apply_async(*call).get(LONG)
    assert pool.apply(calls.identity, (1,)) == 1


@pytest.mark.usefixtures("busy_threads")
def test_threads_may_run_while_a_pool_starts(context: Any) -> None:
    with context.Pool(2) as pool:
        assert pool.map(abs, range(-20, 0)) == [*range(20, 0, -1)]


def test_an_initializer_that_raises_breaks_the_pool(context: Any) -> None:
    with context.Pool(2, initializer=calls.raise_in_initializer) as pool:
        with pytest.raises(BrokenProcessPool):
            pool.apply(calls.identity, (1,))


def test_a_class_that_the_parent_cannot_import(context: Any) -> None:
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(Exception, match="only_here"):
            pool.submit(calls.make_unknown).result(LONG)
        assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_bad_arguments_are_errors_at_once(context: Any) -> None:
    for workers in 0, -1:
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            ProcessPoolExecutor(workers, mp_context=context)
        with pytest.raises(ValueError, match="Number of processes must be at least 1"):
            context.Pool(workers)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ProcessPoolExecutor(1, mp_context=context, initializer=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be a callable"):
        context.Pool(1, initializer=3)
    with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
        context.Pool(1, maxtasksperchild=0)
    with pytest.raises(ValueError, match="cannot find context for 'thread'"):
        multiprocessing.get_context("thread")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        with pytest.raises(TypeError, match="not callable"):
            pool.submit(3).result(LONG)  # type: ignore[arg-type]
        assert pool.submit(calls.identity, 1).result(LONG) == 1


def test_a_killed_zygote_is_replaced_under_a_pool(programs: Any) -> None:
    body = """
    with multiprocessing.get_context("zygote").Pool(2) as pool:
        for _ in range(3):
            pool.map(abs, range(9))
            calls.kill_children()
            results = [pool.apply_async(abs, (n,)) for n in range(200)]
            lost = 0
            for n, result in enumerate(results):
                try:
                    assert result.get(60) == n
                except WorkerDied:
                    lost += 1
            assert lost <= 2, lost
        print("served on")
        pool.close()
        pool.join()
"""
    path = [str(Path(__file__).parent)]
    source = ENDS.format(path=path, method="zygote", body=body)
    source = source.replace("import os,", "from juggler.futures import WorkerDied\nimport os,", 1)
    assert programs.run(source) == "served on\n"


# ---------------------------------------------------------------- asyncio


@pytest.mark.parametrize("way", ["run_in_executor", "wrap_future", "wait_for"])
def test_cancelling_who_awaits_stops_the_call(context: Any, tmp_path: Path, way: str) -> None:
    async def main(pool: ProcessPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "running"

        async def ask() -> None:
            if way == "wrap_future":
                future = pool.submit(calls.touch_then_sleep, str(path), 1000)
                await asyncio.wrap_future(future)
            else:
                await loop.run_in_executor(pool, calls.touch_then_sleep, str(path), 1000)

        task = asyncio.create_task(ask())
        while not path.exists():
            await asyncio.sleep(0.01)
        if way == "wait_for":
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.01)
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # The only worker is free again; and another call, which nobody cancelled, is made.
        assert await loop.run_in_executor(pool, calls.identity, "next") == "next"

    with ProcessPoolExecutor(1, mp_context=context) as pool:
        asyncio.run(main(pool))


def test_a_plain_cancel_leaves_a_running_call_alone(context: Any, tmp_path: Path) -> None:
    path = tmp_path / "running"
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        future = pool.submit(calls.touch_then_sleep, str(path), 0.5)
        while not path.exists():
            time.sleep(0.01)
        assert not future.cancel()
        assert future.result(LONG) is None


# ---------------------------------------------------------------- deaths, by signals and otherwise

ENDS = """
import os, sys, time
sys.path[:0] = {path!r}
import kill_at_random
import pool_calls as calls
from juggler import multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    {body}
"""


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
def test_nothing_outlives_a_killed_parent(programs: Any, context: Any, busy: bool) -> None:
    wait = "pool.map(calls.sleep_then_none, [60] * 4)" if busy else "time.sleep(60)"
    body = f"""
    shared = context.Queue(), context.Lock(), context.Value("i"), context.Array("i", 10_000)
    shared[0].put(b"x" * 100_000)
    pool = context.Pool(2)
    print(pool.apply(os.getpid), flush=True)
    {wait}
"""
    path = [str(Path(__file__).parent)]
    program = programs.start(ENDS.format(path=path, method=context.get_start_method(), body=body))
    assert program.stdout.readline().strip().isdigit()
    program.kill()
    program.communicate()
    programs.expect_none_left()


@pytest.mark.parametrize("call", ["map", "imap", "starmap", "apply"])
def test_one_interrupt_ends_a_pools_map(programs: Any, context: Any, call: str) -> None:
    work = {
        "map": "pool.map(calls.sleep_then_none, [0.01] * 10000)",
        "imap": "list(pool.imap(calls.sleep_then_none, [0.01] * 10000))",
        "starmap": "pool.starmap(calls.sleep_then, [(0.01, 1)] * 10000)",
        "apply": "pool.apply(calls.sleep_then_none, (1000,))",
    }[call]
    body = f"""
    with context.Pool(2) as pool:
        print(pool.apply(os.getpid), flush=True)
        {work}
"""
    path = [str(Path(__file__).parent)]
    program = programs.start(ENDS.format(path=path, method=context.get_start_method(), body=body))
    assert program.stdout.readline().strip().isdigit()
    asleep_in_work(program)
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=LONG)
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode in (-signal.SIGINT, 130)
    programs.expect_none_left()


def asleep_in_work(program: "subprocess.Popen[str]") -> None:
    """Wait until the program has slept several times in a row, which it does in `work` only."""
    seen = 0
    while seen < 20:
        state = Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0]
        seen = seen + 1 if state == "S" else 0
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["queue", "condition"])
def test_others_go_on_after_a_death_inside(context: Any, kind: str) -> None:
    for _ in range(5):
        target = context.Queue() if kind == "queue" else context.Condition()
        inside = context.Semaphore(0)
        process = context.Process(target=calls.put_then_die, args=(target, inside, kind))
        process.start()
        assert inside.acquire(timeout=LONG)
        process.kill()
        process.join()
        process.close()
        if kind == "queue":
            target.put("ours")
            while (item := target.get(timeout=LONG)) != "ours":
                assert item == b"x" * 10_000
        else:
            with pytest.warns(multiprocessing.synchronize.OwnerDied):
                assert target.acquire(timeout=LONG)
            target.notify_all()
            target.release()


# ---------------------------------------------------------------- descriptors


def test_descriptors_are_closed_on_exec_and_memory_is_sealed(context: Any) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with ProcessPoolExecutor(2, mp_context=context) as pool, context.Pool(1) as other:
        pool.submit(calls.identity, b"x" * 2_000_000).result(LONG)
        other.apply(calls.identity, (b"x" * 2_000_000,))
        shared = context.Queue(), context.JoinableQueue(), context.Lock(), context.Pipe()
        large = context.Array("b", 1 << 20), context.Value("i")
        process = context.Process(target=calls.sleep_then, args=(0, (shared[:3], large)))
        process.start()
        sealed = 0
        for name in set(os.listdir("/proc/self/fd")) - before:
            try:
                target, number = os.readlink(f"/proc/self/fd/{name}"), int(name)
                flags = fcntl.fcntl(number, fcntl.F_GETFD)
            except OSError:  # the listing's own
                continue
            assert flags & fcntl.FD_CLOEXEC, target
            if target.startswith("/memfd:"):
                assert fcntl.fcntl(number, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK, target
                sealed += 1
        assert sealed >= 4  # two pools, two queues
        process.join()
        assert process.exitcode == 0
        process.close()
        for end in shared[3]:
            end.close()


# ---------------------------------------------------------------- deaths at random, the short run


def test_kills_at_random(context: Any) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")  # shown if it fails
    kill_at_random.run(context.get_start_method(), 3000, 30, seed)


def test_a_forkserver_that_dies_of_a_broken_request_is_replaced(programs: Any) -> None:
    source = """
import socket
from multiprocessing import forkserver
from juggler import multiprocessing

def nothing():
    pass

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    for _ in range(10):
        process = context.Process(target=nothing)
        process.start()
        process.join()
        print(process.exitcode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(forkserver._forkserver._forkserver_address)
"""
    program = programs.start(source)
    output, _ = program.communicate(timeout=100)  # a server that dies says so on standard error
    assert (program.returncode, output) == (0, "0\n" * 10)
    programs.expect_none_left()
