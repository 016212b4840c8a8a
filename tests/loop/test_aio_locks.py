"""Locks and their like for tasks: what CPython's tests and the models do not ask."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import subprocess
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from juggler.asyncio import locks, new_event_loop, queues

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "stdlib": asyncio.new_event_loop,
    "juggler": new_event_loop,
}
# What a coroutine of each kind is made of, ready to end at once and to wait.
CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}


def call(name: str) -> Callable[[Callable[[bool], Any]], Callable[[bool], Any]]:
    """Register a function that makes the coroutine `name`, which waits or does not."""

    def register(make: Callable[[bool], Any]) -> Callable[[bool], Any]:
        CALLS[name] = (lambda: make(False), lambda: make(True))
        return make

    return register


@call("Lock.acquire")
def _lock(waits: bool) -> Any:
    lock = locks.Lock()
    if waits:
        drive(lock.acquire())
    return lock.acquire()


@call("Event.wait")
def _event(waits: bool) -> Any:
    event = locks.Event()
    if not waits:
        event.set()
    return event.wait()


@call("Semaphore.acquire")
def _semaphore(waits: bool) -> Any:
    return locks.Semaphore(0 if waits else 1).acquire()


@call("Barrier.wait")
def _barrier(waits: bool) -> Any:
    return locks.Barrier(2 if waits else 1).wait()


@call("Queue.get")
def _get(waits: bool) -> Any:
    queue = queues.Queue[int]()
    if not waits:
        queue.put_nowait(1)
    return queue.get()


@call("Queue.put")
def _put(waits: bool) -> Any:
    queue = queues.Queue[int](1)
    if waits:
        queue.put_nowait(1)
    return queue.put(2)


@call("Queue.join")
def _join(waits: bool) -> Any:
    queue = queues.Queue[int]()
    if waits:
        queue.put_nowait(1)
    return queue.join()


def drive(coroutine: Any) -> Any:
    """Run a coroutine that need not wait."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@pytest.fixture(params=LOOPS)
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_a_coroutine(name: str) -> None:
    coroutine = CALLS[name][0]()
    assert asyncio.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert coroutine.__qualname__ == name
    assert coroutine.__name__ == name.partition(".")[2]
    assert repr(coroutine).startswith(f"<coroutine object {name} at 0x")
    coroutine.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_need_not_wait_needs_no_loop(name: str) -> None:
    coroutine = CALLS[name][0]()
    result = drive(coroutine)
    expected = {"Lock.acquire": True, "Event.wait": True, "Semaphore.acquire": True}
    assert result == expected.get(name, {"Barrier.wait": 0, "Queue.get": 1}.get(name))
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)
    coroutine.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_is_not_awaited_warns(name: str) -> None:
    coroutine = CALLS[name][0]()
    with pytest.warns(RuntimeWarning, match=f"coroutine '{name}' was never awaited"):
        del coroutine


@pytest.mark.parametrize("name", CALLS)
def test_a_call_becomes_a_task_that_can_be_cancelled(name: str, runner: asyncio.Runner) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(CALLS[name][1]())
        await asyncio.sleep(0)
        assert name in repr(task)
        assert not task.done()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    runner.run(main())


@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_waits_without_a_loop_fails_as_the_stdlibs(name: str) -> None:
    coroutine = CALLS[name][1]()
    with pytest.raises(AttributeError, match="create_future"):
        coroutine.send(None)


