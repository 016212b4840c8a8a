"""Futures in numbers: `ThreadPoolExecutor`, `wait` and `as_completed`.

Every pool has four workers, all of them started before the clock is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench
from harness.timing import on_one_processor

GROUP = "pool"

_WORKERS = 4
_TASKS = 10_000

_clock = time.perf_counter


def _task(argument: object = None) -> object:
    return argument


def _warm_pool(contender: Contender) -> Any:
    pool = contender.make("ThreadPoolExecutor", _WORKERS)
    together = threading.Barrier(_WORKERS)
    for future in [pool.submit(together.wait) for _ in range(_WORKERS)]:
        future.result()
    return pool


def _with_pool(
    full: int, body: Callable[[Contender, Any, int], float]
) -> Callable[[Contender, Effort], Callable[[], float]]:
    """Turns that run `body(contender, pool, tasks)` on a fresh, warm pool."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        tasks = effort.count(full)

        def sample() -> float:
            with _warm_pool(contender) as pool:
                return body(contender, pool, tasks) / tasks

        return sample

    return prepare


def _latency(contender: Contender, pool: Any, tasks: int) -> float:
    submit = pool.submit
    start = _clock()
    for _ in repeat(None, tasks):
        submit(_task).result()
    return _clock() - start


def _submit(contender: Contender, pool: Any, tasks: int) -> float:
    submit = pool.submit
    start = _clock()
    futures = [submit(_task) for _ in repeat(None, tasks)]
    took = _clock() - start
    for future in futures:
        future.result()
    return took


def _gather(contender: Contender, pool: Any, tasks: int) -> float:
    submit = pool.submit
    start = _clock()
    futures = [submit(_task) for _ in repeat(None, tasks)]
    for future in futures:
        future.result()
    return _clock() - start


def _map(contender: Contender, pool: Any, tasks: int) -> float:
    start = _clock()
    for _ in pool.map(_task, range(tasks)):
        pass
    return _clock() - start


def _as_completed(contender: Contender, pool: Any, tasks: int) -> float:
    submit, as_completed = pool.submit, contender.classes["as_completed"]
    start = _clock()
    for future in as_completed([submit(_task) for _ in repeat(None, tasks)]):
        future.result()
    return _clock() - start


def _wait_all(contender: Contender, pool: Any, tasks: int) -> float:
    submit, wait = pool.submit, contender.classes["wait"]
    start = _clock()
    wait([submit(_task) for _ in repeat(None, tasks)])
    return _clock() - start


def _wait_first(contender: Contender, pool: Any, tasks: int) -> float:
    """The loop that programs write: take what is done, wait for more."""
    submit, wait = pool.submit, contender.classes["wait"]
    start = _clock()
    pending = {submit(_task) for _ in repeat(None, tasks)}
    while pending:
        _, pending = wait(pending, return_when="FIRST_COMPLETED")
    return _clock() - start


def _done_futures(contender: Contender, tasks: int) -> list[Any]:
    futures = [contender.make("Future") for _ in repeat(None, tasks)]
    for future in futures:
        future.set_result(None)
    return futures


def _as_completed_done(contender: Contender, effort: Effort) -> Callable[[], float]:
    as_completed, tasks = contender.classes["as_completed"], effort.count(_TASKS)

    def sample() -> float:
        futures = _done_futures(contender, tasks)
        start = _clock()
        for _ in as_completed(futures):
            pass
        return (_clock() - start) / tasks

    return sample


def _wait_done(contender: Contender, effort: Effort) -> Callable[[], float]:
    wait, tasks = contender.classes["wait"], effort.count(_TASKS)

    def sample() -> float:
        futures = _done_futures(contender, tasks)
        start = _clock()
        wait(futures)
        return (_clock() - start) / tasks

    return sample


_POOL = ("ThreadPoolExecutor",)

ROWS: tuple[Bench, ...] = (
    bench(GROUP, "submit → result, idle pool", _POOL, _with_pool(2_000, _latency)),
    bench(
        GROUP,
        "submit → result, idle pool, one processor",
        _POOL,
        on_one_processor(_with_pool(2_000, _latency)),
    ),
    bench(GROUP, "10,000 tasks: submit", _POOL, _with_pool(_TASKS, _submit)),
    bench(GROUP, "10,000 tasks: submit, result of each", _POOL, _with_pool(_TASKS, _gather)),
    bench(GROUP, "10,000 tasks: map", _POOL, _with_pool(_TASKS, _map)),
    bench(
        GROUP,
        "10,000 tasks: submit, as_completed",
        (*_POOL, "as_completed"),
        _with_pool(_TASKS, _as_completed),
    ),
    bench(GROUP, "10,000 tasks: submit, wait", (*_POOL, "wait"), _with_pool(_TASKS, _wait_all)),
    bench(
        GROUP,
        "200 tasks: submit, wait(FIRST_COMPLETED) in a loop",
        (*_POOL, "wait"),
        _with_pool(200, _wait_first),
    ),
    bench(GROUP, "as_completed of 10,000 done", ("Future", "as_completed"), _as_completed_done),
    bench(GROUP, "wait of 10,000 done", ("Future", "wait"), _wait_done),
)
