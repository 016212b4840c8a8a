"""Random programs behave alike on our primitives of asyncio and on the standard library's.

A program is a list of steps: tasks are started that wait for something, are cancelled, wake each
other; turns of the loop pass in between. What is compared is everything that can be told apart: in
which turn which task goes on, with what result, and what the objects say of themselves.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler import _juggler
from juggler.asyncio import locks, new_event_loop, queues

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="on every version ours behave as the standard library of 3.13",
)

Steps = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Kit:
    """The modules of the primitives, and the loop and the tasks that use them."""

    locks: Any = locks
    queues: Any = queues
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    task: Any = None


THEIRS = Kit(asyncio.locks, asyncio.queues)
OURS = [
    Kit(),
    Kit(task=_juggler.AsyncTask),
    Kit(loop=new_event_loop),
    Kit(loop=new_event_loop, task=asyncio.Task),
]


def programs(**operations: st.SearchStrategy[Any] | None) -> st.SearchStrategy[Steps]:
    """Lists of steps, each an operation and what it takes, with turns and cancellations."""
    steps = [
        st.tuples(st.just(name)) if argument is None else st.tuples(st.just(name), argument)
        for name, argument in operations.items()
    ]
    common = [st.tuples(st.just("turn")), st.tuples(st.just("cancel"), st.integers(0, 7))]
    return st.lists(st.one_of(*steps, *common), max_size=40)


class World:
    """One run of a program: its tasks, and what happened."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self.tasks: list[asyncio.Task[Any]] = []
        self.trace: list[object] = []
        self.turn = 0

    def note(self, *event: object) -> None:
        self.trace.append((self.turn, *event))

    def attempt(self, call: Callable[..., Any], *args: Any) -> None:
        """Make a call that does not wait."""
        try:
            self.note("returned", call(*args))
        except Exception as error:
            self.note("raised", type(error).__name__, str(error))

    def start(self, coroutine: Callable[[], Awaitable[Any]]) -> None:
        number = len(self.tasks)

        async def body() -> None:
            try:
                self.note(number, "got", await coroutine())
            except BaseException as error:
                self.note(number, type(error).__name__, str(error))
                raise

        self.tasks.append(asyncio.ensure_future(body()))

    def look(self, *names: str) -> None:
        text = re.sub(r"at 0x[0-9a-f]+", "", repr(self.subject))
        waiters = [len(getattr(self.subject, name) or ()) for name in names]
        self.note(text.replace("juggler", ""), waiters)


async def play(world: World, steps: Steps, apply: Callable[..., None]) -> list[object]:
    for operation, *args in steps:
        match operation:
            case "turn":
                await asyncio.sleep(0)
                world.turn += 1
            case "cancel" if world.tasks:
                world.tasks[args[0] % len(world.tasks)].cancel()
            case "cancel":
                pass
            case _:
                apply(world, operation, *args)
    for _ in range(3):
        await asyncio.sleep(0)
        world.turn += 1
    for task in world.tasks:
        task.cancel()
    while not all(task.done() for task in world.tasks):
        # A wait for a condition does not end before it has the lock, which may be held for good.
        if isinstance(world.subject, (asyncio.Condition, locks.Condition)):
            world.attempt(world.subject.release)
        await asyncio.sleep(0)
        world.turn += 1
    await asyncio.gather(*world.tasks, return_exceptions=True)
    return world.trace


def run(main: Coroutine[Any, Any, list[object]], kit: Kit) -> list[object]:
    def factory(loop: Any, coroutine: Any, **keywords: Any) -> Any:
        return kit.task(coroutine, loop=loop, **keywords)

    with asyncio.Runner(loop_factory=kit.loop) as runner:
        if kit.task is not None:
            runner.get_loop().set_task_factory(factory)
        return runner.run(main)


def compare(make: Callable[[Kit], Any], steps: Steps, apply: Callable[..., None]) -> None:
    async def main(kit: Kit) -> list[object]:
        return await play(World(make(kit)), steps, apply)

    theirs = run(main(THEIRS), THEIRS)
    for kit in OURS:
        assert run(main(kit), kit) == theirs


@given(steps=programs(acquire=None, enter=None, release=None, look=None))
@settings(deadline=None, max_examples=150)
def test_lock(steps: Steps) -> None:
    def apply(world: World, operation: str) -> None:
        lock = world.subject

        async def enter() -> None:
            async with lock:
                world.note("inside")
                await asyncio.sleep(0)

        match operation:
            case "acquire":
                world.start(lock.acquire)
            case "enter":
                world.start(enter)
            case "release":
                world.attempt(lock.release)
            case "look":
                world.look("_waiters")

    compare(lambda kit: kit.locks.Lock(), steps, apply)


