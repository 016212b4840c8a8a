"""What CPython's own tests of `concurrent.futures` do not ask of `juggler.futures`."""

from __future__ import annotations

import asyncio
import concurrent.futures as stdlib
import contextlib
import gc
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

import pytest

from juggler import futures
from juggler.futures import Future, ThreadPoolExecutor

# Far beyond what any step needs; only reached when something hangs.
LONG = 60


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def blocked(executor: Any, workers: int = 1) -> Iterator[None]:
    """Keeps `workers` workers busy, so that what is submitted stays in the queue."""
    gate = threading.Event()
    entered = threading.Semaphore(0)

    def block() -> None:
        entered.release()
        gate.wait(LONG)

    for _ in range(workers):
        executor.submit(block)
    for _ in range(workers):
        assert entered.acquire(timeout=LONG)
    del executor  # for tests of what becomes of one that nobody keeps
    try:
        yield
    finally:
        gate.set()


def in_thread(function: Any, *args: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)


# ------------------------------------------------------------------------------------- the module


def test_exports_what_the_standard_library_exports() -> None:
    for name in stdlib.__all__:
        assert name in futures.__all__
        getattr(futures, name)
    assert futures.CancelledError is stdlib.CancelledError
    assert futures.InvalidStateError is stdlib.InvalidStateError
    assert issubclass(futures.ProcessPoolExecutor, stdlib.ProcessPoolExecutor)


def test_classes_are_the_standard_librarys_too(pool: ThreadPoolExecutor) -> None:
    assert isinstance(pool, stdlib.ThreadPoolExecutor)
    assert isinstance(pool, stdlib.Executor)
    future = pool.submit(int)
    assert type(future) is Future
    assert isinstance(future, stdlib.Future)


# ------------------------------------------------------------------------------------- the future


def test_future_takes_no_arguments() -> None:
    with pytest.raises(TypeError):
        Future(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Future(x=1)  # type: ignore[call-arg]


def test_future_has_attributes_weak_references_and_a_generic_alias() -> None:
    future: Any = Future()
    future.tag = 1
    assert future.__dict__ == {"tag": 1}
    reference = weakref.ref(future)
    assert reference() is future
    del future
    assert reference() is None
    assert Future[int].__origin__ is Future


def test_future_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Future())


def test_subclass_with_its_own_constructor() -> None:
    class MyFuture(Future):
        def __init__(self, x: int) -> None:
            super().__init__()
            self.x = x

    future = MyFuture(3)
    future.set_result(4)
    assert (future.x, future.result()) == (3, 4)
    assert repr(future).startswith("<MyFuture at 0x")
    reference = weakref.ref(future)
    del future
    assert reference() is None


def test_subclass_with_a_destructor() -> None:
    dead = []

    class MyFuture(Future):
        def __del__(self) -> None:
            dead.append(self.result())

    MyFuture().set_result(5)
    assert dead == [5]


@pytest.mark.parametrize("through", ["attribute", "result", "exception", "callback"])
def test_cycle_is_collected(through: str) -> None:
    future: Any = Future()
    if through == "attribute":
        future.myself = future
    elif through == "result":
        future.set_result(future)
    elif through == "exception":
        error: Any = ValueError()
        error.future = future
        future.set_exception(error)
        del error
    else:
        future.add_done_callback(future.set_exception)
    reference = weakref.ref(future)
    del future
    gc.collect()
    assert reference() is None


def test_cycle_through_an_exposed_future_is_collected() -> None:
    future: Any = Future()
    future._waiters.append(future)
    assert future._condition is future._condition
    reference = weakref.ref(future)
    del future
    gc.collect()
    assert reference() is None


def test_raising_the_exception_makes_no_cycle() -> None:
    class Error(Exception):
        pass

    future = Future()
    future.set_exception(Error())
    reference = weakref.ref(future.exception())
    with pytest.raises(Error):
        future.result()
    gc.collect()
    del future
    assert reference() is None


