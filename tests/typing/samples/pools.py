"""Futures and executors as a program uses them: type checked, and run."""

from __future__ import annotations

import concurrent.futures as stdlib
from collections.abc import Iterator
from typing import assert_type

from juggler import futures


def length(text: str, factor: int = 1) -> int:
    return len(text) * factor


def remember(name: str, count: int) -> None:
    assert name
    assert count


def finished(future: futures.Future[int]) -> None:
    assert future.done()


def main() -> None:
    with futures.ThreadPoolExecutor(2, initializer=remember, initargs=("worker", 1)) as pool:
        assert_type(pool, futures.ThreadPoolExecutor)
        future = pool.submit(length, "four", factor=2)
        assert_type(future, futures.Future[int])
        future.add_done_callback(finished)
        assert_type(future.result(timeout=60), int)
        assert_type(future.exception(), "BaseException | None")
        assert list(pool.map(length, ["a", "bb"], buffersize=1)) == [1, 2]
        assert_type(pool.map(length, ["a"], timeout=60), Iterator[int])

        more = [pool.submit(length, "x" * count) for count in range(3)]
        for done in futures.as_completed(more, timeout=60):
            assert_type(done, futures.Future[int])
        ended, pending = futures.wait(more, return_when=futures.FIRST_EXCEPTION)
        assert_type(ended, "set[stdlib.Future[int]]")
        assert not pending
        assert_type(pool.statistics(), futures.ThreadPoolExecutorStatistics)

    # What takes the standard library's takes ours.
    executor: stdlib.Executor = futures.ThreadPoolExecutor(max_workers=1)
    executor.shutdown(wait=True, cancel_futures=True)
    mine: stdlib.Future[str] = futures.Future[str]()
    mine.set_result("done")
    assert_type(mine.result(), str)


if __name__ == "__main__":
    main()
