"""Random programs behave alike with our `shield`, `as_completed`, `wait_for` and with the stdlib's.

A program is a list of steps: tasks begin to wait, futures end, somebody cancels; turns of the loop
pass in between. What is compared is everything that can be told apart: in which turn which task
goes on, with what result, what the futures say in the end, and what the exception handler is told.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juggler.asyncio
from juggler import _juggler

Steps = list[tuple[Any, ...]]

FUTURES = 5


@dataclass(frozen=True)
class Kit:
    """Whose waits are used, and on whose loop, tasks and futures."""

    waits: Any = juggler.asyncio
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    task: Any = None
    future: Any = None


THEIRS = Kit(asyncio)
OURS = [
    Kit(),
    Kit(task=_juggler.AsyncTask),
    Kit(future=_juggler.AsyncFuture),
    Kit(loop=juggler.asyncio.new_event_loop),
    Kit(loop=lambda: juggler.asyncio.new_event_loop(native_tasks=False)),
    Kit(loop=juggler.asyncio.new_event_loop, future=asyncio.futures.Future),
]


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Each run collects what it has left; the rest of the process takes no part in that."""
    gc.freeze()
    yield
    gc.unfreeze()


class World:
    """One run of a program: its tasks and futures, and what happened."""

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.loop = asyncio.get_running_loop()
        make = kit.future or (lambda loop: loop.create_future())
        self.futures: list[asyncio.Future[Any]] = [make(loop=self.loop) for _ in range(FUTURES)]
        self.outers: list[asyncio.Future[Any]] = []
        self.iterators: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.trace: list[object] = []
        self.unretrieved: list[tuple[str, str]] = []
        self.turn = 0
        self.loop.set_exception_handler(self.told)

    def note(self, *event: object) -> None:
        self.trace.append((self.turn, *event))

    def told(self, loop: object, context: dict[str, Any]) -> None:
        error, message = context.get("exception"), context["message"].split(" of ")[0]
        if "never retrieved" in message:  # told when the future is freed, which may be earlier
            self.unretrieved.append((message, repr(error)))
        else:
            self.note("told", message.split()[:3], repr(error))

    def attempt(self, call: Callable[..., Any], *args: Any) -> None:
        """Make a call that does not wait."""
        try:
            call(*args)
        except Exception as error:
            self.note("raised", type(error), str(error))

    def start(self, awaitable: Callable[[], Awaitable[Any]]) -> None:
        """Have a task wait."""
        number = len(self.tasks)

        async def body() -> None:
            try:
                self.note(number, "got", await awaitable())
            except BaseException as error:
                causes = type(error.__cause__), type(error.__context__)
                self.note(number, type(error), str(error), *causes)
                raise

        self.tasks.append(asyncio.ensure_future(body()))

    async def child(self, number: int, stubborn: bool = False) -> object:
        """What is waited for, which awaits one of the futures."""
        self.note("child begins", number)
        try:
            return await self.futures[number]
        except asyncio.CancelledError:
            self.note("child is cancelled", number)
            if stubborn:
                await asyncio.sleep(0)
                return "stubborn"
            raise

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.turn += 1

    async def end(self) -> None:
        """End what has not ended, and tell what became of it."""
        self.cancel(self.tasks)
        await self.turns(6)
        self.cancel(self.futures)
        await self.turns(6)
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.trace += [(future.done(), future.cancelled()) for future in self.futures]
        self.trace += [(outer.done(), outer.cancelled()) for outer in self.outers]
        for held in (self.futures, self.outers, self.tasks, self.iterators):
            held.clear()
        gc.collect()

    def cancel(self, futures: Iterable[asyncio.Future[Any]]) -> None:
        for future in futures:
            future.cancel()


def apply_to_futures(world: World, operation: str, number: int) -> None:
    future = world.futures[number]
    match operation:
        case "finish" if not future.done():
            future.set_result(number)
        case "fail" if not future.done():
            future.set_exception(ValueError(number))
        case "stop":
            future.cancel(f"message {number}")