def test_result_raises_with_the_workers_frames(pool: ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        pool.submit(fails).result()
    assert caught.traceback[-1].name == "fails"


def test_result_raises_in_the_context_of_what_is_handled() -> None:
    future = Future()
    future.set_exception(ValueError())
    try:
        raise KeyError
    except KeyError:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            future.result()
    assert isinstance(caught.value.__context__, KeyError)


def test_set_exception_takes_what_raise_takes() -> None:
    future = Future()
    future.set_exception(KeyError)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        future.result()
    assert future.exception() is KeyError

    future = Future()
    future.set_exception(None)
    assert future.result() is None
    assert future.exception() is None

    future = Future()
    future.set_exception(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="exceptions must derive from BaseException"):
        future.result()


def test_result_in_a_wrong_state_says_which() -> None:
    future = Future()
    future.set_result(1)
    with pytest.raises(futures.InvalidStateError, match=r"^FINISHED: <Future at 0x\w+ state=fin"):
        future.set_result(2)
    future = Future()
    future.cancel()
    with pytest.raises(futures.InvalidStateError, match=r"^CANCELLED: "):
        future.set_exception(ValueError())


def test_starting_twice_is_logged_and_raises(caplog: pytest.LogCaptureFixture) -> None:
    future = Future()
    assert future.set_running_or_notify_cancel()
    with pytest.raises(RuntimeError, match="Future in unexpected state"):
        future.set_running_or_notify_cancel()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("concurrent.futures", logging.CRITICAL)
    assert record.getMessage() == f"Future {id(future)} in unexpected state: RUNNING"


def test_negative_timeout_does_not_wait() -> None:
    with pytest.raises(TimeoutError):
        Future().result(-1)
    with pytest.raises(TypeError):
        Future().result("1")  # type: ignore[arg-type]


def test_callback_that_raises_is_logged_and_others_run(caplog: pytest.LogCaptureFixture) -> None:
    future = Future()
    seen: list[Future] = []
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(seen.append)
    future.set_result(None)
    assert seen == [future]
    [record] = caplog.records
    assert record.getMessage() == f"exception calling callback for {future!r}"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_callback_may_use_the_future() -> None:
    future = Future()
    seen: list[Any] = []
    future.add_done_callback(lambda f: seen.append((f.done(), f.result(), f.cancel())))
    future.add_done_callback(lambda f: f.add_done_callback(lambda _: seen.append("inner")))
    future.set_result(7)
    assert seen == [(True, 7, False), "inner"]


def test_concurrent_results_one_wins() -> None:
    for _ in range(50):
        future = Future()
        barrier = threading.Barrier(4)
        winners: list[int] = []

        def finish(me: int) -> None:
            barrier.wait(LONG)  # noqa: B023
            with contextlib.suppress(futures.InvalidStateError):
                future.set_result(me)  # noqa: B023
                winners.append(me)  # noqa: B023

        for thread in [in_thread(finish, me) for me in range(4)]:
            thread.join(LONG)
        assert winners == [future.result()]


# ------------------------------------------------------------------------------------ its privates


def test_privates_can_be_read() -> None:
    future: Any = Future()
    assert (future._state, future._result, future._exception) == ("PENDING", None, None)
    assert (future._waiters, future._done_callbacks) == ([], [])
    future.add_done_callback(print)
    assert future._done_callbacks == [print]
    future._done_callbacks = []
    future.set_result(8)
    assert (future._state, future._result) == ("FINISHED", 8)


def test_privates_can_be_set_in_any_order_again_and_again() -> None:
    future: Any = Future()
    future._result = 1
    assert not future.done()
    future._state = "FINISHED"
    assert future.result() == 1
    future._result = 2
    assert future.result() == 2
    future._exception = error = ValueError()
    assert future.exception() is error
    with pytest.raises(ValueError):  # noqa: PT011
        future.result()
    future._exception = None
    future._state = "PENDING"
    future.set_result(3)
    assert future.result() == 3
    future._result = [4]
    assert future.result() == [4]
    with pytest.raises(ValueError, match="NONSENSE"):
        future._state = "NONSENSE"


def test_poking_under_the_condition_wakes_who_waits() -> None:
    future: Any = Future()
    results: list[Any] = []
    thread = in_thread(lambda: results.append(future.exception(LONG)))
    error = OSError()
    with future._condition:
        future._state = "FINISHED"
        time.sleep(0.01)
        future._exception = error
        future._condition.notify_all()
    thread.join(LONG)
    assert results == [error]


class Waiter:
    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def add_result(self, future: Any) -> None:
        self.told.append(("result", future))

    def add_exception(self, future: Any) -> None:
        self.told.append(("exception", future))

    def add_cancelled(self, future: Any) -> None:
        self.told.append(("cancelled", future))


def test_waiters_are_told_holding_the_condition() -> None:
    waiter = Waiter()
    finished, failed, cancelled = Future(), Future(), Future()
    future: Any
    for future in (finished, failed, cancelled):
        with future._condition:
            future._waiters.append(waiter)
    finished.set_result(1)
    failed.set_exception(ValueError())
    cancelled.cancel()
    assert waiter.told == [("result", finished), ("exception", failed)]
    assert not cancelled.set_running_or_notify_cancel()
    assert waiter.told[2:] == [("cancelled", cancelled)]


def test_a_change_of_an_exposed_future_waits_for_the_condition() -> None:
    future: Any = Future()
    with future._condition:
        thread = in_thread(future.set_result, 1)
        time.sleep(0.02)
        assert future._state == "PENDING"
        waiter = Waiter()
        future._waiters.append(waiter)
    thread.join(LONG)
    assert waiter.told == [("result", future)]


def test_condition_may_be_replaced_by_the_standard_librarys() -> None:
    future: Any = Future()
    future._condition = condition = threading.Condition()
    waiter = Waiter()
    future._waiters = [waiter]
    woken = []

    def wait() -> None:
        with condition:
            while future._state != "FINISHED":
                condition.wait(LONG)
            woken.append(True)

    thread = in_thread(wait)
    future.set_result(1)
    thread.join(LONG)
    assert woken == [True]
    assert waiter.told == [("result", future)]


def test_exposure_races_with_the_result() -> None:
    # Either the waiter sees the future finished, or it is told: never neither, never both.
    for _ in range(300):
        future: Any = Future()
        waiter = Waiter()
        barrier = threading.Barrier(2)

        def finish() -> None:
            barrier.wait(LONG)  # noqa: B023
            future.set_result(1)  # noqa: B023

        thread = in_thread(finish)
        barrier.wait(LONG)
        with future._condition:
            seen = future._state == "FINISHED"
            if not seen:
                future._waiters.append(waiter)
        thread.join(LONG)
        assert len(waiter.told) == (0 if seen else 1)


# --------------------------------------------------------------------------------------- the pool


@pytest.mark.parametrize("wrong", [0, -1, 0.0])
def test_max_workers_must_be_positive(wrong: Any) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        ThreadPoolExecutor(wrong)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        ThreadPoolExecutor("4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ThreadPoolExecutor(1, initializer=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        ThreadPoolExecutor(1, unknown=3)  # type: ignore[call-overload]


def test_default_max_workers_counts_what_the_process_may_use() -> None:
    expected = min(32, len(os.sched_getaffinity(0)) + 4)
    assert ThreadPoolExecutor()._max_workers == expected


def test_max_workers_can_be_raised_later() -> None:
    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            pool._max_workers = 2
            assert pool.submit(int).result(LONG) == 0
        assert pool._max_workers == pool.statistics().max_workers == 2


def test_statistics() -> None:
    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            tasks = [pool.submit(int) for _ in range(3)]
            statistics = pool.statistics()
            assert (statistics.queued, statistics.workers, statistics.idle) == (3, 1, 0)
            assert pool._work_queue.qsize() == 3
            assert not pool._work_queue.empty()
        futures.wait(tasks)
        assert pool.statistics().deepest == 3
        assert "deepest=3" in repr(pool.statistics())


def test_subclass_with_its_own_constructor_and_attributes() -> None:
    class MyPool(ThreadPoolExecutor):
        def __init__(self, name: str) -> None:
            super().__init__(max_workers=1)
            self.name = name

    with MyPool("mine") as pool:
        assert pool.name == "mine"
        assert pool.submit(int).result() == 0


def test_pool_that_was_not_initialized_says_so() -> None:
    class MyPool(ThreadPoolExecutor):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match="__init__"):
        MyPool().submit(int)


def test_arguments_are_gone_when_the_result_is_there(pool: ThreadPoolExecutor) -> None:
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing)
    future = pool.submit(lambda thing, *, key: None, thing, key=thing)
    del thing
    assert future.result() is None
    assert reference() is None


