"""How a program comes to an event loop: `run`, `Runner`, the policy, `install`."""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import events

from juggler import _substitution
from juggler.asyncio import tasks
from juggler.asyncio._event_loop import Base, EventLoop
from juggler.asyncio._named_loops import EventLoopPolicy, StockPolicy, get_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any, TypeVar

    _T = TypeVar("_T")

# Underscored since policies are deprecated (3.14): the public name warns.
_set_policy: Callable[[Any], None] = getattr(
    events, f"{'_' if sys.version_info >= (3, 14) else ''}set_event_loop_policy"
)

# Not by their public names, which `install` gives to others.
_StockFuture: Any = asyncio.futures._CFuture  # type: ignore[attr-defined]
_StockTask: Any = asyncio.tasks._CTask  # type: ignore[attr-defined]


class _StockTasks(EventLoop):
    """A loop whose tasks and futures are the standard library's, also after `install`."""

    def create_future(self) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = _StockFuture(loop=self)
        return future

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        if self.get_task_factory() is not None:
            return asyncio.BaseEventLoop.create_task(self, coro, **kwargs)
        self._check_closed()
        task = _StockTask(coro, loop=self, **kwargs)
        if task._source_traceback:
            del task._source_traceback[-1]
        made: asyncio.Task[Any] = task
        return made

    def set_task_factory(self, factory: Any) -> None:
        eager = factory is tasks.eager_task_factory and tasks.stdlib_eager_task_factory
        Base.set_task_factory(self, eager or factory)


def new_event_loop(*, native_tasks: bool = True, checks: bool | None = None) -> EventLoop:
    """Make an event loop of juggler's, whatever the policy.

    Args:
        native_tasks: Whether what `create_task` and `create_future` of the loop make is juggler's;
            else it is the standard library's. Both kinds run on the loop, and await each other.
        checks: Whether the loop tells of forgotten awaits and swallowed cancellations; see
            `EventLoop`.
    """
    return (EventLoop if native_tasks else _StockTasks)(checks=checks)


class Runner(asyncio.Runner):  # type: ignore[misc]
    """Runs several coroutines, one after the other, in one event loop.

    Stands in for `asyncio.Runner`, and is a subclass of it.

    Args:
        debug: whether the loop is in debug mode; None leaves that to the environment.
        loop_factory: what makes the loop, by default `new_event_loop`.
        native_tasks: as for `new_event_loop`; for a loop that `loop_factory` does not make.
        checks: the same.
    """

    def __init__(
        self,
        *,
        debug: bool | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        native_tasks: bool = True,
        checks: bool | None = None,
    ) -> None:
        def make_current() -> EventLoop:
            """A loop that is the thread's current one as long as this runner is open."""
            loop = new_event_loop(native_tasks=native_tasks, checks=checks)
            asyncio.set_event_loop(loop)
            self._set_event_loop = True  # read by `close`
            return loop

        super().__init__(debug=debug, loop_factory=loop_factory or make_current)


def run(
    main: Awaitable[_T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    native_tasks: bool = True,
    checks: bool | None = None,
) -> _T:
    """Run a coroutine in an event loop of its own, and return its result.

    Stands in for `asyncio.run`. Cancels what is left running, finishes asynchronous generators,
    and shuts the default executor down. Ctrl-C cancels `main` and raises `KeyboardInterrupt`.

    Args:
        main: what to run.
        debug: whether the loop is in debug mode; None leaves that to the environment.
        loop_factory: what makes the loop, by default `new_event_loop`; on every version.
        native_tasks: as for `new_event_loop`; for a loop that `loop_factory` does not make.
        checks: the same.

    Raises:
        RuntimeError: this thread runs an event loop already.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with Runner(
        debug=debug, loop_factory=loop_factory, native_tasks=native_tasks, checks=checks
    ) as runner:
        return runner.run(main)  # type: ignore[arg-type, unused-ignore]


def get_event_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop, or the thread's current one.

    Stands in for `asyncio.get_event_loop`. Where the standard library makes a loop for the main
    thread, which has none (up to 3.13, with a warning), it is one of juggler's.
    """
    loop = asyncio._get_running_loop()
    if loop is not None:
        return loop
    policy = get_policy()
    if type(policy) is StockPolicy and hasattr(policy._local, "_set_called"):
        is_unset = policy._local._loop is None and not policy._local._set_called
        if is_unset and threading.current_thread() is threading.main_thread():
            policy.set_event_loop(new_event_loop())
    found: asyncio.AbstractEventLoop = policy.get_event_loop()
    return found


# The policy of the program's own that `install` has replaced, in a list while it is.
_replaced: list[Any] = []


def install() -> None:
    """Put juggler in place of the standard library's ``asyncio``, and of nothing else.

    From then on, ``asyncio.run(main())`` runs on juggler, and ``asyncio.Task``, ``asyncio.Lock``,
    ``asyncio.sleep`` and their like are juggler's, in every module that has them. It does for this
    module what `juggler.install` does for all, and replaces a policy of the program's own as well.
    Loops and other objects that exist stay what they are. It is idempotent and does not nest: one
    `uninstall` undoes any number of calls.
    """
    _substitution.put_in_place(_substitution.ASYNCIO)
    policy = get_policy()
    if not _replaced and not isinstance(policy, EventLoopPolicy):
        _replaced.append(policy)
        _set_policy(EventLoopPolicy())


def uninstall() -> None:
    """Undo `install`; a policy that the program has set since stays."""
    if _replaced:
        before = _replaced.pop()
        if type(get_policy()) is EventLoopPolicy:
            _set_policy(before)
    _substitution.take_out(_substitution.ASYNCIO)