async def play(kit: Kit, steps: Steps, apply: Callable[..., None]) -> list[object]:
    world = World(kit)
    for operation, *args in steps:
        match operation:
            case "turn":
                await world.turns(1)
            case "cancel" if world.tasks:
                world.tasks[args[0] % len(world.tasks)].cancel(f"cancelled {args[0]}")
            case "cancel":
                pass
            case "finish" | "fail" | "stop":
                apply_to_futures(world, operation, *args)
            case _:
                apply(world, operation, *args)
    await world.turns(4)
    await world.end()
    return [*world.trace, *sorted(world.unretrieved)]


def run(kit: Kit, steps: Steps, apply: Callable[..., None]) -> list[object]:
    def factory(loop: Any, coroutine: Any, **keywords: Any) -> Any:
        return kit.task(coroutine, loop=loop, **keywords)

    with asyncio.Runner(loop_factory=kit.loop) as runner:
        if kit.task is not None:
            runner.get_loop().set_task_factory(factory)
        return runner.run(play(kit, steps, apply))


def compare(steps: Steps, apply: Callable[..., None]) -> None:
    theirs = run(THEIRS, steps, apply)
    for kit in OURS:
        assert run(kit, steps, apply) == theirs


number = st.integers(0, FUTURES - 1)


def programs(**operations: st.SearchStrategy[Any] | None) -> st.SearchStrategy[Steps]:
    """Lists of steps, each an operation and what it takes."""
    common: dict[str, Any] = {"turn": None, "cancel": st.integers(0, 7)}
    common |= dict.fromkeys(("finish", "fail", "stop"), number)
    steps = [
        st.tuples(st.just(name)) if argument is None else st.tuples(st.just(name), argument)
        for name, argument in (common | operations).items()
    ]
    return st.lists(st.one_of(*steps), max_size=30)


@given(
    steps=programs(
        shield=number,
        shield_child=number,
        shield_shield=number,
        hold=number,
        cancel_outer=st.integers(0, 3),
        finish_outer=st.integers(0, 3),
        fail_outer=st.integers(0, 3),
        await_outer=st.integers(0, 3),
    )
)
@settings(deadline=None, max_examples=100)
def test_shield(steps: Steps) -> None:
    def apply(world: World, operation: str, number: int) -> None:
        shield = world.kit.waits.shield
        match operation:
            case "shield":
                world.start(lambda: shield(world.futures[number]))
            case "shield_child":
                world.start(lambda: shield(world.child(number)))
            case "shield_shield":
                world.start(lambda: shield(shield(world.futures[number])))
            case "hold":
                world.outers.append(shield(world.futures[number]))
            case _ if len(world.outers) <= number:
                pass
            case "cancel_outer":
                world.outers[number].cancel(f"outer {number}")
            case "finish_outer":
                world.attempt(world.outers[number].set_result, "from outside")
            case "fail_outer":
                world.attempt(world.outers[number].set_exception, OSError("from outside"))
            case "await_outer":
                world.start(lambda: world.outers[number])

    compare(steps, apply)


@pytest.mark.parametrize("kit", OURS)
def test_what_is_done_is_not_shielded(kit: Kit) -> None:
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()
        done.set_result(1)
        assert juggler.asyncio.shield(done) is done
        with pytest.raises(TypeError, match="a coroutine or an awaitable is required"):
            juggler.asyncio.shield(1)  # type: ignore[arg-type]
        other = asyncio.SelectorEventLoop()
        future = other.create_future()
        outer = juggler.asyncio.shield(future)
        assert outer.get_loop() is other
        outer.cancel()
        other.close()

    with asyncio.Runner(loop_factory=kit.loop) as runner:
        runner.run(main())