def test_bound_methods_and_keywords(pool: ThreadPoolExecutor) -> None:
    class Adder:
        def add(self, a: int, b: int = 0, *rest: int, **more: int) -> Any:
            return a + b, rest, more

    assert pool.submit(Adder().add, 1, 2, 3, x=4).result() == (3, (3,), {"x": 4})
    assert pool.submit("{}{a}".format, 1, a=2).result() == "12"
    assert pool.submit(dict, self=1, fn=2).result() == {"self": 1, "fn": 2}


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_base_exception_goes_into_the_future(pool: ThreadPoolExecutor, error: Any) -> None:
    def fails() -> None:
        raise error

    assert isinstance(pool.submit(fails).exception(), error)
    assert pool.submit(int).result() == 0


def test_worker_outlives_a_callback_that_exits(caplog: pytest.LogCaptureFixture) -> None:
    def leave(_: Any) -> None:
        raise SystemExit

    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            pool.submit(int).add_done_callback(leave)
            last = pool.submit(threading.get_ident)
        assert last.result(LONG) in {thread.ident for thread in pool._threads}
    assert [record.getMessage() for record in caplog.records] == ["Exception in worker"]


def test_worker_survives_a_future_that_was_finished_behind_its_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            future = pool.submit(int)
            future.set_result("mine")
        assert pool.submit(int).result(LONG) == 0
    assert future.result() == "mine"
    assert any(record.getMessage() == "Exception in worker" for record in caplog.records)


