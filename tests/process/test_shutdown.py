"""`juggler.shutdown`: what a program does when it is told to end, in programs that are told to."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest

import juggler
from juggler import futures

LONG = 60.0

HEAD = """\
import asyncio, itertools, os, signal, sys, threading, time
import juggler
from juggler import futures

def ready():
    print("ready", flush=True)

"""


def tell(programs: Any, source: str, *signals: int) -> tuple[int, list[str], str]:
    """Run a program that says when it is ready for each of the signals; its status and output."""
    program = programs.start(HEAD + source)
    for number in signals:
        assert program.stdout.readline() == "ready\n"
        program.send_signal(number)
    output, errors = program.communicate(timeout=LONG)
    programs.expect_none_left()
    return program.returncode, output.splitlines(), errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["ThreadPoolExecutor", "ProcessPoolExecutor"])
def test_what_was_taken_in_is_finished(programs: Any, kind: str, number: int) -> None:
    source = f"""
done = []
with juggler.shutdown(grace=60) as stop:
    pool = stop.add(futures.{kind}(2))
    for job in stop.intake(itertools.count()):
        done.append(pool.submit(pow, job, 2))
        if job == 100:
            ready()
            stop.wait()
print(stop.signal.name, stop.expired, len(done), sum(f.result() for f in done))
"""
    status, output, errors = tell(programs, source, number)
    name = signal.Signals(number).name
    assert (status, errors) == (0, "")
    assert output == [f"{name} False 101 {sum(n * n for n in range(101))}"]


@pytest.mark.parametrize("on", ["threads", "processes", "loop"])
def test_a_pool_for_maps_finishes_what_was_taken_in(programs: Any, on: str) -> None:
    source = f"""
def slow(number):
    time.sleep(0.05)
    return number

async def slow_too(number):
    await asyncio.sleep(0.05)
    return number

if __name__ == "__main__":
    with juggler.shutdown(grace=60) as stop:
        pool = stop.add(juggler.Pool({on!r}, limit=2))
        fn = slow_too if {on!r} == "loop" else slow
        single = pool.submit(fn, -1)
        found = []
        for number in pool.map(fn, itertools.count()):
            found.append(number)
            if number == 3:
                ready()
                stop.wait()
        last = pool.submit(fn, -2)
    print(stop.signal.name, stop.expired, found == list(range(len(found))), len(found) >= 4)
    print(single.result(), last.result())
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, errors) == (0, "")
    assert output == ["SIGTERM False True True", "-1 -2"]


@pytest.mark.parametrize("on", ["processes", "loop"])
def test_a_pool_for_maps_that_does_not_end_is_ended(programs: Any, on: str) -> None:
    source = f"""
if __name__ == "__main__":
    with juggler.shutdown(grace=0.2) as stop:
        pool = stop.add(juggler.Pool({on!r}))
        future = pool.submit(asyncio.sleep if {on!r} == "loop" else time.sleep, 600)
        ready()
        stop.wait()
    try:
        future.result()
    except BaseException as error:
        print(stop.expired, type(error).__name__)
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, errors) == (0, "")
    assert output in (["True CancelledError"], ["True WorkerDied"])


def test_processes_that_do_not_end_are_ended(programs: Any) -> None:
    source = """
with juggler.shutdown(grace=0.2) as stop:
    pool = stop.add(futures.ProcessPoolExecutor(1))
    endless, queued = pool.submit(time.sleep, 1000), pool.submit(time.sleep, 1000)
    while not endless.running():
        time.sleep(0.01)
    ready()
    stop.wait()
print(stop.expired, type(endless.exception()).__name__, queued.cancelled())
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, output) == (0, ["True WorkerDied True"]), errors


def test_a_thread_that_does_not_end_is_named(programs: Any) -> None:
    source = """
import logging
logging.basicConfig(format="%(message)s")
with juggler.shutdown(grace=0.2) as stop:
    pool = stop.add(futures.ThreadPoolExecutor(1))
    pool.submit(time.sleep, 1000)
    ready()
    stop.wait()
print(stop.expired, flush=True)
os._exit(0)
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, output) == (0, ["True"])
    assert "still runs calls in threads, which nothing can end" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(programs: Any, number: int) -> None:
    source = """
with juggler.shutdown(grace=1000) as stop:
    pool = stop.add(futures.ProcessPoolExecutor(1))
    pool.submit(time.sleep, 1000)
    ready()
    stop.wait()
    ready()
