"""Pickling for a child that doesn't run the main module: by value where a reference would fail.

Plain pickle comes first. It refers to functions and classes by name, which leads nowhere in a
process without the program's ``__main__`` and for lambdas and closures anywhere; cloudpickle sends
their code instead, and is imported only when there is one.
"""

import pickle
import types
from collections import ChainMap
from functools import cache
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any, ClassVar

_MAIN = frozenset({"__main__", "__mp_main__"})


def dump(obj: object, file: IO[bytes], descriptors: list[int]) -> None:
    """Pickle for a child of the zygote.

    Args:
        obj: What is to travel; objects that may be shared while a process is being started only
            are pickled as ``multiprocessing`` has it.
        file: Where it goes.
        descriptors: Where those that it refers to are collected.

    Raises:
        PicklingError: An object is neither importable by name nor copyable. Other errors are those
            that the object's own methods raise.
    """
    begin, held = file.tell(), len(descriptors)
    try:
        _Plain(file).dump(obj)
    except (_Unreachable, pickle.PicklingError, AttributeError, TypeError):
        # The last two are what pickle says of local classes, modules and objects without a state.
        file.seek(begin)
        file.truncate()
        del descriptors[held:]
        _cloud_pickler()(file).dump(obj)


class _Unreachable(Exception):
    """Something is of the main module."""


class _Plain(ForkingPickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (types.FunctionType, type)) and obj.__module__ in _MAIN:
            raise _Unreachable
        return NotImplemented


@cache
def _cloud_pickler() -> Any:
    import cloudpickle  # type: ignore[import-untyped]

    class CloudPickler(cloudpickle.Pickler):  # type: ignore[misc]
        # What processes share only while they are started goes first, as it does in `_Plain`.
        dispatch_table: ClassVar[ChainMap[type, Any]] = ChainMap(
            ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
            cloudpickle.Pickler.dispatch_table,
        )

    return CloudPickler