def test_initializer_that_fails_breaks_the_pool(caplog: pytest.LogCaptureFixture) -> None:
    entered = threading.Event()

    def fails() -> None:
        entered.wait(LONG)
        raise ValueError("no")

    pool = ThreadPoolExecutor(1, initializer=fails)
    tasks = [pool.submit(int) for _ in range(3)]
    cancelled = tasks[1].cancel()
    assert pool._broken is False
    entered.set()
    with pytest.raises(BrokenThreadPool):
        tasks[0].result(LONG)
    assert cancelled and tasks[1].cancelled()
    assert isinstance(tasks[2].exception(LONG), futures.BrokenExecutor)
    with pytest.raises(BrokenThreadPool, match="initializer failed"):
        pool.submit(int)
    assert "initializer failed" in pool._broken
    pool.shutdown()
    assert caplog.records[0].getMessage() == "Exception in initializer:"


def test_submit_after_shutdown() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    assert pool._shutdown
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(int, [1])
    pool.shutdown()


@pytest.mark.parametrize("module", [futures, stdlib])
def test_futures_cancelled_by_shutdown_do_not_hang_a_wait(module: Any) -> None:
    pool = ThreadPoolExecutor(1)
    with blocked(pool):
        tasks = [pool.submit(int) for _ in range(3)]
        tasks[1].cancel()
        waited: list[Any] = []
        waiting = [
            in_thread(lambda: waited.append(module.wait(tasks, LONG).not_done)),
            in_thread(lambda: waited.append(set(tasks) - {*module.as_completed(tasks, LONG)})),
        ]
        time.sleep(0.02)
        pool.shutdown(wait=False, cancel_futures=True)
        for thread in waiting:
            thread.join(LONG)
        assert waited == [set(), set()]
        assert all(task.cancelled() for task in tasks)
    pool.shutdown()


def test_garbage_executor_finishes_its_calls() -> None:
    pool = ThreadPoolExecutor(1)
    reference = weakref.ref(pool)
    threads = pool._threads
    with blocked(pool):
        tasks = [pool.submit(int, 3) for _ in range(5)]
        del pool
        gc.collect()
        assert reference() is None
    assert [task.result(LONG) for task in tasks] == [3] * 5
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_executor_in_a_cycle_is_collected_and_its_calls_are_made() -> None:
    pool = ThreadPoolExecutor(1)
    pool.myself = pool
    reference = weakref.ref(pool)
    with blocked(pool):
        task = pool.submit(lambda items: items, [1, 2])
        del pool
        gc.collect()
        assert reference() is None
    assert task.result(LONG) == [1, 2]


def test_workers_are_threads_of_the_threading_module() -> None:
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        thread = pool.submit(threading.current_thread).result()
    assert type(thread) is threading.Thread
    assert thread.name == "mine_0"
    assert not thread.daemon
    assert not thread.is_alive()


# -------------------------------------------------------------------------------------------- map


def test_map_of_several_iterables_stops_at_the_shortest(pool: ThreadPoolExecutor) -> None:
    assert list(pool.map(pow, [1, 2, 3], [2, 2])) == [1, 4]
    assert list(pool.map(int)) == []
    assert list(pool.map(lambda *args: args, "ab", range(9), [None, True])) == [
        ("a", 0, None),
        ("b", 1, True),
    ]


