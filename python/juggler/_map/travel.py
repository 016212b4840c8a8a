"""Whether a function can run in another process, and what it costs to send it items."""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from time import perf_counter_ns, thread_time_ns
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from zlib import crc32

_MARKS = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_SIZED = (list, dict, set, bytearray)
_FEW = 3
"""So many items are sent one by one, to see what one costs."""
_TRIAL = 0.005
"""Seconds that it may take to send more of them together."""


def writes_globals(function: Any) -> str | None:
    """What a function's code says that it assigns outside of itself, if it does."""
    code = getattr(_plain(function), "__code__", None)
    if not isinstance(code, CodeType):
        return None
    for instruction in dis.get_instructions(code):
        if instruction.opname in _MARKS:
            return f"it assigns the global {instruction.argval!r}"
        if instruction.opname == "STORE_DEREF" and instruction.argval in code.co_freevars:
            return f"it assigns {instruction.argval!r} of the function around it"
    return None


class Traces:
    """What a function can reach that calls might change: looked at before and after some calls.

    That is the values of the globals and closure variables that its code names, its object if it is
    a method, and the items: their size if they are containers, their attributes if they have some.
    Nothing deeper: who changes the list in a list of a global goes unnoticed.
    """

    def __init__(self, function: Any) -> None:
        self._function = function
        self._before = dict(self._look())
        self._items: list[tuple[Any, Any]] = []

    def add(self, items: list[Any]) -> None:
        """Look at some items before they are sent."""
        self._items += [(item, _print(item)) for item in items[: 64 - len(self._items)]]

    def changed(self) -> str | None:
        """What is no longer as it was, if anything is."""
        for name, now in self._look():
            if name in self._before and self._before[name] != now:
                return f"its calls change {name}"
        for item, before in self._items:
            if _print(item) != before:
                return "its calls change their arguments"
        return None

    def _look(self) -> Iterator[tuple[str, Any]]:
        function = self._function
        its = getattr(function, "__self__", None)
        if its is not None:
            yield "its object", _print(its)
        plain = _plain(function)
        if not isinstance(plain, FunctionType):
            if not isinstance(plain, type) and hasattr(plain, "__dict__"):
                yield "its object", _print(plain)
            return
        for name in plain.__code__.co_names:
            if name in plain.__globals__:
                yield f"the global {name!r}", _print(plain.__globals__[name])
        cells = zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
        for name, cell in cells:
            try:
                yield f"{name!r} of the function around it", _print(cell.cell_contents)
            except ValueError:  # not assigned yet
                continue


def _plain(function: Any) -> Any:
    """The function itself, without what is around it."""
    for _ in range(16):
        if isinstance(function, MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "func") and hasattr(function, "keywords"):
            function = function.func
        else:
            break
    return function


def _print(value: Any) -> Any:
    """Something that differs when a value has visibly changed."""
    if isinstance(value, (ModuleType, type, FunctionType)):
        return id(value)
    if isinstance(value, (bytearray, memoryview)) or hasattr(value, "__array_interface__"):
        return id(value), _sum(value)
    if isinstance(value, dict):
        return id(value), len(value), [id(one) for one in list(value.values())[:64]]
    if isinstance(value, list):
        return id(value), len(value), [id(one) for one in value[:64]]
    if isinstance(value, _SIZED) or type(value).__name__ == "deque":
        return id(value), len(value)
    inside = getattr(value, "__dict__", None)
    if type(inside) is dict:
        return id(value), [(name, _shallow(one)) for name, one in list(inside.items())[:64]]
    return id(value)


def _sum(value: Any) -> int | None:
    """A checksum of the beginning of a buffer."""
    try:
        return crc32(memoryview(value).cast("B")[:65536])
    except (TypeError, ValueError, BufferError):  # such as one with gaps
        return None


def _shallow(value: Any) -> Any:
    return (id(value), len(value)) if isinstance(value, _SIZED) else id(value)


def cost(
    function: Callable[..., Any], items: list[Any], results: list[Any], together: int = 1
) -> float | str:
    """Seconds that an item and its result take on their way; or why they can't go.

    What is measured is processor time: pickling and unpickling of what was there, and the copy of
    large buffers. A message costs some microseconds whatever is in it. So items that go together
    are priced as what they will be, one message, if those that go first are cheap enough to try
    that with many.

    Args:
        function: what is to be called with the items.
        items: those to try it with.
        results: their results, as far as they are there.
        together: how many of them travel in one message.
    """
    from juggler._processes import pickling

    try:
        pickling.dumps(function, what="fn", root="fn")
        apart = 0.0
        for what, some in (("item", items), ("result", results)):
            few = some[:_FEW]
            apart += sum(_message(one, what) for one in few) / max(1, len(few))
        together = min(together, len(items), len(results), int(_TRIAL / max(apart, 1e-9)))
        if together <= _FEW:
            return apart
        chunk = _message(items[:together], "item") + _message(results[:together], "result")
        return min(apart, chunk / together)
    except Exception as refusal:
        return f"{str(refusal).rstrip('.') or type(refusal).__name__}"


def _message(content: Any, what: str) -> float:
    """Seconds that it takes to send something, and to receive it."""
    from juggler._processes import pickling

    began = thread_time_ns()
    data, buffers = pickling.dumps(content, what=f"the {what}", root=what)
    copied = perf_counter_ns()
    copies = [bytearray(buffer.raw()) for buffer in buffers]
    copied = perf_counter_ns() - copied
    pickling.loads(data, buffers=copies)
    # There it is copied a second time.
    return (thread_time_ns() - began + copied) / 1e9