@given(
    kind=st.sampled_from(["Semaphore", "BoundedSemaphore"]),
    value=st.integers(0, 3),
    steps=programs(acquire=None, enter=None, release=None, look=None),
)
@settings(deadline=None, max_examples=200)
def test_semaphores(kind: str, value: int, steps: Steps) -> None:
    def apply(world: World, operation: str) -> None:
        semaphore = world.subject

        async def enter() -> None:
            async with semaphore:
                world.note("inside", semaphore._value)
                await asyncio.sleep(0)

        match operation:
            case "acquire":
                world.start(semaphore.acquire)
            case "enter":
                world.start(enter)
            case "release":
                world.attempt(semaphore.release)
            case "look":
                world.look("_waiters")
                world.note(semaphore._value, semaphore.locked())

    compare(lambda kit: getattr(kit.locks, kind)(value), steps, apply)


@given(steps=programs(wait=None, set=None, clear=None, look=None))
@settings(deadline=None, max_examples=100)
def test_event(steps: Steps) -> None:
    def apply(world: World, operation: str) -> None:
        event = world.subject
        match operation:
            case "wait":
                world.start(event.wait)
            case "set":
                world.attempt(event.set)
            case "clear":
                world.attempt(event.clear)
            case "look":
                world.look("_waiters")

    compare(lambda kit: kit.locks.Event(), steps, apply)


@given(
    steps=programs(
        wait=st.integers(0, 2),
        wait_for=st.integers(0, 3),
        acquire=None,
        release=None,
        notify=st.integers(-1, 3),
        notify_all=None,
        count=None,
        look=None,
    )
)
@settings(deadline=None, max_examples=250)
def test_condition(steps: Steps) -> None:
    def apply(world: World, operation: str, *args: int) -> None:
        condition = world.subject

        async def wait() -> object:
            async with condition:
                result = await condition.wait()
                for _ in range(args[0]):
                    await asyncio.sleep(0)
                return result

        async def wait_for() -> object:
            async with condition:
                return await condition.wait_for(lambda: world.trace.count("count") >= args[0])

        match operation:
            case "wait":
                world.start(wait)
            case "wait_for":
                world.start(wait_for)
            case "acquire":
                world.start(condition.acquire)
            case "release" | "notify_all":
                world.attempt(getattr(condition, operation))
            case "notify":
                world.attempt(condition.notify, *args)
            case "count":
                world.trace.append("count")
            case "look":
                world.look("_waiters")

    compare(lambda kit: kit.locks.Condition(), steps, apply)


@given(
    parties=st.integers(1, 4),
    steps=programs(wait=None, enter=None, reset=None, abort=None, look=None),
)
@settings(deadline=None, max_examples=250)
def test_barrier(parties: int, steps: Steps) -> None:
    def apply(world: World, operation: str) -> None:
        barrier = world.subject

        async def enter() -> int:
            async with barrier as index:
                await asyncio.sleep(0)
                return int(index)

        match operation:
            case "wait" | "reset" | "abort":
                world.start(getattr(barrier, operation))
            case "enter":
                world.start(enter)
            case "look":
                world.look()
                world.note(barrier.n_waiting, barrier.broken, barrier.parties, barrier._count)

    compare(lambda kit: kit.locks.Barrier(parties), steps, apply)


def opened(queue: Any) -> Any:
    """The queue after a program has asked for its container."""
    assert not queue._queue
    return queue


@given(
    kind=st.sampled_from(["Queue", "LifoQueue", "PriorityQueue"]),
    maxsize=st.integers(-1, 3),
    is_open=st.booleans(),
    steps=programs(
        put=st.integers(0, 9),
        get=None,
        put_nowait=st.integers(0, 9),
        get_nowait=None,
        join=None,
        task_done=None,
        shutdown=st.booleans(),
        look=None,
    ),
)
@settings(deadline=None, max_examples=300)
def test_queues(kind: str, maxsize: int, is_open: bool, steps: Steps) -> None:
    def apply(world: World, operation: str, *args: Any) -> None:
        queue = world.subject
        match operation:
            case "put":
                world.start(lambda: queue.put(*args))
            case "get" | "join":
                world.start(getattr(queue, operation))
            case "look":
                world.look("_getters", "_putters")
                world.note(queue.qsize(), queue.empty(), queue.full(), queue._unfinished_tasks)
            case _:
                world.attempt(getattr(queue, operation), *args)

    def make(kit: Kit) -> Any:
        queue = getattr(kit.queues, kind)(maxsize)
        return opened(queue) if is_open else queue

    compare(make, steps, apply)
