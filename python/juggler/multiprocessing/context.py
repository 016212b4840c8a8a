"""Contexts: stands in for ``multiprocessing.context``.

A context is a start method with the whole interface of the package. Ours are subclasses of the
standard library's, whose methods look for their classes in juggler's modules; ``zygote`` is new.
There are two default contexts: the standard library's, which keeps the interpreter's default
(`juggler.install` puts our contexts into its table), and `default_context` here, which is the
zygote's unless told otherwise.
"""

from __future__ import annotations

import types
from multiprocessing import context as _stock
from multiprocessing.context import (  # type: ignore[attr-defined]  # noqa: F401
    AuthenticationError,
    BaseContext,
    BufferTooShort,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    reduction,
    set_spawning_popen,
)
from multiprocessing.process import BaseProcess

from juggler._juggler import OwnerDied

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What `juggler.install` puts in the standard library's module. Not the default context and its
# process class: the program's own stay, and find these.
__all__ = [
    "ForkContext",
    "ForkProcess",
    "ForkServerContext",
    "ForkServerProcess",
    "SpawnContext",
    "SpawnProcess",
    "ZygoteContext",
    "ZygoteProcess",
]

# The methods that make something from another module of the package, and what that is called there.
_FACTORIES = {
    "Array": ("Make an array in shared memory with a lock", "sharedctypes"),
    "Barrier": ("Make a barrier", "synchronize"),
    "BoundedSemaphore": ("Make a bounded semaphore", "synchronize"),
    "Condition": ("Make a condition", "synchronize"),
    "Event": ("Make an event", "synchronize"),
    "JoinableQueue": ("Make a queue that knows which items are done", "queues"),
    "Lock": ("Make a lock", "synchronize"),
    "Manager": ("Start a manager of shared objects, a `SyncManager`", "managers"),
    "Pipe": ("Make the two ends of a pipe", "connection"),
    "Pool": ("Make a pool whose workers this context starts", "pool"),
    "Queue": ("Make a queue", "queues"),
    "RLock": ("Make a reentrant lock", "synchronize"),
    "RawArray": ("Make an array in shared memory without a lock", "sharedctypes"),
    "RawValue": ("Make a value in shared memory without a lock", "sharedctypes"),
    "Semaphore": ("Make a semaphore", "synchronize"),
    "SimpleQueue": ("Make a queue without a bound", "queues"),
    "Value": ("Make a value in shared memory with a lock", "sharedctypes"),
}


def _here(method: Callable[..., Any], purpose: str, module: str) -> Callable[..., Any]:
    """The standard library's method, whose ``from .queues import Queue`` means our package."""
    code: Any = method
    name = code.__name__
    copy = types.FunctionType(code.__code__, globals(), name, code.__defaults__)
    copy.__kwdefaults__ = code.__kwdefaults__
    where = f"juggler.multiprocessing.{module}"
    copy.__doc__ = f"{purpose}; as `multiprocessing.{name}`.\n\nMore: `{where}`."
    copy.__qualname__ = f"_Context.{name}"
    return copy


