"""Where the parts of a map run. A model takes items and gives a future of what `part.run` has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Executor
from time import perf_counter
from typing import TYPE_CHECKING, Any

from juggler import _thread_pool, futures
from juggler._map import choosing, part
from juggler._map.part import Awaited, Keywords, Ran

if TYPE_CHECKING:
    from juggler._map.options import Options
    from juggler.policy import Policy
    from juggler.policy._clock import Stop

THREADS = 32
"""How many calls are made at once by default where they cost a thread or a task each."""


class Call:
    """What one call of a map is.

    Attributes:
        function: what to call; a coroutine function if ``is_async``.
        star: whether an item is all the arguments.
        stop: whether a part ends with its first failure.
        policy: what is around each call, if anything is.
        timeout: seconds for one attempt.
    """

    def __init__(self, options: Options) -> None:
        self.function = options.function
        self.is_async = options.is_async
        self.star = options.star is True
        self.keywords = options.star == "**"
        self.stop = options.errors == "raise"
        self.policy = options.policy
        self.timeout = options.timeout
        self._ends: Stop | None = None

    def bare(self) -> Callable[..., Any]:
        """The call of an item, without policies, where there is no event loop."""
        function = Awaited(self.function) if self.is_async else self.function
        return Keywords(function) if self.keywords else function

    def here(self) -> Callable[..., Any]:
        """The call of an item, under its policies, in a thread of this process."""
        if self.is_async:
            function: Callable[..., Any] = Awaited(self.coroutine())
        elif self.timeout is not None:
            raise TypeError(
                f"timeout={self.timeout!r} can't stop a plain function in a thread, for no thread "
                'can end another: use on="processes", or deadline= and let the function ask for '
                "juggler.policy.remaining()"
            )
        else:
            return self.under(self.policy, self.function)
        return Keywords(function) if self.keywords else function

    def under(self, policy: Policy | None, function: Callable[..., Any]) -> Callable[..., Any]:
        """The call of an item by a plain function, under policies that `end` can stop."""
        if policy is not None:
            from juggler.policy._clock import Stop

            stop = self._ends = self._ends or Stop()

            def unless_stopped(*args: Any, **kwargs: Any) -> Any:
                stop.check()
                return function(*args, **kwargs)

            inside = policy(unless_stopped)

            def guarded(*args: Any, **kwargs: Any) -> Any:
                with stop.over():
                    return inside(*args, **kwargs)

            return Keywords(guarded) if self.keywords else guarded
        return Keywords(function) if self.keywords else function

    def coroutine(self) -> Callable[..., Any]:
        """The coroutine function, under its policies."""
        policy = self.policy
        if self.timeout is not None:
            from juggler.policy import timeout

            policy = timeout(self.timeout) if policy is None else policy | timeout(self.timeout)
        return self.function if policy is None else policy(self.function)

    def awaits(self) -> None:
        """The function turned out to make coroutines: from now on they are awaited."""
        function = self.function

        @functools.wraps(function)
        async def awaiting(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        self.function, self.is_async = awaiting, True

    def end(self) -> None:
        """Have no more calls begin, and no policy wait."""
        if self._ends is not None:
            self._ends.stop()


class Model:
    """Where parts run.

    Attributes:
        name: as in ``on=``.
        width: how many calls it makes at once.
        chunks: whether calls may go together.
    """

    name = ""
    chunks = True
    width: int

    def submit(self, items: list[Any]) -> Any:
        """The future of the items' outcomes."""
        raise NotImplementedError

    def outcome(self, future: Any) -> Ran:
        """What `part.run` returned for a future that did not fail."""
        result: Ran = future.result()
        return result

    def close(self) -> None:
        """No more calls come from this map, and whoever began some does not wait for them."""


class Threads(Model):
    """Calls in a pool of threads."""

    name = "threads"

    def __init__(self, call: Call, pool: futures.ThreadPoolExecutor, width: int) -> None:
        self.width = width
        self._pool = pool
        self._call = call
        self._function = call.here()

    def submit(self, items: list[Any]) -> Any:
        """The future of the items' outcomes."""
        call = self._call
        return submit(self._pool, part.run, self._function, items, call.star, call.stop)


class Watched(Threads):
    """One call after the other, under measurement."""

    chunks = False

    def __init__(self, call: Call, pool: futures.ThreadPoolExecutor, probe: Any) -> None:
        super().__init__(call, pool, 1)
        self._probe = probe

    def submit(self, items: list[Any]) -> Any:
        """The future of the items' outcomes."""
        call, function = self._call, self._function
        return submit(
            self._pool, part.run_watched, self._probe, function, items, call.star, call.stop
        )


class Processes(Model):
    """Calls in a pool of processes, without policies."""

    name = "processes"

    def __init__(self, call: Call, pool: futures.ProcessPoolExecutor, width: int) -> None:
        from juggler._processes import pickling

        self.width = width
        self._pool = pool
        self._call = call
        define = pool._engine.define_main
        # Once for all calls, with everything in it.
        self._made = perf_counter()
        self._is_new = not pool._staff.desks
        self._function, _ = pickling.dumps(
            call.bare(), threshold=1 << 62, define=define, what="fn", root="fn"
        )

    def submit(self, items: list[Any]) -> Any:
        """The future of the items' outcomes."""
        call = self._call
        return self._pool.submit(part.run_away, self._function, items, call.star, call.stop)

    def outcome(self, future: Any) -> Ran:
        """What `part.run` returned there."""
        outcomes, took, failed = part.unpack(future.result())
        if self._is_new:
            self._is_new = False
            choosing.START[0] = max(0.0, perf_counter() - self._made - took / 1e9)
        return outcomes, took, failed