def test_map_passes_on_what_its_iterable_raises(pool: ThreadPoolExecutor) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        pool.map(int, broken())
    results = pool.map(int, broken(), buffersize=1)
    with pytest.raises(KeyError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("end", ["drop", "close"])
def test_abandoned_map_that_was_not_begun_cancels_nothing(end: str) -> None:
    done: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            results: Any = pool.map(done.append, range(5))
            if end == "close":
                results.close()
            del results
            gc.collect()
    assert done == [*range(5)]


@pytest.mark.parametrize("end", ["drop", "close", "error"])
def test_map_that_was_begun_cancels_the_rest(end: str) -> None:
    begun: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    def step(number: int) -> None:
        begun.append(number)
        if number == 1:
            entered.set()
            gate.wait(LONG)

    with ThreadPoolExecutor(1) as pool:
        results: Any = pool.map(step, range(5), timeout=LONG if end != "error" else 0.05)
        next(results)
        assert entered.wait(LONG)
        if end == "close":
            results.close()
        elif end == "error":
            with pytest.raises(TimeoutError):
                next(results)
            with pytest.raises(StopIteration):
                next(results)
        del results
        gate.set()
    assert begun == [0, 1]


def test_map_cannot_be_advanced_by_two_threads_at_once() -> None:
    with ThreadPoolExecutor(1) as pool:
        with blocked(pool):
            results: Any = pool.map(int, [1])
            thread = in_thread(next, results)
            time.sleep(0.05)
            with pytest.raises(ValueError, match="generator already executing"):
                next(results)
            with pytest.raises(ValueError, match="generator already executing"):
                results.close()
        thread.join(LONG)
        assert list(results) == []


@pytest.mark.parametrize("buffersize", [1, 3, 100])
def test_map_with_a_buffer(pool: ThreadPoolExecutor, buffersize: int) -> None:
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for number in range(10):
            taken += 1
            yield number

    results = pool.map(str, source(), buffersize=buffersize)
    assert taken == min(buffersize, 10)
    next(results)
    assert taken == min(buffersize + 1, 10)
    assert list(results) == [*map(str, range(1, 10))]


def test_map_checks_its_buffersize(pool: ThreadPoolExecutor) -> None:
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        pool.map(str, [1], buffersize="1")  # type: ignore[call-arg, arg-type]
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        pool.map(str, [1], buffersize=0)  # type: ignore[call-arg]


def test_map_with_a_buffer_does_not_keep_the_executor() -> None:
    pool = ThreadPoolExecutor(1)
    results = pool.map(str, range(9), buffersize=2)
    reference = weakref.ref(pool)
    del pool
    gc.collect()
    assert reference() is None
    assert list(results) == ["0", "1"]


def test_map_goes_through_a_subclasss_submit() -> None:
    class Doubling(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            return super().submit(lambda: 2 * fn(*args, **kwargs))

    class Stock(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future: Any = stdlib.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    with Doubling(1) as pool:
        assert list(pool.map(int, [1, 2])) == [2, 4]
    with Stock(1) as stock:
        assert list(stock.map(int, [1, 2], timeout=LONG)) == [1, 2]


def test_results_of_a_map_are_not_kept(pool: ThreadPoolExecutor) -> None:
    class Thing:
        def __init__(self, number: int) -> None:
            self.number = number

    for thing in pool.map(Thing, range(5)):
        reference = weakref.ref(thing)
        del thing
        # The worker lets go of its future only after it has set the result.
        while reference() is not None:
            time.sleep(0.001)


# --------------------------------------------------------------------------- wait and as_completed


def finished(value: Any, module: Any = futures) -> Any:
    future = module.Future()
    future.set_result(value)
    return future


def test_wait_counts_each_future_once() -> None:
    future = finished(1)
    assert futures.wait([future, future]) == ({future}, set())
    assert futures.wait([]) == (set(), set())
    assert type(futures.wait([])) is stdlib.wait([]).__class__


def test_wait_refuses_what_is_no_future() -> None:
    with pytest.raises(AttributeError):
        futures.wait([1])  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        next(iter(futures.as_completed([1])))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="Invalid return condition: 'SOME'"):
        futures.wait([Future()], return_when="SOME")


@pytest.mark.parametrize(("waiting", "other"), [(futures, stdlib), (stdlib, futures)])
def test_wait_takes_futures_of_both_kinds(waiting: Any, other: Any) -> None:
    mine, yours = waiting.Future(), other.Future()
    thread = in_thread(lambda: (yours.set_result(1), mine.set_result(2)))
    assert waiting.wait([mine, yours], LONG) == ({mine, yours}, set())
    thread.join(LONG)
    assert mine._waiters == yours._waiters == []

    failing, pending = other.Future(), waiting.Future()
    thread = in_thread(failing.set_exception, ValueError())
    result = waiting.wait([failing, pending], LONG, waiting.FIRST_EXCEPTION)
    thread.join(LONG)
    assert result == ({failing}, {pending})
    assert waiting.wait([failing, pending], LONG, waiting.FIRST_COMPLETED).done == {failing}
    assert pending._waiters == []


@pytest.mark.parametrize(("waiting", "other"), [(futures, stdlib), (stdlib, futures)])
def test_as_completed_takes_futures_of_both_kinds(waiting: Any, other: Any) -> None:
    mine, yours, early = waiting.Future(), other.Future(), finished(0, other)
    completed = waiting.as_completed([mine, yours, early, early], LONG)
    assert next(completed) is early
    yours.set_result(1)
    assert next(completed) is yours
    mine.set_result(2)
    assert list(completed) == [mine]
    assert mine._waiters == yours._waiters == early._waiters == []


def test_wait_for_the_first_exception_passes_over_results(pool: ThreadPoolExecutor) -> None:
    def fails() -> None:
        raise ValueError

    with blocked(pool):
        good, bad = pool.submit(int), pool.submit(fails)
        pending = Future()
        done, not_done = futures.wait([good, bad, pending], LONG, futures.FIRST_EXCEPTION)
    assert (done, not_done) == ({good, bad}, {pending})


def test_wait_that_times_out_leaves_nothing_behind() -> None:
    mine, yours = Future(), stdlib.Future()
    assert futures.wait([mine, yours], 0.01) == (set(), {mine, yours})
    assert yours._waiters == []
    mine.set_result(1)
    yours.set_result(1)


def test_as_completed_begins_when_it_is_iterated() -> None:
    future = Future()
    completed = futures.as_completed(iter([future]), 0)
    future.set_result(1)
    assert list(completed) == [future]
    with pytest.raises(TypeError):
        next(iter(futures.as_completed(5)))  # type: ignore[arg-type]


def test_abandoned_as_completed_deregisters() -> None:
    mine, yours = Future(), stdlib.Future()
    completed: Any = futures.as_completed([finished(1), mine, yours])
    next(completed)
    assert len(yours._waiters) == 1
    del completed
    gc.collect()
    assert yours._waiters == []
    reference = weakref.ref(mine)
    del mine
    assert reference() is None


def test_as_completed_yields_in_the_order_of_completion() -> None:
    tasks = [Future() for _ in range(4)]
    completed = futures.as_completed(tasks, LONG)
    thread = in_thread(lambda: [tasks[index].set_result(index) for index in (2, 0, 3, 1)])
    results = [future.result() for future in completed]
    thread.join(LONG)
    assert sorted(results) == [0, 1, 2, 3]
    for future in tasks:
        assert future.done()


def test_as_completed_after_its_end() -> None:
    completed: Any = futures.as_completed([Future()], 0)
    with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
        next(completed)
    with pytest.raises(StopIteration):
        next(completed)
    completed.close()


def test_results_race_with_a_wait(pool: ThreadPoolExecutor) -> None:
    for _ in range(100):
        tasks = [pool.submit(int) for _ in range(10)]
        assert futures.wait(tasks, LONG).not_done == set()
        tasks = [pool.submit(int) for _ in range(10)]
        assert len({*futures.as_completed(tasks, LONG)}) == 10


# ---------------------------------------------------------------------------------------- asyncio


def test_asyncio_waits_for_our_futures(pool: ThreadPoolExecutor) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(pool)
        failing = loop.run_in_executor(None, int, "x")
        results: list[Any] = [
            await loop.run_in_executor(pool, pow, 2, 5),
            await asyncio.wrap_future(pool.submit(int, 7)),
            await asyncio.to_thread(str, 9),
        ]
        with pytest.raises(ValueError, match="invalid literal"):
            await failing
        return results

    assert asyncio.run(main()) == [32, 7, "9"]


def test_asyncio_cancels_our_futures() -> None:
    future = Future()

    async def main() -> None:
        wrapped = asyncio.wrap_future(future)
        wrapped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wrapped

    asyncio.run(main())
    assert future.cancelled()


def test_coroutine_run_from_a_thread_gives_a_future_for_our_wait() -> None:
    loop = asyncio.new_event_loop()
    thread = in_thread(loop.run_forever)

    async def answer() -> int:
        return 42

    future = asyncio.run_coroutine_threadsafe(answer(), loop)
    mine = finished(1)
    assert futures.wait([future, mine], LONG).done == {future, mine}
    assert future.result() == 42
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LONG)
    loop.close()


# ----------------------------------------------------------------------- signals, forks and the end


@pytest.mark.parametrize(
    "wait",
    [
        "next(pool.map(block, range(3)))",
        "pool.submit(block, 1).result()",
        "futures.wait([pool.submit(block, 1)])",
        "next(futures.as_completed([pool.submit(block, 1)]))",
    ],
)
def test_ctrl_c_ends_a_wait(wait: str) -> None:
    code = f"""if True:
        import os, signal, threading, time
        from juggler import futures
        gate = threading.Event()
        pool = futures.ThreadPoolExecutor(1)
        def block(_):
            os.kill(os.getpid(), signal.SIGINT)
            gate.wait()
        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted")
        gate.set()
    """
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "interrupted\n", "")