class _Context(BaseContext):
    """What our contexts have in common: the classes, and the table of start methods."""

    OwnerDied = OwnerDied

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; this one if none is named.

        Stands in for `multiprocessing.get_context`, and knows ``"zygote"`` besides.

        Args:
            method: ``"zygote"``, ``"fork"``, ``"spawn"`` or ``"forkserver"``.

        Raises:
            ValueError: there is no such start method.
        """
        if method is None:
            return self
        context = contexts.get(method)
        if context is None:
            raise ValueError(f"cannot find context for {method!r}; there are {', '.join(contexts)}")
        context._check_available()
        return context


for _name, _what in _FACTORIES.items():
    setattr(_Context, _name, _here(getattr(BaseContext, _name), *_what))


class _Child(BaseProcess):
    """A process whose child knows how it was started: its own children are by default, too."""

    _method: str
    # What the standard library's `_bootstrap` would look up in its own table.
    _start_method: Any = None

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        _force_start_method(self._method)
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return code


class Process(_Child):
    """A process that calls a function; started by the method of the default context.

    Stands in for `multiprocessing.Process`: its methods and attributes (`start`, `run`, `join`,
    `is_alive`, `terminate`, `kill`, `close`; `name`, `daemon`, `pid`, `exitcode`, `sentinel`,
    `authkey`) are the standard library's.

    Blocking: `start` returns when the child exists, not when it runs; `join` waits without the GIL,
    at most ``timeout`` seconds on the monotonic clock, and signal handlers run meanwhile.
    `sentinel` is a descriptor that becomes readable when the process ends, for
    `multiprocessing.connection.wait`. Fork: a forked child can't join its parent's children.
    Signals: with the start method ``fork`` a child has its parent's handlers, otherwise Python's
    own; Ctrl-C at a terminal reaches parent and children alike.

    With the start method ``zygote`` the function and its arguments may be lambdas, closures and
    what ``__main__`` defines, and the process is killed when its parent dies.

    Args:
        group: None; there for the sake of `threading.Thread`.
        target: what `run` calls.
        name: for messages; by default ``Process-N``.
        args: the positional arguments of the call.
        kwargs: its named arguments.
        daemon: whether the process is ended when its parent ends; by default as its parent is.

    Raises:
        AssertionError: by `start`: the process was started already, or is another process's child.
        PicklingError: by `start`: an argument can't travel. Not with ``fork``.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        context = default_context.get_context()
        process_obj._method = context._name
        return context.Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        default_context.get_context().Process._after_fork()


class ForkProcess(_Child, _stock.ForkProcess):
    """A process forked from this one."""

    _method = "fork"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        from juggler.multiprocessing.popen_fork import Popen

        return Popen(process_obj)


class SpawnProcess(_Child, _stock.SpawnProcess):
    """A process in a new interpreter, which imports the main module."""

    _method = "spawn"


class ForkServerProcess(_Child, _stock.ForkServerProcess):
    """A process forked from the standard library's server."""

    _method = "forkserver"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        from juggler.multiprocessing import _forkserver

        return _forkserver.popen(process_obj)


class ZygoteProcess(_Child):
    """A process forked from the zygote."""

    _method = "zygote"

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        from juggler.multiprocessing.popen_zygote import Popen

        return Popen(process_obj)


class ForkContext(_Context, _stock.ForkContext):
    """``get_context("fork")``."""

    Process = ForkProcess


class SpawnContext(_Context, _stock.SpawnContext):
    """``get_context("spawn")``."""

    Process = SpawnProcess


class ForkServerContext(_Context, _stock.ForkServerContext):
    """``get_context("forkserver")``."""

    Process = ForkServerProcess


class ZygoteContext(_Context):
    """``get_context("zygote")``."""

    _name = "zygote"
    Process = ZygoteProcess


class DefaultContext(_Context, _stock.DefaultContext):
    """The package's own interface: a context whose start method can be chosen once."""

    Process = Process  # type: ignore[assignment]

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method; of the default one if none is named.

        Stands in for `multiprocessing.get_context`, and knows ``"zygote"`` besides. Without a name
        the default becomes final, as there: `set_start_method` raises `RuntimeError` afterwards.

        Args:
            method: ``"zygote"``, ``"fork"``, ``"spawn"`` or ``"forkserver"``.

        Raises:
            ValueError: there is no such start method.
        """
        if method is None:
            return _stock.DefaultContext.get_context(self)
        return super().get_context(method)

    def get_all_start_methods(self) -> list[str]:
        """The names of the start methods, juggler's default ``"zygote"`` first.

        Stands in for `multiprocessing.get_all_start_methods`.
        """
        return list(contexts)


contexts: dict[str, Any] = {
    "zygote": ZygoteContext(),
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
default_context: Any = DefaultContext(contexts["zygote"])


def _force_start_method(method: str) -> None:
    """Choose the start method of a child that has just begun, for both default contexts."""
    default_context._actual_context = contexts[method]
    stock: Any = _stock
    if method in stock._concrete_contexts:  # the zygote is there where juggler is installed
        stock._force_start_method(method)