# A task that is cancelled at once does not await what it was given.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@given(
    steps=programs(
        begin=st.tuples(st.lists(number), st.sampled_from([None, 0, -1])),
        begin_children=st.tuples(st.lists(number), st.sampled_from([None, 0, -1])),
        next=st.integers(0, 2),
        drop=st.integers(0, 2),
        loop=st.integers(0, 2),
    )
)
@settings(deadline=None, max_examples=100)
def test_as_completed(steps: Steps) -> None:
    def known(world: World, future: Any) -> object:
        """Which future it is; of those that were made of coroutines, that it is one."""
        return world.futures.index(future) if future in world.futures else "made"

    def awaitables(world: World, numbers: list[int], of_children: bool) -> list[Any]:
        """Such as tell their order: of those that end in the same turn, a set decides on it."""
        if of_children:
            return [world.child(number) for number in numbers[:1]]
        futures = [world.futures[number] for number in numbers]
        done = [future for future in futures if future.done()]
        return [future for future in futures if not future.done()] + done[:1]

    async def iterate(world: World, iterator: Any) -> object:
        async for future in iterator:
            world.note("next", known(world, future), future.done(), future.cancelled())
        return "all"

    def apply(world: World, operation: str, argument: Any) -> None:
        as_completed = world.kit.waits.as_completed
        match operation:
            case "begin" | "begin_children":
                numbers, timeout = argument
                waited = awaitables(world, numbers, operation == "begin_children")
                world.iterators.append(as_completed(iter(waited), timeout=timeout))
                if sys.version_info < (3, 13):
                    # It begins now, not in another step, in which more may be done.
                    one = next(world.iterators[-1], None)
                    world.note("has one", one is not None)
                    if one is not None:
                        world.start(lambda: one)
            case _ if len(world.iterators) <= argument:
                pass
            case "next" | "drop":
                one = next(world.iterators[argument], None)
                world.note("has next", one is not None)
                if one is not None and operation == "next":
                    world.start(lambda: one)
                elif one is not None:
                    one.close()
            case "loop" if sys.version_info >= (3, 13):
                world.start(lambda: iterate(world, world.iterators[argument]))

    compare(steps, apply)


TIMEOUTS = st.sampled_from([None, 0, -1, 0.005, 60])


@given(
    steps=programs(
        wait_future=st.tuples(number, TIMEOUTS),
        wait_child=st.tuples(number, TIMEOUTS),
        wait_stubborn=st.tuples(number, TIMEOUTS),
        wait_awaitable=st.tuples(number, TIMEOUTS),
        wait_shielded=st.tuples(number, TIMEOUTS),
        wait_nested=st.tuples(number, TIMEOUTS),
        wait_nothing=TIMEOUTS,
        sleep=None,
    )
)
@settings(deadline=None, max_examples=100)
# A task that is cancelled at once does not await what it was given.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_wait_for(steps: Steps) -> None:
    class Awaitable:
        def __init__(self, future: asyncio.Future[Any]) -> None:
            self.future = future

        def __await__(self) -> Any:
            return self.future.__await__()

    def apply(world: World, operation: str, argument: Any = None) -> None:
        wait_for, futures = world.kit.waits.wait_for, world.futures
        number, timeout = argument if isinstance(argument, tuple) else (0, argument)
        match operation:
            case "wait_future":
                world.start(lambda: wait_for(futures[number], timeout))
            case "wait_child":
                world.start(lambda: wait_for(world.child(number), timeout))
            case "wait_stubborn":
                world.start(lambda: wait_for(world.child(number, stubborn=True), timeout))
            case "wait_awaitable":
                world.start(lambda: wait_for(Awaitable(futures[number]), timeout))
            case "wait_shielded":
                world.start(lambda: wait_for(world.kit.waits.shield(futures[number]), timeout))
            case "wait_nested":
                inner = lambda: wait_for(world.child(number, stubborn=True), timeout)  # noqa: E731
                world.start(lambda: wait_for(inner(), 60))
            case "wait_nothing":
                world.start(lambda: wait_for(number, timeout))
            case "sleep":
                time.sleep(0.01)

    compare(steps, apply)