def test_exit_makes_the_calls_that_are_queued() -> None:
    code = """if True:
        import time
        from juggler import futures
        pool = futures.ThreadPoolExecutor(1)
        for number in range(3):
            pool.submit(lambda n: (time.sleep(0.01), print(n, flush=True)), number)
    """
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "0\n1\n2\n", "")


def test_exit_refuses_new_calls_also_in_new_pools() -> None:
    code = """if True:
        import atexit
        from juggler import futures
        pool = futures.ThreadPoolExecutor(1)
        pool.submit(int).result()
        @atexit.register
        def late():
            for executor in pool, futures.ThreadPoolExecutor(1):
                try:
                    executor.submit(int)
                except RuntimeError as error:
                    print(error)
    """
    result = run(code)
    expected = "cannot schedule new futures after interpreter shutdown\n" * 2
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")


def test_exit_joins_daemonic_workers() -> None:
    code = """if True:
        import threading, time
        from juggler import futures
        def start():
            futures.ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.05), print("done")))
        thread = threading.Thread(target=start, daemon=True)
        thread.start()
        thread.join()
    """
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_forked_child_starts_workers_of_its_own() -> None:
    code = """if True:
        import os, threading
        from juggler import futures
        pool = futures.ThreadPoolExecutor(1)
        gate = threading.Event()
        pool.submit(gate.wait)
        queued = pool.submit(print, "parent's")
        child = os.fork()
        if child == 0:
            assert not pool._threads
            assert queued.cancelled()
            assert futures.wait([queued], 60).done
            print(pool.submit(str, "child").result(60), len(pool._threads), flush=True)
            pool.shutdown()
            os._exit(7)
        _, status = os.waitpid(child, 0)
        gate.set()
        pool.shutdown()
        print(os.waitstatus_to_exitcode(status), queued.cancelled())
    """
    result = run(code)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "child 1\nparent's\n7 False\n"