def test_the_protocol_of_coroutines(runner: asyncio.Runner) -> None:
    async def main() -> None:
        coroutine = locks.Event().wait()
        with pytest.raises(TypeError, match="can't send non-None value"):
            coroutine.send(1)
        future: Any = coroutine.send(None)
        assert asyncio.isfuture(future)
        with pytest.raises(RuntimeError, match="being awaited already"):
            await coroutine
        with pytest.raises(KeyError, match="why"):
            coroutine.throw(KeyError("why"))
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coroutine.throw(KeyError)

        for thrown in [(KeyError, "why"), (KeyError, KeyError("why")), (KeyError("why"), None)]:
            coroutine = locks.Event().wait()
            coroutine.send(None)
            with pytest.raises(KeyError, match="why"):
                coroutine.throw(*thrown)
        coroutine = locks.Event().wait()
        for wrong in (1, int):
            with pytest.raises(TypeError, match="deriving from BaseException"):
                coroutine.throw(wrong)
        coroutine.close()
        coroutine.close()

        # It goes on before its future is done: whoever runs it did not wait.
        coroutine = locks.Event().wait()
        coroutine.send(None)
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            coroutine.send(None)

    runner.run(main())


def test_closing_what_waits_takes_it_out_of_line(runner: asyncio.Runner) -> None:
    async def main() -> None:
        event = locks.Event()
        first, second = event.wait(), event.wait()
        first.send(None)
        second.send(None)
        assert len(event._waiters) == 2
        first.close()
        assert len(event._waiters) == 1
        del second
        gc.collect()
        assert not event._waiters

    runner.run(main())


def test_a_wait_for_a_condition_does_not_end_without_the_lock(runner: asyncio.Runner) -> None:
    async def main() -> None:
        condition = locks.Condition()
        await condition.acquire()
        waits = condition.wait()
        waits.send(None)
        assert not condition.locked()
        await condition.acquire()
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            waits.close()
        condition.release()
        assert not condition.locked()

    runner.run(main())


def test_garbage_that_waits_goes(runner: asyncio.Runner) -> None:
    class Marked(locks.Event):
        pass

    async def main() -> Any:
        event = Marked()

        async def wait() -> None:
            await event.wait()

        coroutine = wait()
        coroutine.send(None)
        event.mine = (event, coroutine)  # type: ignore[attr-defined]
        return weakref.ref(event)

    dead = runner.run(main())
    gc.collect()
    assert dead() is None


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_a_subclass_may_override_what_async_with_calls(kind: str, runner: asyncio.Runner) -> None:
    calls = []

    class Logged(getattr(locks, kind)):  # type: ignore[misc]
        async def acquire(self) -> bool:
            calls.append("acquire")
            return bool(await super().acquire())

        def release(self) -> None:
            calls.append("release")
            super().release()

    async def main() -> None:
        async with Logged():
            calls.append("inside")

    runner.run(main())
    assert calls == ["acquire", "inside", "release"]


def test_an_attribute_may_override_what_async_with_calls(runner: asyncio.Runner) -> None:
    async def main() -> None:
        lock = locks.Lock()
        released = []
        lock.release = lambda: released.append(True)  # type: ignore[method-assign]
        async with lock:
            pass
        assert released == [True]
        assert lock.locked()

    runner.run(main())


@pytest.mark.parametrize("make", [asyncio.Lock, type("Mine", (locks.Lock,), {})])
def test_a_condition_works_with_any_lock(make: Any, runner: asyncio.Runner) -> None:
    async def main() -> None:
        lock = make()
        condition = locks.Condition(lock)
        seen = []

        async def consume() -> None:
            async with condition:
                await condition.wait_for(lambda: len(seen) > 1)
                seen.append(await condition.wait())

        task = asyncio.ensure_future(consume())
        for step in range(3):
            await asyncio.sleep(0)
            async with condition:
                assert lock.locked()
                seen.append(step)
                condition.notify_all()
        await task
        assert seen == [0, 1, 2, True]
        assert not lock.locked()

        async with condition:
            task = asyncio.ensure_future(consume())
            seen.clear()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not lock.locked()

    runner.run(main())


def test_our_lock_serves_the_stdlibs_condition(runner: asyncio.Runner) -> None:
    async def main() -> None:
        condition = asyncio.Condition(locks.Lock())  # type: ignore[arg-type]

        async def wait() -> bool:
            async with condition:
                return bool(await condition.wait())

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        async with condition:
            condition.notify()
        assert await task

    runner.run(main())


