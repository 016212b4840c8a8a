"""Named tuples as `typing.NamedTuple` has them, where the import of `typing` would be felt.

It takes about as long as the whole start of Python, which a command's user waits for.
"""

from collections import namedtuple

__all__ = ["Record"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:

    class _Maker(type):
        """Makes a named tuple of what is written as a class with annotations."""

        def __new__(cls, name, bases, namespace):
            if not bases:
                return super().__new__(cls, name, bases, namespace)
            fields = namespace["__annotations__"]
            defaults = [namespace.pop(field) for field in fields if field in namespace]
            made = namedtuple(name, fields, defaults=defaults, module=namespace["__module__"])
            for key, value in namespace.items():
                setattr(made, key, value)
            return made

    class Record(metaclass=_Maker):
        """The base of what is to be a named tuple. Needs ``from __future__ import annotations``."""