def test_fork_in_a_worker() -> None:
    code = """if True:
        import os
        from juggler import futures
        pool = futures.ThreadPoolExecutor(1)
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(pool.submit(int, 5).result(60))
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(pool.submit(fork).result(60), pool.submit(int, 6).result(60))
    """
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "5 6\n", "")


def test_signals_reach_the_main_thread_while_workers_make_c_calls() -> None:
    code = """if True:
        import itertools, signal
        from juggler import futures
        class Alarm(Exception): pass
        def ring(*_): raise Alarm
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with futures.ThreadPoolExecutor(2) as pool:
            try:
                for _ in pool.map(int, itertools.repeat(1), buffersize=1000): pass
            except Alarm:
                print("rang")
    """
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "rang\n", "")


@pytest.mark.parametrize("executor_class", [ThreadPoolExecutor, stdlib.ThreadPoolExecutor])
@pytest.mark.parametrize("wait", [None, 0, ""])
def test_shutdown_takes_any_truth(executor_class: Any, wait: Any) -> None:
    executor = executor_class(1)
    with blocked(executor):
        queued = executor.submit(pow, 2, 3)
        executor.shutdown(wait, cancel_futures=None)
        assert not queued.done()
    assert queued.result(LONG) == 8


def test_shutdown_passes_on_what_the_truth_raises(pool: ThreadPoolExecutor) -> None:
    class NoTruth:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.shutdown(NoTruth())  # type: ignore[arg-type]
    assert pool.submit(pow, 2, 3).result(LONG) == 8