"""
    status, output, errors = tell(programs, source, number, number)
    assert (status, output, errors) == (-number, [], "")


@pytest.mark.parametrize("runner", ["asyncio", "juggler.asyncio"])
def test_a_server_a_task_and_the_block(programs: Any, runner: str) -> None:
    source = f"""
import juggler.asyncio

async def serve(reader, writer):
    writer.close()

async def work(seconds):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        print("task cancelled")
        raise
    return "worked"

async def main():
    async with juggler.shutdown(grace=0.5) as stop:
        server = stop.add(await asyncio.start_server(serve, "127.0.0.1"))
        short = stop.add(asyncio.create_task(work(0.1)))
        long = stop.add(asyncio.create_task(work(1000)))
        pooled = stop.add(futures.ThreadPoolExecutor(1)).submit(pow, 2, 5)
        ready()
        await stop.wait_async()
        while server.is_serving():
            await asyncio.sleep(0)
        print("no more connections")
        await asyncio.sleep(1000)
    print(stop.expired, short.result(), long.cancelled(), pooled.result())
    await asyncio.sleep(0)

{runner}.run(main())
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, errors) == (0, "")
    assert output[0] == "no more connections"
    assert output[1:] == ["task cancelled", "True worked True 32"]


def test_an_intake_in_a_loop_ends_in_the_midst_of_a_wait(programs: Any) -> None:
    source = """
async def jobs():
    yield 1
    ready()
    try:
        await asyncio.sleep(1000)
    finally:
        print("left")

async def main():
    async with juggler.shutdown() as stop:
        print([job async for job in stop.intake(jobs())])

asyncio.run(main())
"""
    status, output, errors = tell(programs, source, signal.SIGTERM)
    assert (status, output, errors) == (0, ["left", "[1]"], "")


def test_forked_children_end_by_the_signal(programs: Any) -> None:
    source = """
with juggler.shutdown() as stop:
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), stop.is_requested)
"""
    status, output, errors = tell(programs, source)
    assert (status, output) == (0, ["15 False"]), errors


# ---------------------------------------------------------------- in this process


class Noting(Executor):
    """Notes when it is closed."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise NotImplementedError

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.notes.append(self.name)


def test_the_program_may_tell_itself() -> None:
    notes: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with juggler.shutdown(grace=60) as stop:
        assert signal.getsignal(signal.SIGTERM) != before
        stop.add(Noting("first", notes))
        stop.add(Noting("last", notes))
        told = threading.Event()
        stop.add(told.set)
        assert not stop.is_requested
        assert not stop.wait(0)
        assert stop.remaining() == float("inf")
        stop.request()
        assert told.wait(LONG)
        assert stop.is_requested
        assert stop.wait()
        assert 0 < stop.remaining() <= 60
        late = threading.Event()
        stop.add(late.set)
        assert late.wait(LONG)
        assert list(stop.intake([1, 2])) == []
    assert notes == ["last", "first"]
    assert (stop.signal, stop.expired) == (None, False)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not [t for t in threading.enumerate() if t.name == "juggler-shutdown"]


def test_what_was_added_is_closed_without_being_told() -> None:
    with juggler.shutdown() as stop:
        pool = stop.add(futures.ThreadPoolExecutor(1))
        result = pool.submit(pow, 2, 3)
        assert list(stop.intake(iter([1, 2]))) == [1, 2]
    assert result.result(0) == 8
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(pow, 2, 3)
    assert not stop.is_requested


def test_an_intake_passes_on_what_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    async def later() -> AsyncIterator[int]:
        for item in items():
            yield item

    async def take() -> list[int]:
        async with juggler.shutdown() as stop:
            return [item async for item in stop.intake(later())]

    with juggler.shutdown() as stop, pytest.raises(LookupError, match="no more"):
        list(stop.intake(items()))
    with pytest.raises(LookupError, match="no more"):
        asyncio.run(take())


def test_a_cancelled_block_stays_cancelled() -> None:
    async def block() -> None:
        async with juggler.shutdown():
            await asyncio.sleep(LONG)

    async def main() -> None:
        task = asyncio.create_task(block())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_bad_use() -> None:
    with pytest.raises(ValueError, match="grace must be a number of seconds"):
        juggler.shutdown(-1)
    with juggler.shutdown() as stop:
        with pytest.raises(TypeError, match="an executor, a pool, a task, a server or a function"):
            stop.add(7)
        with pytest.raises(RuntimeError, match="entered once"), stop:
            pass
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with juggler.shutdown():
                time.sleep(0)
        except ValueError as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
