"""How CPython's tests of asyncio are pointed at the replacement.

asyncio's modules refer to each other by their names (`tasks.Task`), so the replacement's objects
are put into them, each under the name that it stands in for; the tests bind them from there.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import pkgutil
import unittest
from types import ModuleType

# Where the tests look for the class that is written in C.
ALIASES = {"Future": "_CFuture", "Task": "_CTask"}

# test.test_asyncio.test_... of what the classes do; of those of loops, see `loop.py`.
PARTS = (
    "tasks",
    "futures",
    "futures2",
    "taskgroups",
    "timeouts",
    "waitfor",
    "eager_task_factory",
    "context",
    "pep492",
    "threads",
    "locks",
    "queues",
    "streams",
    "ssl",
)


def _modules(package: str) -> list[tuple[ModuleType, ModuleType]]:
    """The package's modules of asyncio, each with the standard library's of the same name."""
    root = importlib.import_module(f"{package}.asyncio")
    names = [name for _, name, _ in pkgutil.iter_modules(root.__path__)]
    return [
        (importlib.import_module(f"{package}.asyncio.{name}"), importlib.import_module(real))
        for name in names
        if importlib.util.find_spec(real := f"asyncio.{name}")
    ]


def substitute(package: str) -> list[str]:
    """Put the package's objects into asyncio's modules; returns their names."""
    own: set[str] = set()
    for module, real in _modules(package):
        for name in module.__all__:
            value = getattr(module, name)
            if getattr(real, name, None) is value:
                continue
            own.add(name)
            for target in (real, asyncio):
                for alias in (name, ALIASES.get(name, name)):
                    if hasattr(target, alias):
                        setattr(target, alias, value)
    root = importlib.import_module(f"{package}.asyncio")
    if hasattr(root, "install"):  # loops of its own for tests that do not bring theirs
        root.install()
    return sorted(own)


def is_ours(cls: type[unittest.TestCase]) -> bool:
    """Whether a test class is about more than the standard library's pure Python classes."""
    return not cls.__name__.startswith(("PyTask_PyFuture", "PyFuture"))