class Context:
    """Where a worker makes its calls, as 3.14's `concurrent.futures.thread` wants it."""

    log: list[str]

    def __init__(self, label: str) -> None:
        self.label = label

    def initialize(self) -> None:
        self.log.append(f"{self.label}: initialize in {threading.current_thread().name}")

    def finalize(self) -> None:
        self.log.append(f"{self.label}: finalize")

    def run(self, task: Any) -> object:
        name, args, kwargs = task
        return f"{self.label}: {name}{args}{kwargs}"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="pools have contexts from 3.14 on")
@pytest.mark.parametrize("base", [ThreadPoolExecutor, stdlib.ThreadPoolExecutor])
class TestContexts:
    def test_calls_go_through_the_context(self, base: Any) -> None:
        Context.log = []

        class Executor(base):  # type: ignore[misc]
            @classmethod
            def prepare_context(cls, initializer: Any, initargs: Any, *, label: str = "-") -> Any:
                assert (initializer, initargs) == ("no callable", (1,))
                return lambda: Context(label), lambda fn, args, kwargs: (fn.__name__, args, kwargs)

        arguments = {"initializer": "no callable", "initargs": (1,), "label": "here"}
        with Executor(1, "worker", **arguments) as executor:
            assert executor.submit(pow, 2, 3).result(LONG) == "here: pow(2, 3){}"
            assert executor.submit(dict, a=1).result(LONG) == "here: dict(){'a': 1}"
            assert executor.submit(max, 1, key=2).result(LONG) == "here: max(1,){'key': 2}"
            assert list(executor.map(pow, [1, 2], [3, 4])) == [
                "here: pow(1, 3){}",
                "here: pow(2, 4){}",
            ]
            assert list(executor.map(abs, [1])) == ["here: abs(1,){}"]
        assert Context.log == ["here: initialize in worker_0", "here: finalize"]

    def test_a_task_that_cannot_be_made(self, base: Any) -> None:
        class Executor(base):  # type: ignore[misc]
            @classmethod
            def prepare_context(cls, initializer: Any, initargs: Any) -> Any:
                return lambda: Context("here"), lambda fn, args, kwargs: 1 / 0

        with Executor(1) as executor, pytest.raises(ZeroDivisionError):
            executor.submit(pow, 2, 3)

    def test_a_context_that_cannot_begin(self, base: Any, caplog: Any) -> None:
        class Broken(futures.BrokenThreadPool):
            pass

        class Failing(Context):
            def initialize(self) -> None:
                raise ZeroDivisionError

        class Executor(base):  # type: ignore[misc]
            BROKEN = Broken

            @classmethod
            def prepare_context(cls, initializer: Any, initargs: Any) -> Any:
                return lambda: Failing("here"), lambda fn, args, kwargs: (fn.__name__, args, kwargs)

        with Executor(1) as executor:
            with pytest.raises(Broken):
                executor.submit(pow, 2, 3).result(LONG)
            with pytest.raises(Broken):
                executor.submit(pow, 2, 3)
        assert "Exception in initializer" in caplog.text

    def test_arguments_that_nobody_takes(self, base: Any) -> None:
        with pytest.raises(TypeError, match="'label'"):
            base(1, label="here")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="from 3.14 on `prepare_context` says so")
def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        ThreadPoolExecutor(1, label="here")  # type: ignore[call-overload]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="interpreters have a pool from 3.14 on")
def test_interpreters_as_the_contexts_of_our_pool() -> None:
    from concurrent.futures import interpreter

    class Executor(ThreadPoolExecutor):
        BROKEN = interpreter.BrokenInterpreterPool

        @classmethod
        def prepare_context(cls, initializer: Any, initargs: Any) -> Any:
            return interpreter.WorkerContext.prepare(initializer, initargs)

    with Executor(2) as executor:
        assert list(executor.map(divmod, [7, 8], [2, 3])) == [(3, 1), (2, 2)]
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result(LONG)


def test_the_module_is_no_package() -> None:
    assert futures.BrokenThreadPool is BrokenThreadPool
    assert "BrokenThreadPool" in futures.__all__
    with pytest.raises(AttributeError, match="no attribute '__path__'"):
        futures.__path__  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="not a package"):
        __import__("juggler.futures.thread")
