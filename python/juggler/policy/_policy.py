"""What all policies are: values that wrap calls, and are composed with ``|``."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from juggler.policy._clock import SECOND, Clock, Steps, TaskWaiter, Waiter, current
from juggler.policy._keys import PerKey

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")
_Entry = tuple["Gate", Clock, Any, Any, "asyncio.Timeout | None"]

_entered: ContextVar[tuple[_Entry, ...]] = ContextVar("juggler.policy.entered", default=())


def wraps(function: Callable[..., object]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """As `functools.wraps`, and marks that a policy is inside."""

    def finish(call: Callable[P, R]) -> Callable[P, R]:
        functools.update_wrapper(call, function)
        call._inside_policy = True  # type: ignore[attr-defined]
        return call

    return finish


class Policy:
    """How calls are made: made by `retry`, `rate` and the other functions here, and by ``|``.

    Called with a function, it returns one that makes its calls so, as decorators do; of a
    coroutine function it makes a coroutine function. A policy may be shared by threads and loops.
    """

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function or a coroutine function.

        Args:
            function: what is to be called so.

        Raises:
            TypeError: it is a generator function, whose call does not yet do anything; or this is
                a `timeout` and it is a plain function.
        """
        if not callable(function):
            raise TypeError(f"a policy decorates functions, not {function!r}")
        inner = function.func if isinstance(function, functools.partial) else function
        for called in (inner, type(inner).__call__):
            if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
                raise TypeError(f"{function!r} is a generator function: its call does nothing yet")
            if inspect.iscoroutinefunction(called):
                return self._wrap_async(function)  # type: ignore[arg-type,return-value]
        return self._wrap(function)

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a plain function once under this policy.

        Blocking: waits in this thread, as the function does.
        """
        return self._wrap(function)(*args, **kwargs)

    async def call_async(
        self, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call once what returns an awaitable, and await it, under this policy."""
        return await self._wrap_async(function)(*args, **kwargs)

    def __or__(self, inner: Policy) -> Policy:
        """This policy around another one."""
        if not isinstance(inner, Policy):
            return NotImplemented
        parts = (*self._parts(), *inner._parts())
        guards = tuple(part for part in parts if isinstance(part, Guard))
        return GuardChain(guards) if len(guards) == len(parts) else Chain(parts)

    def _parts(self) -> tuple[Policy, ...]:
        return (self,)

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        raise NotImplementedError

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        raise NotImplementedError


class Guard(Policy):
    """A policy around a single call, which is a context manager, too.

    It may be entered again while it is entered, and by many threads and tasks at the same time.
    """

    @overload
    def __or__(self, inner: Guard) -> Guard: ...
    @overload
    def __or__(self, inner: Policy) -> Policy: ...
    def __or__(self, inner: Policy) -> Policy:
        """This policy around another one."""
        return super().__or__(inner)

    def for_key(self, key: object) -> Guard:
        """This policy with the state of one key, for ``with`` and ``async with``.

        Args:
            key: what ``per_key`` would have returned for a call.
        """
        raise NotImplementedError

    def __enter__(self) -> None:
        """Begin: wait until the policy allows it."""
        raise NotImplementedError

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, with or without an exception."""
        raise NotImplementedError

    async def __aenter__(self) -> None:
        """Begin, in a coroutine."""
        raise NotImplementedError

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, in a coroutine."""
        raise NotImplementedError


MUST_WAIT = object()
"""What `Gate._enter` returns if the call may not begin yet."""


