"""Functions and classes that the receiver can't import, sent by value.

cloudpickle knows how to take a function or a class apart; what is added here is ``__main__``.  The
receiver did not run it (no ``if __name__ == "__main__"`` is needed), so it gets a mirror: a message
refers to what stands in ``__main__`` by name, as pickle does, and begins with the **definitions**
of these names, and of all the names that they use.  The receiver puts them into its own
``__main__``, each when it first comes and when it changed.  Therefore

* a function finds its globals in one place, whichever message brought it: what an initializer set
  there is there for the tasks, and a definition that did not change does not overwrite it;
* a class is one object in each process, and an instance that comes back is one of the sender's own
  class, for it names the class only.

Functions and classes are taken apart once, other globals for each message, as they may change.
A process that has a name of its own in ``__main__`` (the sender itself, a forked child) keeps it.
"""

import functools
import io
import pickle
import sys
import types
import weakref
from collections import ChainMap
from collections.abc import Callable
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any, ClassVar, NamedTuple

import cloudpickle  # type: ignore[import-untyped]

from juggler._processes.culprit import explain
from juggler._processes.pickling import reduce_view

_Cached = type(functools.lru_cache(lambda: None))


def _reduce_file(file: io.TextIOWrapper) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if file is getattr(sys, name):
            return getattr, (sys, name)
    # cloudpickle would send what any file contains.
    raise TypeError(f"cannot pickle {type(file).__name__!r} object")


class Definition(NamedTuple):
    """What makes a name of ``__main__`` in another process, in two steps.

    All first steps come before all second ones, so that classes and functions may refer to each
    other in circles.
    """

    make: bytes
    """Pickled ``(function, arguments)`` that make a function or a class; empty for other values."""
    fill: bytes
    """Pickled ``(function, state)`` that fill it in; the pickled value for other values."""
    needs: frozenset[str]
    """The names that must be there before the first step."""
    uses: frozenset[str]
    """The names that must be there afterwards."""


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A pickler for what plain pickle refuses, and for references to ``__main__``."""

    dispatch_table: ClassVar[ChainMap[type, Any]] = ChainMap(
        {memoryview: reduce_view, io.TextIOWrapper: _reduce_file},
        cloudpickle.Pickler.dispatch_table,
    )

    def __init__(
        self,
        file: io.BytesIO,
        in_band: Callable[[pickle.PickleBuffer], Any] | None = None,
        hidden: str = "",
    ) -> None:
        if get_spawning_popen() is not None:
            # A process is being started, and may be sent what processes share: a connection.
            table = ChainMap(ForkingPickler._extra_reducers, self.dispatch_table)  # type: ignore[attr-defined]
            self.dispatch_table = table  # type: ignore[misc]
        super().__init__(file, 5, in_band)
        self.main = vars(sys.modules["__main__"])
        # What cloudpickle would send along as the globals of a function.
        self.globals_ref[id(self.main)] = _Namespace()
        self.names: set[str] = set()
        """The names of ``__main__`` that the output refers to."""
        self.globals: set[str] = set()
        """Those that functions in the output find in their globals."""
        self.hidden = hidden
        """What begins so is not there yet when the receiver reads this: it goes by value."""

    def reducer_override(self, obj: Any) -> Any:
        """Decide how a function or a class travels; anything else is pickle's affair."""
        if not isinstance(obj, (type, types.FunctionType, _Cached)):
            return NotImplemented
        name = self.name_in_main(obj)
        if name and not (self.hidden and name.startswith(self.hidden)):
            self.names.add(name.partition(".")[0])
            return name
        return self.reduce(obj)

    def reduce(self, obj: Any) -> Any:
        """Take it apart, as cloudpickle does, but leave globals of ``__main__`` where they are."""
        if isinstance(obj, _Cached):
            if obj.__module__ != "__main__":
                return NotImplemented
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        reduced = super().reducer_override(obj)
        if isinstance(reduced, tuple) and getattr(obj, "__globals__", None) is self.main:
            # Also those that are not set yet.
            self.globals.update(cloudpickle.cloudpickle._extract_code_globals(obj.__code__))
            reduced[2][1]["__globals__"] = {}
        return reduced

    def name_in_main(self, obj: Any) -> str | None:
        """The name by which ``__main__`` has this very object, if any."""
        if getattr(obj, "__module__", None) != "__main__":
            return None
        name: str = obj.__qualname__
        found: Any = None
        space: Any = self.main
        for part in name.split("."):
            found = space.get(part)
            space = vars(found) if isinstance(found, type) else {}
        return name if found is obj else None


