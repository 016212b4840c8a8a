"""Find what in an object can't be pickled, and say where it is.

Looked for only after a failure: the pure-Python pickler goes the same way again and tells where it
was when it failed.
"""

import pickle
import types
from functools import partial
from io import BytesIO
from typing import Any

# Written in Python, so that its steps can be watched.
_Pickler: Any = pickle._Pickler

_LIMIT = 100_000
"""How many objects are looked at."""


def explain(
    obj: object, error: BaseException, what: str, root: str | tuple[str, ...], pickler: Any
) -> str:
    """Say why an object could not be pickled.

    Args:
        obj: The object.
        error: What the pickler raised.
        what: What to call the object: "the argument".
        root: The path to the object, or to each item of a tuple.
        pickler: A fresh pickler of the kind that failed; its reducers decide the way.

    Returns:
        ``cannot send the argument: args[0].sock is a socket.socket (TypeError: ...)``.
    """
    reason = f"{type(error).__name__}: {_text(error)}"
    try:
        chain, reason = _trace(obj, reason, pickler)
        place = _path(chain, root) if chain else ""
    except Exception:  # an object can go wrong in any way; the first error is reported anyhow
        place = ""
    return f"cannot send {what}: {place} ({reason})" if place else f"cannot send {what}: {reason}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "<its text could not be made>"


class _OutOfSteps(Exception):
    pass


class _Tracer(_Pickler):  # type: ignore[misc]
    """Knows at each moment which objects it is in."""

    def __init__(self, pickler: Any) -> None:
        super().__init__(BytesIO(), 5, buffer_callback=lambda buffer: None)
        self.reducer_override = pickler.reducer_override
        self.dispatch_table = pickler.dispatch_table
        self.chain: list[Any] = []
        self.steps = 0

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        self.steps += 1
        if self.steps > _LIMIT:
            raise _OutOfSteps
        self.chain.append(obj)
        super().save(obj, save_persistent_id)
        # Not in a `finally`: what is left after a failure is the way to it.
        self.chain.pop()


def _trace(obj: object, reason: str, pickler: Any) -> tuple[list[Any], str]:
    """The objects from the outermost to the one that refused, and its reason; none if unknown."""
    tracer = _Tracer(pickler)
    try:
        tracer.dump(obj)
    except (_OutOfSteps, RecursionError):
        return [], reason
    except Exception as error:
        return tracer.chain, f"{type(error).__name__}: {_text(error)}"
    return [], reason


def _path(chain: list[Any], root: str | tuple[str, ...]) -> str:
    """Name the way along a chain of objects, as Python would write it where it can."""
    path = root if isinstance(root, str) else ""
    holder = chain[0]
    between: Any = None
    for depth, obj in enumerate(chain[1:]):
        step = _step(holder, obj)
        if step is None and between is not None:
            step = _part(between, obj)
        if step is None:
            # A part of what its `__reduce__` returned, which has no name.
            between = obj
            continue
        if not depth and isinstance(root, tuple):
            step = root[next(i for i, item in enumerate(holder) if item is obj)]
        path, holder, between = path + step, obj, None
    name = _name(type(holder))
    article = "an" if name.lstrip("_")[:1] in set("aeiouAEIOU") else "a"
    return f"{path} is {article} {name}"


def _step(holder: Any, obj: Any) -> str | None:
    """How a named object refers to another."""
    if isinstance(holder, (list, tuple)):
        for index, item in enumerate(holder):
            if item is obj:
                return f"[{index}]"
    if isinstance(holder, dict):
        for key, value in holder.items():
            if value is obj:
                return f"[{_short(key)}]"
        if any(key is obj for key in holder):
            return ".<key>"
    if isinstance(holder, (set, frozenset)) and any(item is obj for item in holder):
        return ".<element>"
    if isinstance(holder, types.FunctionType):
        for name, cell in zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=False):
            if cell is obj:
                return f".__closure__[{name!r}]"
    if isinstance(holder, types.CellType) and holder.cell_contents is obj:
        return ""
    if isinstance(holder, types.MethodType) and holder.__self__ is obj:
        return ".__self__"
    if isinstance(holder, partial):
        for name in ("func", "args", "keywords"):
            if getattr(holder, name) is obj:
                return f".{name}"
    return None


def _part(state: Any, obj: Any) -> str | None:
    """How an object's state, a dictionary by the names of the attributes, refers to another."""
    if isinstance(state, dict):
        for key, value in state.items():
            if value is obj and key != "__closure__":  # its cells have better names
                return f".{key}" if isinstance(key, str) else f"[{_short(key)}]"
    return None


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
