"""Objects as bytes for another process, and back.

The C pickler does the work, protocol 5, with large buffers out of band.  Only when it refuses, or
when the result refers to ``__main__``, which the receiver did not import, `by_value` takes over.
A message is a pickle like any other: `loads` is `pickle.loads`.
"""

from __future__ import annotations

import pickle

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

THRESHOLD = 65536
"""From this size in bytes on, a buffer travels out of band."""

_LIFTABLE = frozenset({bytes, bytearray, memoryview, tuple, list, dict})
# Arguments and results are looked through for `bytes` so far, and no further than into containers
# of this many items: the C pickler asks nobody about them.
_DEPTH = 2
_ITEMS = 64


def dumps(
    obj: object,
    *,
    threshold: int = THRESHOLD,
    define: bool = True,
    what: str = "the object",
    root: str | tuple[str, ...] = "object",
) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """Make a message of an object.

    Args:
        obj: What to send.  Numpy arrays, Arrow and pandas buffers in it, and `bytes`, `bytearray`
            and `memoryview` up to two containers deep, travel out of band when they are large.
        threshold: How large, in bytes.
        define: Whether the message brings along the functions and classes of ``__main__`` that it
            refers to, with the globals that they use.  False for a receiver that has them: one
            that imported ``__main__`` itself, or was sent them by this process's like before.
        what: What an error calls the object.
        root: How an error names the object, or each of its items if it is a tuple.

    Returns:
        The message, and the buffers that `loads` wants with it, in their order.

    Raises:
        pickle.PicklingError: Something in it can't travel; the message names the path to it.
    """
    buffers: list[pickle.PickleBuffer] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes < threshold:
            return True
        buffers.append(buffer)
        return False

    lifted = lift(obj, threshold) if type(obj) in _LIFTABLE else obj
    try:
        data = pickle.dumps(lifted, 5, buffer_callback=in_band)
        if not define or b"__main__" not in data:
            return data, buffers
    except MemoryError:
        raise
    except Exception:  # what refused says little; `by_value` tries, and says more
        pass
    buffers.clear()
    from juggler._processes import by_value

    return by_value.dumps(lifted, in_band, define, what, root), buffers


loads: Callable[..., Any] = pickle.loads
"""The object of a message: ``loads(data, buffers=buffers)``.

Arrays are views on the buffers, writable if those are; `bytes` are copied out of them.
"""


def lift(obj: Any, threshold: int, depth: int = _DEPTH) -> Any:
    """`obj` with its large `bytes` and its memoryviews replaced by what goes out of band."""
    kind = type(obj)
    if kind is bytes or kind is bytearray:
        return Lifted(obj) if len(obj) >= threshold else obj
    if kind is memoryview:
        return Lifted(obj)
    if not depth or len(obj) > _ITEMS:
        return obj
    items: Iterable[Any] = obj.values() if kind is dict else obj
    for item in items:
        if type(item) in _LIFTABLE and lift(item, threshold, depth - 1) is not item:
            break
    else:
        return obj

    lifted = (
        lift(item, threshold, depth - 1) if type(item) in _LIFTABLE else item for item in items
    )
    return dict(zip(obj, lifted, strict=True)) if kind is dict else kind(lifted)


class Lifted:
    """Stands for an object in a message whose memory goes out of band."""

    __slots__ = ("obj",)

    def __init__(self, obj: bytes | bytearray | memoryview) -> None:
        self.obj = obj

    def __reduce__(self) -> tuple[Any, ...]:
        if type(self.obj) is memoryview:
            return reduce_view(self.obj)
        return type(self.obj), (pickle.PickleBuffer(self.obj),)


def reduce_view(view: memoryview) -> tuple[Any, ...]:
    """A memoryview's `__reduce__`, which the standard library does not have."""
    memory = view if view.c_contiguous else view.tobytes()
    return _view, (pickle.PickleBuffer(memory), view.format, view.shape)


def _view(buffer: Any, code: str, shape: tuple[int, ...]) -> memoryview:
    view: Any = memoryview(buffer)
    if view.readonly:
        view = memoryview(bytearray(view))
    view = view.cast("B")
    if 0 in shape and len(shape) > 1:  # which no cast makes
        return view  # type: ignore[no-any-return]
    return view.cast(code) if len(shape) == 1 else view.cast(code, shape)  # type: ignore[no-any-return]
