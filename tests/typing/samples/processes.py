"""Processes as a program uses them: type checked, and run."""

from __future__ import annotations

import concurrent.futures as stdlib
import multiprocessing.queues as stdlib_queues
from collections.abc import Iterator
from typing import Any, assert_type

from juggler import futures, multiprocessing
from juggler.multiprocessing import connection, pool, queues, synchronize
from juggler.multiprocessing.context import ZygoteContext


def length(text: str, factor: int = 1) -> int:
    return len(text) * factor


def answer(counter: Any, lengths: queues.Queue, texts: connection.Connection) -> None:
    lengths.put(length(texts.recv()))
    counter.fetch_add(1)


def executors() -> None:
    with futures.ProcessPoolExecutor(1, memory_limit=1 << 30, max_tasks_per_child=100) as workers:
        future = workers.submit(length, "four", factor=2)
        assert_type(future, futures.Future[int])
        assert future.result(timeout=60) == 8
        assert_type(future.cancel(running=True), bool)
        lengths = workers.map(length, ["a"], buffersize=1, ordered=False)
        assert_type(lengths, Iterator[int])

        careful = workers.options(timeout=60, retries=1, priority=5)
        assert_type(careful, futures.PoolView)
        assert_type(careful.submit(length, "two").result(), int)
        assert list(careful.map(length, ["a", "bb"])) == [1, 2]

        numbers = workers.stats()
        assert_type(numbers, futures.ProcessPoolExecutorStatistics)
        assert_type(numbers.workers[0], futures.WorkerStatistics)
        assert_type(numbers.workers[0].pid, int)
    failures: list[type[stdlib.BrokenExecutor]] = [futures.WorkerDied, futures.MemoryLimitExceeded]
    assert all(issubclass(failure, RuntimeError) for failure in failures)
    # What takes the standard library's takes ours.
    executor: stdlib.Executor = careful
    executor.shutdown()


def pools() -> None:
    with multiprocessing.Pool(1, maxtasksperchild=100) as workers:
        assert_type(workers, pool.Pool)
        result = workers.apply_async(length, ("text",), {"factor": 2})
        assert_type(result, pool.ApplyResult[Any])
        assert result.get(timeout=60) == 8
        assert_type(workers.map(length, ["a", "bb"]), list[Any])
        assert_type(workers.imap(length, ["a"]), pool.IMapIterator[Any])
        assert_type(workers.starmap_async(length, [("a", 2)]).get(), list[Any])


def processes() -> None:
    counter = multiprocessing.Value("q", 0)
    assert_type(counter.fetch_add(1), int)
    assert_type(counter.load(), int)
    with counter.get_lock():
        counter.value += 1
    assert_type(multiprocessing.Value("d").value, float)
    assert_type(multiprocessing.Array("i", 3).get_obj(), Any)

    lengths = multiprocessing.Queue(maxsize=2)
    assert_type(lengths, queues.Queue)
    standard: stdlib_queues.Queue[int] = lengths
    here, there = multiprocessing.Pipe()
    assert_type(here, connection.Connection)
    process = multiprocessing.Process(target=answer, args=(counter, lengths, there), daemon=True)
    process.start()
    here.send("text")
    assert standard.get(timeout=60) == 4
    process.join()
    assert_type(process.exitcode, "int | None")
    assert counter.value == 3


def primitives() -> None:
    lock = multiprocessing.Lock()
    assert_type(lock, synchronize.Lock)
    with lock as taken:
        assert_type(taken, bool)
    assert_type(multiprocessing.Event().wait(0), bool)
    condition = multiprocessing.Condition(multiprocessing.RLock())
    with condition:
        condition.notify_all()
    assert_type(multiprocessing.Barrier(1).wait(), int)
    assert_type(multiprocessing.Semaphore(2).acquire(timeout=1.0), bool)
    assert issubclass(multiprocessing.OwnerDied, RuntimeWarning)

    context = multiprocessing.get_context("zygote")
    assert_type(context, ZygoteContext)
    assert_type(multiprocessing.get_start_method(), str)
    assert "zygote" in multiprocessing.get_all_start_methods()


def main() -> None:
    executors()
    pools()
    processes()
    primitives()


if __name__ == "__main__":
    main()
