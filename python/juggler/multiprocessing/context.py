"""Contexts: stands in for ``multiprocessing.context``.

A context is a start method with the whole interface of the package. Ours are subclasses of the
standard library's, whose methods look for their classes in juggler's modules; ``zygote`` is new.
There are two default contexts: the standard library's, which keeps the interpreter's default
(`juggler.install` puts our contexts into its table), and `default_context` here, which is the
zygote's unless told otherwise.
"""

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
from typing import TYPE_CHECKING, Any

from juggler._juggler import OwnerDied

if TYPE_CHECKING:
    from collections.abc import Callable

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

# The methods that make an object of a class from another module of the package.
_FACTORIES = (
    "Array",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "Value",
)


def _here(method: "Callable[..., Any]") -> "Callable[..., Any]":
    """The standard library's method, whose ``from .queues import Queue`` means our package."""
    code: Any = method
    copy = types.FunctionType(code.__code__, globals(), code.__name__, code.__defaults__)
    copy.__kwdefaults__ = code.__kwdefaults__
    copy.__doc__ = code.__doc__
    copy.__qualname__ = f"_Context.{code.__name__}"
    return copy


class _Context(BaseContext):
    """What our contexts have in common: the classes, and the table of start methods."""

    OwnerDied = OwnerDied

    def get_context(self, method: "str | None" = None) -> "Any":
        if method is None:
            return self
        context = contexts.get(method)
        if context is None:
            raise ValueError(f"cannot find context for {method!r}")
        context._check_available()
        return context


for _name in _FACTORIES:
    setattr(_Context, _name, _here(getattr(BaseContext, _name)))


class _Child(BaseProcess):
    """A process whose child knows how it was started: its own children are by default, too."""

    _method: str
    # What the standard library's `_bootstrap` would look up in its own table.
    _start_method: Any = None

    def _bootstrap(self, parent_sentinel: "int | None" = None) -> int:
        _force_start_method(self._method)
        code: int = super()._bootstrap(parent_sentinel)  # type: ignore[misc]
        return code


class Process(_Child):
    """A process, started by the default context's method."""

    @staticmethod
    def _Popen(process_obj: "Any") -> "Any":  # noqa: N802
        context = default_context.get_context()
        process_obj._method = context._name
        return context.Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        default_context.get_context().Process._after_fork()


class ForkProcess(_Child, _stock.ForkProcess):
    """A process forked from this one."""

    _method = "fork"


class SpawnProcess(_Child, _stock.SpawnProcess):
    """A process in a new interpreter, which imports the main module."""

    _method = "spawn"


class ForkServerProcess(_Child, _stock.ForkServerProcess):
    """A process forked from the standard library's server."""

    _method = "forkserver"

    @staticmethod
    def _Popen(process_obj: "Any") -> "Any":  # noqa: N802
        from multiprocessing.popen_forkserver import Popen

        from juggler.multiprocessing import _forkserver

        _forkserver.prepare()
        return Popen(process_obj)


class ZygoteProcess(_Child):
    """A process forked from the zygote."""

    _method = "zygote"

    @staticmethod
    def _Popen(process_obj: "Any") -> "Any":  # noqa: N802
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

    def get_context(self, method: "str | None" = None) -> "Any":
        if method is None:
            return _stock.DefaultContext.get_context(self)
        return super().get_context(method)

    def get_all_start_methods(self) -> list[str]:
        """The names of the start methods, the default first."""
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
