"""Values and arrays in shared memory: stands in for ``multiprocessing.sharedctypes``.

The memory lies in anonymous memory files. A child that has a value keeps its memory alive, also
when the process that made it has let go of it.

`Value` of an integer or float type has besides what the standard library's has:
``fetch_add(n=1)`` and ``compare_exchange(expected, desired)``, one atomic step without the lock
(integers only), and ``load()`` and ``store(value)`` without the lock.
"""

from __future__ import annotations

import ctypes
import weakref
from multiprocessing import context, reduction

from juggler._juggler import SharedNumber, _own_methods
from juggler.multiprocessing.memory import SharedBlock
from juggler.multiprocessing.synchronize import RLock

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]

typecode_to_type: dict[str, type[Any]] = {
    "c": ctypes.c_char,
    "u": ctypes.c_wchar,
    "b": ctypes.c_byte,
    "B": ctypes.c_ubyte,
    "h": ctypes.c_short,
    "H": ctypes.c_ushort,
    "i": ctypes.c_int,
    "I": ctypes.c_uint,
    "l": ctypes.c_long,
    "L": ctypes.c_ulong,
    "q": ctypes.c_longlong,
    "Q": ctypes.c_ulonglong,
    "f": ctypes.c_float,
    "d": ctypes.c_double,
}

_NUMBERS = {type_: code for code, type_ in typecode_to_type.items() if code not in "cu"}


def _type_of(typecode_or_type: Any) -> Any:
    type_ = typecode_to_type.get(typecode_or_type, typecode_or_type)
    try:
        ctypes.sizeof(type_)
    except TypeError:
        codes = ", ".join(typecode_to_type)
        raise TypeError(
            f"bad typecode {type_!r} (must be a ctypes type or one of {codes})"
        ) from None
    return type_


def _new_value(type_: type[Any]) -> Any:
    return rebuild_ctype(type_, SharedBlock(ctypes.sizeof(type_)), None)


def RawValue(typecode_or_type: Any, *args: Any) -> Any:  # noqa: N802
    """A ctypes object in shared memory, without a lock; as `multiprocessing.RawValue`.

    Args:
        typecode_or_type: a ctypes type, or a typecode as of the `array` module.
        args: what the type is called with; by default the memory is zeros.
    """
    value = _new_value(_type_of(typecode_or_type))
    value.__init__(*args)
    return value


def RawArray(  # noqa: N802
    typecode_or_type: Any, size_or_initializer: int | Iterable[Any]
) -> Any:
    """A ctypes array in shared memory, without a lock; as `multiprocessing.RawArray`.

    `numpy.frombuffer` gives a view of it.

    Args:
        typecode_or_type: a ctypes type, or a typecode as of the `array` module, of the elements.
        size_or_initializer: how many there are, all zero, or what they are.
    """
    type_ = _type_of(typecode_or_type)
    if isinstance(size_or_initializer, int):
        return _new_value(type_ * size_or_initializer)
    values = tuple(size_or_initializer)
    array = _new_value(type_ * len(values))
    array.__init__(*values)
    return array


def _lock_for(lock: Any, ctx: Any) -> Any:
    if lock in (True, None):
        return RLock(ctx=ctx)
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return lock


def Value(  # noqa: N802
    typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None
) -> Any:
    """A ctypes object in shared memory with a lock; as `multiprocessing.Value`.

    Its ``value`` is read and written under the lock. So ``counter.value += 1`` takes the lock twice
    and needs ``with counter.get_lock():`` around it; `fetch_add` needs nothing.

    Args:
        typecode_or_type: a ctypes type, or a typecode as of the `array` module.
        args: what the type is called with.
        lock: True for a new `RLock`, a lock, or False for none: then it is a `RawValue`.
        ctx: the context that makes it; of no importance here.

    Raises:
        AttributeError: `lock` is no lock.
    """
    value = RawValue(typecode_or_type, *args)
    return value if lock is False else synchronized(value, _lock_for(lock, ctx), ctx)


def Array(  # noqa: N802
    typecode_or_type: Any,
    size_or_initializer: int | Iterable[Any],
    *,
    lock: Any = True,
    ctx: Any = None,
) -> Any:
    """A ctypes array in shared memory with a lock; as `multiprocessing.Array`.

    Its elements are read and written under the lock, one at a time or a slice.

    Args:
        typecode_or_type: a ctypes type, or a typecode as of the `array` module, of the elements.
        size_or_initializer: how many there are, all zero, or what they are.
        lock: True for a new `RLock`, a lock, or False for none: then it is a `RawArray`.
        ctx: the context that makes it; of no importance here.

    Raises:
        AttributeError: `lock` is no lock.
    """
    array = RawArray(typecode_or_type, size_or_initializer)
    return array if lock is False else synchronized(array, _lock_for(lock, ctx), ctx)