def dumps(
    obj: object,
    in_band: Callable[[pickle.PickleBuffer], Any] | None,
    define: bool,
    what: str,
    root: str | tuple[str, ...],
) -> bytes:
    """A message of an object; `pickling.dumps` says what the arguments are."""
    body, _, names = _pickle(obj, in_band, "", what, root)
    return _with_definitions(body, _closure(names, what)) if define and names else body


def lasting(function: Any, define: bool) -> tuple[bytes, dict[str, Any], list[Any]] | None:
    """A message of a function that stays right, and how long: for who sends it again and again.

    Returns:
        The message, the namespace of ``__main__``, and of each name there that the message depends
        on a tuple: the name, and its value or a weak reference to it if it has one.  As long as
        they are what they were, so is the message.  None if something that it depends on may change
        and stay the same object, as a list.
    """
    main = vars(sys.modules["__main__"])
    body, _, names = _pickle(function, None, "", "the function", "the function")
    if main.get(function.__qualname__) is not function and (
        function.__closure__
        or function.__dict__
        or not _is_constant((function.__defaults__, *(function.__kwdefaults__ or {}).values()))
    ):
        return None
    if not define:
        return body, main, []
    found = _closure(names, "the function")
    uses: list[Any] = []
    for name in names.union(*(made.needs | made.uses for made in found.values())):
        if name not in main:
            uses.append((name,))
        elif _lasts(main[name]):
            uses.append((name, weakref.ref(main[name])))
        elif _is_constant(main[name]):
            uses.append((name, main[name]))
        else:
            return None
    message = _with_definitions(body, found)
    return (message, main, uses) if len(message) <= _LARGEST else None


_LARGEST = 32768
"""The longest message that is kept."""

_CONSTANTS = frozenset({type(None), type(...), bool, int, float, complex, str, bytes})


def _is_constant(value: Any) -> bool:
    """Whether the object has this value for ever."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_constant, value))
    return type(value) in _CONSTANTS


def _lasts(value: Any) -> bool:
    """Whether it is taken apart once; to redefine it makes another object."""
    if isinstance(value, types.BuiltinFunctionType):
        return isinstance(value.__self__, types.ModuleType)
    return isinstance(value, (type, types.FunctionType, types.ModuleType, _Cached))


def _with_definitions(body: bytes, found: dict[str, Definition]) -> bytes:
    """A message that begins with definitions."""
    if not found:
        return body
    definitions = pickle.dumps(_in_order(found), 5)
    # A call of `define` whose result is dropped, put in front of the object. It uses no memo, so
    # the numbers of the object's memo stay right.
    return b"".join(
        (
            body[:2],
            b"c" + __name__.encode() + b"\ndefine\n",
            pickle.BINBYTES8 + len(definitions).to_bytes(8, "little") + definitions,
            pickle.TUPLE1 + pickle.REDUCE + pickle.POP,
            body[2:],
        )
    )


def _pickle(
    obj: object,
    in_band: Callable[[pickle.PickleBuffer], Any] | None,
    hidden: str,
    what: str,
    root: str | tuple[str, ...],
) -> tuple[bytes, set[str], set[str]]:
    """The pickle, the names of ``__main__`` in it, and those and what its functions use."""
    file = io.BytesIO()
    pickler = Pickler(file, in_band, hidden)
    try:
        pickler.dump(obj)
    except MemoryError:
        raise
    except Exception as error:
        message = explain(obj, error, what, root, Pickler(io.BytesIO(), hidden=hidden))
        if isinstance(error, RuntimeError) and not isinstance(error, RecursionError):
            # Said by a `__reduce__` of the program's, or of what is only inherited by children.
            error.add_note(message)
            raise
        raise pickle.PicklingError(message) from error
    return file.getvalue(), pickler.names, pickler.names | pickler.globals


_known: dict[int, tuple[weakref.ref[Any], Definition]] = {}


def _closure(names: set[str], what: str) -> dict[str, Definition]:
    """The definitions of these names, and of all that they use."""
    main = vars(sys.modules["__main__"])
    found: dict[str, Definition] = {}
    ahead = set(names)
    while ahead:
        name = ahead.pop()
        # A global that is not set, or a builtin.
        if name in main and name not in found:
            found[name] = definition = _definition(name, main[name], what)
            ahead |= definition.uses | definition.needs
    return found


def _in_order(found: dict[str, Definition]) -> list[tuple[str, bytes, bytes]]:
    """What `define` wants, in the order of the names' needs."""
    ahead = dict(found)
    ordered: list[tuple[str, bytes, bytes]] = []

    def visit(name: str) -> None:
        definition = ahead.pop(name, None)
        if definition is not None:
            for needed in sorted(definition.needs):
                visit(needed)
            ordered.append((name, definition.make, definition.fill))

    for name in sorted(found):
        visit(name)
    return ordered