class Gate(Guard):
    """A guard that is entered and left, as each kind defines it by `_enter` and `_leave`."""

    _per_key: PerKey = None
    _key = 0

    def for_key(self, key: object) -> Self:
        """This policy with the state of one key, for ``with`` and ``async with``.

        Args:
            key: what ``per_key`` would have returned for a call.
        """
        if self._per_key is None:
            return self
        keyed = copy.copy(self)
        keyed._per_key, keyed._key = None, hash(key)
        return keyed

    def __enter__(self) -> None:
        """Begin: wait until the policy allows it."""
        self._push(self._begin(self._no_call()))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, with or without an exception."""
        self._end(self._pop(), exc)

    async def __aenter__(self) -> None:
        """Begin, in a coroutine."""
        self._push(await self._begin_async(self._no_call()))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, in a coroutine."""
        await self._end_async(self._pop(), exc)

    def _enter(self, clock: Clock, place: Any) -> Any:
        """Begin a call; what is returned goes to `_leave`, unless it is `MUST_WAIT`."""
        raise NotImplementedError

    def _wait(self, clock: Clock, place: Any, new_waiter: Callable[[], Waiter]) -> Steps[None]:
        """Wait until the call may begin, and begin it."""
        raise NotImplementedError

    def _leave(self, clock: Clock, place: Any, token: Any, error: BaseException | None) -> None:
        """The call has ended."""

    def _ends(self, token: Any) -> int | None:
        """When a coroutine inside is to be cancelled."""
        return None

    def _expired(self, token: Any) -> Exception:
        """The error for that."""
        raise NotImplementedError

    def _place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Which state a call concerns."""
        return self._key if self._per_key is None else hash(self._per_key(*args, **kwargs))

    def _no_call(self) -> Any:
        if self._per_key is not None:
            raise TypeError(f"{self!r} has a state for each key: enter its for_key(key)")
        return self._place((), {})

    def _push(self, entry: _Entry) -> None:
        _entered.set((*_entered.get(), entry))

    def _pop(self) -> _Entry:
        entries = _entered.get()
        for at in range(len(entries) - 1, -1, -1):
            if entries[at][0] is self:
                _entered.set(entries[:at] + entries[at + 1 :])
                return entries[at]
        raise RuntimeError(f"{self!r} was not entered in this thread or task")

    def _begin(self, place: Any) -> _Entry:
        clock = current()
        token = self._enter(clock, place)
        if token is MUST_WAIT:
            token = clock._walk(self._wait(clock, place, clock._new_thread_waiter))
        return self, clock, place, token, None

    def _end(self, entry: _Entry, error: BaseException | None) -> None:
        _, clock, place, token, _ = entry
        self._leave(clock, place, token, error)

    async def _begin_async(self, place: Any) -> _Entry:
        clock = current()
        token = self._enter(clock, place)
        if token is MUST_WAIT:
            token = await clock._walk_async(self._wait(clock, place, TaskWaiter))
        ends = self._ends(token)
        if ends is None:
            return self, clock, place, token, None
        import asyncio

        scope = asyncio.timeout((ends - clock.time_ns()) / SECOND)
        await scope.__aenter__()
        return self, clock, place, token, scope

    async def _end_async(self, entry: _Entry, error: BaseException | None) -> None:
        _, clock, place, token, scope = entry
        if scope is not None:
            try:
                await scope.__aexit__(type(error) if error else None, error, None)
            except TimeoutError as cancelled:
                late = self._expired(token)
                self._leave(clock, place, token, late)
                raise late from cancelled.__cause__
        self._leave(clock, place, token, error)

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            entry = self._begin(self._place(args, kwargs))
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self._end(entry, error)
                raise
            self._end(entry, None)
            return result

        return call

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            entry = await self._begin_async(self._place(args, kwargs))
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                await self._end_async(entry, error)
                raise
            await self._end_async(entry, None)
            return result

        return call


class GuardChain(Guard):
    """Guards around each other, the first one outermost."""

    def __init__(self, parts: tuple[Guard, ...]) -> None:
        self._guards = parts

    def __repr__(self) -> str:
        return " | ".join(map(repr, self._guards))

    def for_key(self, key: object) -> Guard:
        """This policy with the states of one key, for ``with`` and ``async with``.

        Args:
            key: what ``per_key`` would have returned for a call.
        """
        return GuardChain(tuple(part.for_key(key) for part in self._guards))

    def __enter__(self) -> None:
        """Begin: wait until all of them allow it."""
        with contextlib.ExitStack() as stack:
            for part in self._guards:
                stack.enter_context(part)
            stack.pop_all()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, with or without an exception."""
        stack = contextlib.ExitStack()
        for part in self._guards:
            stack.push(part)
        stack.__exit__(exc_type, exc, traceback)

    async def __aenter__(self) -> None:
        """Begin, in a coroutine."""
        async with contextlib.AsyncExitStack() as stack:
            for part in self._guards:
                await stack.enter_async_context(part)
            stack.pop_all()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, in a coroutine."""
        stack = contextlib.AsyncExitStack()
        for part in self._guards:
            stack.push_async_exit(part)
        await stack.__aexit__(exc_type, exc, traceback)

    def _parts(self) -> tuple[Policy, ...]:
        return self._guards

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        return Chain(self._guards)._wrap(function)

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        return Chain(self._guards)._wrap_async(function)


class Chain(Policy):
    """Policies around each other, the first one outermost."""

    def __init__(self, parts: tuple[Policy, ...]) -> None:
        self._policies = parts

    def __repr__(self) -> str:
        return " | ".join(map(repr, self._policies))

    def _parts(self) -> tuple[Policy, ...]:
        return self._policies

    def _wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        for policy in reversed(self._policies):
            function = policy._wrap(function)
        return function

    def _wrap_async(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        for policy in reversed(self._policies):
            function = policy._wrap_async(function)
        return function