def test_timeouts_end_waits(runner: asyncio.Runner) -> None:
    async def main() -> None:
        lock = locks.Lock()
        await lock.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lock.acquire(), 0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), lock:
                pass
        assert not lock._waiters

    runner.run(main())


def test_one_loop_only() -> None:
    lock = locks.Lock()

    async def contend() -> None:
        async with lock:
            task = asyncio.ensure_future(lock.acquire())
            await asyncio.sleep(0)
        await task
        lock.release()

    asyncio.run(contend())
    # Nobody has to wait: no loop is needed.
    asyncio.run(take(lock))
    with pytest.raises(RuntimeError, match=r"Lock object at .* is bound to a different event loop"):
        asyncio.run(contend())


async def take(lock: locks.Lock) -> None:
    async with lock:
        pass


def test_waking_after_the_loop_was_closed() -> None:
    event = locks.Event()
    loop = new_event_loop()

    async def wait() -> asyncio.Task[Any]:
        waiting = loop.create_task(event.wait())
        await asyncio.sleep(0)
        return waiting

    waiting = loop.run_until_complete(wait())
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        event.set()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    assert not waiting.done()


def test_numbers_of_permits() -> None:
    assert locks.Semaphore(math.inf)._value == math.inf  # type: ignore[arg-type]
    endless = locks.Semaphore(math.inf)  # type: ignore[arg-type]
    for _ in range(3):
        assert drive(endless.acquire()) is True
    endless.release()
    assert endless._value == math.inf
    with pytest.raises(TypeError, match="must be an integer or infinite"):
        locks.Semaphore(1.5)  # type: ignore[arg-type]
    bounded = locks.BoundedSemaphore(0)
    with pytest.raises(ValueError, match="released too many times"):
        bounded.release()
    assert isinstance(bounded, locks.Semaphore)


@pytest.mark.parametrize("bad", [0, -1])
def test_a_barrier_needs_parties(bad: int) -> None:
    with pytest.raises(ValueError, match="parties must be >= 1"):
        locks.Barrier(bad)
    with pytest.raises(TypeError):
        locks.Barrier()  # type: ignore[call-arg]


def test_conditions_without_init() -> None:
    class Careless(locks.Condition):
        def __init__(self) -> None:
            pass

    with pytest.raises(RuntimeError, match=r"Condition.__init__\(\) was not called"):
        Careless().locked()


def test_a_predicate_that_raises_ends_the_wait(runner: asyncio.Runner) -> None:
    async def main() -> None:
        condition = locks.Condition()
        seen = []

        def predicate() -> bool:
            seen.append(True)
            if len(seen) > 1:
                raise KeyError("predicate")
            return False

        async def wait() -> None:
            async with condition:
                await condition.wait_for(predicate)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        async with condition:
            condition.notify()
        with pytest.raises(KeyError, match="predicate"):
            await task
        assert not condition.locked()

    runner.run(main())


def test_an_async_with_may_end_by_return_and_by_error(runner: asyncio.Runner) -> None:
    lock = locks.Lock()

    async def returns() -> int:
        async with lock as value:
            assert value is None
            return 1

    async def raises() -> None:
        async with lock:
            raise KeyError

    async def main(coroutine: Coroutine[Any, Any, object]) -> object:
        try:
            return await coroutine
        finally:
            assert not lock.locked()

    assert runner.run(main(returns())) == 1
    with pytest.raises(KeyError):
        runner.run(main(raises()))


def test_what_waits_when_the_interpreter_ends_does_no_harm() -> None:
    code = """if True:
        import asyncio
        from juggler.asyncio import Condition, Event, Queue, new_event_loop

        async def wait():
            condition = Condition()
            async with condition:
                await condition.wait()

        loop = new_event_loop()
        tasks = [loop.create_task(c) for c in (wait(), Event().wait(), Queue().get())]
        loop.run_until_complete(asyncio.sleep(0))
        print("waiting")
        """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "waiting\n"), ended.stderr