def copy(obj: Any) -> Any:
    """A copy of a ctypes object, in shared memory; as `multiprocessing.sharedctypes.copy`."""
    new = _new_value(type(obj))
    ctypes.pointer(new)[0] = obj
    return new


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """A wrapper of a ctypes object that reads and writes it under a lock.

    Stands in for `multiprocessing.sharedctypes.synchronized`.

    Args:
        obj: a number, an array or a structure of ctypes.
        lock: by default a new `RLock`.
        ctx: the context that makes it; of no importance here.
    """
    if isinstance(obj, SynchronizedBase):
        raise AssertionError("object already synchronized")
    if isinstance(obj, ctypes._SimpleCData):
        native = type(obj) in _NUMBERS and isinstance(getattr(obj, "_wrapper", None), SharedBlock)
        return (_SynchronizedNumber if native else Synchronized)(obj, lock, ctx)
    if isinstance(obj, ctypes.Array):
        string = obj._type_ is ctypes.c_char
        return (SynchronizedString if string else SynchronizedArray)(obj, lock, ctx)
    cls = type(obj)
    if cls not in class_cache:
        names = {field[0]: _under_lock(field[0]) for field in cls._fields_}
        class_cache[cls] = type(f"Synchronized{cls.__name__}", (SynchronizedBase,), names)
    return class_cache[cls](obj, lock, ctx)


class_cache: weakref.WeakKeyDictionary[type, Any] = weakref.WeakKeyDictionary()


def _reduce_ctype(obj: Any) -> tuple[Any, ...]:
    context.assert_spawning(obj)
    if isinstance(obj, ctypes.Array):
        return rebuild_ctype, (obj._type_, obj._wrapper, obj._length_)  # type: ignore[attr-defined]
    return rebuild_ctype, (type(obj), obj._wrapper, None)


def rebuild_ctype(type_: type[Any], block: SharedBlock, length: int | None) -> Any:
    """A ctypes object over a block of shared memory, an array if `length` is given."""
    if length is not None:
        type_ *= length
    reduction.ForkingPickler.register(type_, _reduce_ctype)
    obj = type_.from_buffer(block)
    obj._wrapper = block
    return obj


def _under_lock(name: str) -> property:
    """An attribute of the wrapped object, read and written under the lock."""

    def fget(self: SynchronizedBase) -> Any:
        with self:
            return getattr(self._obj, name)

    def fset(self: SynchronizedBase, value: Any) -> None:
        with self:
            setattr(self._obj, name, value)

    return property(fget, fset)


class SynchronizedBase:
    """A ctypes object and the lock that guards it."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        self._obj = obj
        self._lock = lock or RLock(ctx=ctx)
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *exc_info: object) -> Any:
        return self._lock.__exit__(*exc_info)

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return synchronized, (self._obj, self._lock)

    def get_obj(self) -> Any:
        """The ctypes object, which can be read and written without the lock."""
        return self._obj

    def get_lock(self) -> Any:
        """The lock that guards the object."""
        return self._lock

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase):
    """A simple ctypes object and its lock."""

    value = _under_lock("value")


@_own_methods
class _SynchronizedNumber(SharedNumber, Synchronized):
    """A `Synchronized` number, with atomic operations."""

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        self._bind(obj, obj._wrapper, _NUMBERS[type(obj)], lock or RLock(ctx=ctx))


_SynchronizedNumber.__name__ = _SynchronizedNumber.__qualname__ = "Synchronized"


class SynchronizedArray(SynchronizedBase):
    """A ctypes array and its lock."""

    def __len__(self) -> int:
        return len(self._obj)

    def __getitem__(self, i: Any) -> Any:
        with self:
            return self._obj[i]

    def __setitem__(self, i: Any, value: Any) -> None:
        with self:
            self._obj[i] = value

    def __getslice__(self, start: int, stop: int) -> Any:
        with self:
            return self._obj[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        with self:
            self._obj[start:stop] = values


class SynchronizedString(SynchronizedArray):
    """An array of characters and its lock."""

    value = _under_lock("value")
    raw = _under_lock("raw")
