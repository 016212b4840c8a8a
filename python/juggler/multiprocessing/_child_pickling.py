"""Pickling for a child that doesn't run the main module: by value where a reference would fail.

Plain pickle comes first, with the reducers of what processes share. It refers to functions and
classes by name, which leads nowhere in a process without the program's ``__main__``, and for
lambdas and closures anywhere: `juggler._processes.by_value` takes over then, and is imported only
then.
"""

import pickle
import types
from multiprocessing.reduction import ForkingPickler
from typing import IO, Any

_MAIN = frozenset({"__main__", "__mp_main__"})


def dump(obj: object, file: IO[bytes], descriptors: list[int]) -> None:
    """Pickle for a child of the zygote.

    Args:
        obj: What is to travel; objects that may be shared while a process is being started only
            are pickled as ``multiprocessing`` has it.
        file: Where it goes.
        descriptors: Where those that it refers to are collected.

    Raises:
        PicklingError: Something can't travel; the message names the path to it. Other errors are
            those that an object's own methods raise.
    """
    begin, held = file.tell(), len(descriptors)
    try:
        _Plain(file).dump(obj)
    except (_Unreachable, pickle.PicklingError, AttributeError, TypeError):
        # The last two are what pickle says of local classes, modules and objects without a state.
        file.seek(begin)
        file.truncate()
        del descriptors[held:]
        from juggler._processes import by_value

        file.write(by_value.dumps(obj, None, True, "the process", "process"))


class _Unreachable(Exception):
    """Something is of the main module."""


class _Plain(ForkingPickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (types.FunctionType, type)) and obj.__module__ in _MAIN:
            raise _Unreachable
        return NotImplemented
