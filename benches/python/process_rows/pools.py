"""Process pools in numbers. Every pool has two workers, started before the clock is but where the
start is what is measured.

A contender is a *driver*: a few functions that spell one thing each as the pool's users do.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from harness.contenders import Contender, version
from harness.measure import Bench, Effort, Metric, Turn

GROUP = "process pool"

WORKERS = 2
_TASKS = 10_000
_ITEMS = 200_000
_ARRAY_BYTES = 64 << 20

_clock = time.perf_counter


def task(argument: Any = None) -> Any:
    """What workers do: nothing."""
    return argument


@dataclass(frozen=True)
class Driver:
    """How a pool's users write it.

    Attributes:
        start: Makes a pool; the workers may start later.
        call: Makes one call and waits for its result.
        submit_all: Makes calls one by one, then takes all their results; None where it can't.
        map_one: Maps an iterable, an item at a time; None where it can't.
        map_auto: Maps an iterable as the pool divides it by itself.
        stop: Ends the pool and waits for it.
    """

    start: Callable[[], Any]
    call: Callable[[Any, Any], Any]
    submit_all: Callable[[Any, int], Any] | None
    map_one: Callable[[Any, Iterable[Any]], Any] | None
    map_auto: Callable[[Any, Iterable[Any]], Any] | None
    stop: Callable[[Any], Any]


def _call_future(pool: Any, argument: Any) -> Any:
    return pool.submit(task, argument).result()


def _submit_futures(pool: Any, count: int) -> None:
    for future in [pool.submit(task) for _ in repeat(None, count)]:
        future.result()


def _executor(start: Callable[[], Any], automatic: Callable[[Any, Iterable[Any]], Any]) -> Driver:
    return Driver(
        start,
        _call_future,
        _submit_futures,
        lambda pool, items: list(pool.map(task, items, chunksize=1)),
        automatic,
        lambda pool: pool.shutdown(),
    )


def _stdlib(method: str) -> Driver:
    context = multiprocessing.get_context(method)
    return _executor(
        lambda: concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=context),
        # It does not divide by itself: what its users pass, the rule of multiprocessing.Pool.
        lambda pool, items: list(pool.map(task, items, chunksize=_ITEMS // (WORKERS * 4))),
    )


def _multiprocessing() -> Driver:
    def submit(pool: Any, count: int) -> None:
        for result in [pool.apply_async(task) for _ in repeat(None, count)]:
            result.get()

    return Driver(
        lambda: multiprocessing.get_context("fork").Pool(WORKERS),
        lambda pool, argument: pool.apply(task, (argument,)),
        submit,
        lambda pool, items: pool.map(task, items, chunksize=1),
        lambda pool, items: pool.map(task, items),
        lambda pool: (pool.terminate(), pool.join()),
    )


def _juggler() -> Driver:
    from juggler.futures import ProcessPoolExecutor

    return _executor(
        lambda: ProcessPoolExecutor(WORKERS),
        lambda pool, items: list(pool.map(task, items)),
    )


def _loky() -> Driver:
    import loky

    return _executor(
        lambda: loky.ProcessPoolExecutor(WORKERS),
        lambda pool, items: list(pool.map(task, items, chunksize=_ITEMS // (WORKERS * 4))),
    )


def _joblib() -> Driver:
    import joblib

    def start() -> Any:
        pool = joblib.Parallel(n_jobs=WORKERS)
        pool.__enter__()
        return pool

    def mapped(pool: Any, items: Iterable[Any]) -> Any:
        return pool(map(joblib.delayed(task), items))

    return Driver(
        start,
        lambda pool, argument: mapped(pool, [argument])[0],
        None,
        None,
        mapped,
        lambda pool: pool.__exit__(None, None, None),
    )


def _mpire() -> Driver:
    import mpire

    # A pool of it that has made a call by `apply` can't map any more.
    def mapped(pool: Any, items: Iterable[Any], **options: Any) -> Any:
        return pool.map(task, items, concatenate_numpy_output=False, **options)

    return Driver(
        lambda: mpire.WorkerPool(WORKERS, start_method="fork", keep_alive=True),
        lambda pool, argument: mapped(pool, [(argument,)])[0],
        None,
        lambda pool, items: mapped(pool, items, chunk_size=1),
        mapped,
        lambda pool: pool.terminate(),
    )


def _pebble() -> Driver:
    import pebble

    def submit(pool: Any, count: int) -> None:
        for future in [pool.schedule(task) for _ in repeat(None, count)]:
            future.result()

    return Driver(
        lambda: pebble.ProcessPool(WORKERS),
        lambda pool, argument: pool.schedule(task, (argument,)).result(),
        submit,
        lambda pool, items: list(pool.map(task, items).result()),
        lambda pool, items: list(pool.map(task, items, chunksize=_ITEMS // (WORKERS * 4)).result()),
        lambda pool: (pool.stop(), pool.join()),
    )


_DRIVERS: tuple[tuple[str, str, Callable[[], Driver]], ...] = (
    # the name in the tables, its distribution, and how to get at it
    ("stdlib fork", "", lambda: _stdlib("fork")),
    ("juggler", "juggler", _juggler),
    ("stdlib spawn", "", lambda: _stdlib("spawn")),
    ("mp.Pool", "", _multiprocessing),
    ("loky", "loky", _loky),
    ("joblib", "joblib", _joblib),
    ("mpire", "mpire", _mpire),
    ("pebble", "pebble", _pebble),
)


def contenders() -> list[Contender]:
    """Every pool that is installed; the first is the baseline."""
    found = []
    for name, distribution, make in _DRIVERS:
        try:
            driver = {name: how for name, how in vars(make()).items() if how is not None}
            known = version(distribution) if distribution else "this interpreter's"
        except ImportError as error:
            driver, known = {}, f"not installed ({error})"
        found.append(Contender(name, known, driver))
    return found


def _row(
    name: str,
    how: str,
    body: Callable[[Callable[..., Any], Any, int], int],
    full: int,
    *,
    rounds: int | None = None,
    first: Callable[[], Any] = lambda: None,
) -> Bench:
    """Seconds per operation of `body(driver's how, pool, operations)` on a pool that runs and has
    made calls, with the argument `first()`. A body returns how many it made."""

    def prepare(contender: Contender, effort: Effort) -> Turn:
        driver = contender.classes
        count = effort.count(full)

        def turn() -> list[list[float]]:
            pool = driver["start"]()
            try:
                for _ in range(2 * WORKERS):
                    driver["call"](pool, first())
                start = _clock()
                done = body(driver[how], pool, count)
                return [[(_clock() - start) / done]]
            finally:
                driver["stop"](pool)

        return turn

    return Bench(
        GROUP, (Metric(name),), ("start", "call", "stop", how), prepare, most_rounds=rounds
    )


def _round_trips(call: Callable[..., Any], pool: Any, count: int) -> int:
    # The slowest contenders take ten milliseconds a call, which a second's worth tells as well.
    end = _clock() + 1
    for done in range(1, count + 1):
        call(pool, None)
        if done % 10 == 0 and _clock() > end:
            return done
    return count


@functools.cache
def _array() -> Any:
    import numpy

    return numpy.ones(_ARRAY_BYTES // 8)


def _arrays(call: Callable[..., Any], pool: Any, count: int) -> int:
    for _ in repeat(None, count):
        result = call(pool, _array())
        assert result.nbytes == _ARRAY_BYTES
    return count


def _array_rows() -> list[Bench]:
    if importlib.util.find_spec("numpy") is None:
        return []
    name = "64 MiB numpy array there and back"
    return [_row(name, "call", _arrays, 4, rounds=5, first=_array)]


def _submitted(submit_all: Callable[..., Any], pool: Any, count: int) -> int:
    submit_all(pool, count)
    return count


def _mapped(mapped: Callable[..., Any], pool: Any, count: int) -> int:
    mapped(pool, range(count))
    return count


def _start_to_result() -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        driver = contender.classes

        def turn() -> list[list[float]]:
            start = _clock()
            pool = driver["start"]()
            driver["call"](pool, None)
            took = _clock() - start
            driver["stop"](pool)
            return [[took]]

        return turn

    return Bench(GROUP, (Metric("start to first result"),), ("start", "call", "stop"), prepare)


def private_memory() -> int:
    """Bytes of memory that this process shares with no other."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return sum(
        int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Private_")
    )


class _PrivateMemory:
    """An argument that turns, where it arrives, into the number of its process's private bytes."""

    def __reduce__(self) -> tuple[Callable[[], int], tuple[()]]:
        return private_memory, ()


def _idle_worker() -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        driver = contender.classes

        def turn() -> list[list[float]]:
            pool = driver["start"]()
            try:
                for _ in range(2 * WORKERS):
                    driver["call"](pool, None)
                return [[float(driver["call"](pool, _PrivateMemory()))]]
            finally:
                driver["stop"](pool)

        return turn

    metric = Metric("private memory of a worker", unit="B")
    return Bench(GROUP, (metric,), ("start", "call", "stop"), prepare, most_rounds=3)


ROWS = [
    _row("round trip of a call", "call", _round_trips, 2_000),
    _row(
        f"submit {_TASKS} calls, take the results",
        "submit_all",
        _submitted,
        _TASKS,
    ),
    _row(
        "map, an item at a time",
        "map_one",
        _mapped,
        _TASKS,
    ),
    _row(
        "map, divided by the pool",
        "map_auto",
        _mapped,
        _ITEMS,
    ),
    *_array_rows(),
    _start_to_result(),
    _idle_worker(),
]