class Away(Model):
    """Calls elsewhere, for each of which a thread waits here, under its policies."""

    chunks = False

    def __init__(
        self,
        name: str,
        call: Call,
        threads: futures.ThreadPoolExecutor,
        there: Executor,
        width: int,
    ) -> None:
        self.name = name
        self.width = width
        self._threads = threads
        self._there = there
        self._call = call
        function = Awaited(call.function) if call.is_async else call.function

        def away(*args: Any, **kwargs: Any) -> Any:
            future = there.submit(function, *args, **kwargs)
            try:
                return future.result()
            except BaseException:
                future.cancel()
                raise

        self._function = call.under(call.policy, away)

    def submit(self, items: list[Any]) -> Any:
        """The future of the items' outcomes."""
        call = self._call
        return submit(self._threads, part.run, self._function, items, call.star, call.stop)


class Foreign(Model):
    """Calls in an executor of somebody else's, one by one."""

    chunks = False

    def __init__(self, call: Call, executor: Any, width: int) -> None:
        self.name = type(executor).__name__
        self.width = width
        self._executor = executor
        self._function = call.bare()
        self._star = call.star

    def submit(self, items: list[Any]) -> Any:
        """The future of the item's result."""
        return self._executor.submit(self._function, *(items[0] if self._star else items))

    def outcome(self, future: Any) -> Ran:
        """The result, as `part.run` would have it."""
        return [future.result()], 0, False


class Loop(Model):
    """Coroutines in an event loop: that of the thread that iterates, or one in a thread."""

    name = "loop"
    chunks = False

    def __init__(self, call: Call, thread: LoopThread | None, width: int) -> None:
        self.width = width
        self._function = call.coroutine()
        self._star = call.star
        self._keywords = call.keywords
        self._thread = thread
        self._loop = asyncio.get_running_loop() if thread is None else thread.loop
        self._waiting: deque[tuple[futures.Future[Any], Any]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, items: list[Any]) -> Any:
        """The future of the item's outcome."""
        future: futures.Future[Any] = futures.Future()
        if self._thread is None:
            self._begin(future, items[0])
        else:
            self._loop.call_soon_threadsafe(self._begin, future, items[0])
        return future

    def _begin(self, future: futures.Future[Any], item: Any) -> None:
        if len(self._tasks) >= self.width:
            self._waiting.append((future, item))
        elif future.set_running_or_notify_cancel():
            task = self._loop.create_task(self._make(future, item))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        while self._waiting and len(self._tasks) < self.width:
            self._begin(*self._waiting.popleft())

    async def _make(self, future: futures.Future[Any], item: Any) -> None:
        try:
            if self._keywords:
                result = await self._function(**item)
            elif self._star:
                result = await self._function(*item)
            else:
                result = await self._function(item)
        except BaseException as error:
            # Also what ends programs: it is raised where the results are taken.
            future.set_exception(error)
        else:
            future.set_result(([result], 0, False))

    def close(self) -> None:
        """Cancel the tasks."""
        if self._thread is None:
            self._cancel()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()

    async def ended(self) -> None:
        """Wait until the tasks of this loop have ended."""
        if self._thread is None and self._tasks:
            await asyncio.wait(self._tasks)


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str = "juggler-map-loop") -> None:
        self._running = threading.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._at_once = False
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()
        self._running.wait()

    def _run(self) -> None:
        from juggler import asyncio as native

        native.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._running.set()
        await self._end.wait()
        while self._calls:
            if self._at_once:
                for task in self._calls:
                    task.cancel()
            await asyncio.wait(self._calls)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Start a coroutine there; its future. It is cancelled when the loop ends."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Start a coroutine there, for whose end the loop's end waits; its future."""
        return self.start(self._call(coroutine))

    async def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)
        try:
            return await coroutine
        finally:
            self._calls.discard(task)

    def close(self, wait: bool, at_once: bool = False) -> None:
        """End the loop, after its calls, or, if `at_once`, in the middle of them."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._close, at_once)
        if wait and threading.current_thread() is not self.thread:
            self.thread.join()

    def _close(self, at_once: bool) -> None:
        self._end.set()
        self._at_once |= at_once
        for task in self._calls if at_once else ():
            task.cancel()


def submit(pool: futures.ThreadPoolExecutor, function: Callable[..., Any], *args: Any) -> Any:
    """The future of a call, whose thread need not be waited for at exit."""
    _thread_pool.starting.daemons = True
    try:
        return pool.submit(function, *args)
    finally:
        _thread_pool.starting.daemons = False


def failure(future: Any) -> BaseException | None:
    """What a future that is done has failed with."""
    if future.cancelled():
        return CancelledError()
    error: BaseException | None = future.exception()
    return error