def _definition(name: str, value: Any, what: str) -> Definition:
    # While a process is started, they may refer to descriptors, which have other numbers in the
    # next one.
    lasts = get_spawning_popen() is None and _lasts(value)
    if lasts and id(value) in _known:
        reference, definition = _known[id(value)]
        if reference() is value:
            return definition
    definition = _take_apart(name, value, f"{what}: what it uses of __main__")
    if lasts:
        key = id(value)
        _known[key] = (weakref.ref(value, lambda _: _known.pop(key, None)), definition)
    return definition


def _take_apart(name: str, value: Any, what: str) -> Definition:
    path = f"__main__.{name}"
    pickler = Pickler(io.BytesIO())
    if (
        not isinstance(value, (type, types.FunctionType, _Cached))
        or pickler.name_in_main(value) != name
    ):
        data, _, uses = _pickle(value, None, "", what, path)
        return Definition(b"", data, frozenset(), frozenset(uses))
    make, arguments, *rest = pickler.reduce(value)
    # Its members come with it, by value; it is there by name when it is filled in.
    members = f"{name}."
    data, needs, uses = _pickle((make, arguments), None, members, what, ("", path))
    state = b""
    if rest:
        state, _, more = _pickle((rest[-1], rest[0]), None, members, what, ("", path))
        uses |= more
    return Definition(data, state, frozenset(needs), frozenset(uses | pickler.globals))


# ------------------------------------------------------------------ at the receiver

_defined: dict[str, tuple[bytes, bytes] | None] = {}
"""What was put into ``__main__`` here, as it came; None while it is being made."""


def define(data: bytes) -> None:
    """Put definitions into ``__main__`` where they are new; called by messages."""
    main = vars(sys.modules["__main__"])
    new = []
    for name, make, fill in pickle.loads(data):
        if _defined[name] != (make, fill) if name in _defined else name not in main:
            new.append((name, make, fill))
    for name, make, _ in new:
        _defined[name] = None
        if make:
            function, arguments = pickle.loads(make)
            main[name] = function(*arguments)
    for name, make, fill in new:
        if make and fill:
            function, state = pickle.loads(fill)
            function(main[name], state)
    for name, make, fill in new:
        if not make:
            main[name] = pickle.loads(fill)
        _defined[name] = make, fill


def fresh_main(file: str | None = None) -> None:
    """Give this process an empty ``__main__`` that definitions can fill.

    For a process that runs none of the program's own code: a zygote, before it forks.

    Args:
        file: What functions find in ``__file__``.
    """
    main = types.ModuleType("__main__")
    if file is not None:
        main.__file__ = file
    vars(main)["__builtins__"] = __builtins__
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
    _defined.clear()


class _Namespace:
    """Arrives as the globals of the receiver's ``__main__``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _namespace, ()


def _namespace() -> dict[str, Any]:
    return vars(sys.modules["__main__"])


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)
