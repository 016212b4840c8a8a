"""Which of CPython's test classes make up each suite, and how they are pointed at the replacement.

Nothing of CPython's is copied: the classes come from the running interpreter's `test` package, and
most of them only need their module imported after the overlays are in place.  The few that name a
private type or a C accelerator are handed the replacement here.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import types
import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import asyncio_classes
import loops
from overlay import REAL, Overlay, exported

TestClass = type[unittest.TestCase]


@dataclass(frozen=True)
class Environment:
    """The replacement's submodules by layer, and the overlays by stdlib module name."""

    layers: dict[str, ModuleType]
    overlays: dict[str, Overlay]
    package: str

    def over(self, layer: str) -> Any:
        """The overlay that stands for the layer's stdlib module."""
        return self.overlays[REAL[layer]]

    def substituted(self, layer: str) -> list[str]:
        """The layer's names that are the replacement's own objects, not re-exported ones."""
        if layer == "multiprocessing":
            return replaced(self.package)
        if layer == "asyncio":
            return own_names(self.package, layer)
        if layer == "asyncio-classes":
            return asyncio_classes.substitute(self.package)
        own: frozenset[str] = self.over(layer)._overlay_own
        return sorted(own.intersection(exported(self.layers[layer])))


def test_classes(module: ModuleType, keep: Callable[[TestClass], bool]) -> list[TestClass]:
    """The test classes defined in `module` for which `keep` says yes."""
    return [
        value
        for _, value in sorted(vars(module).items())
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
        and keep(value)
    ]


def everything(cls: TestClass) -> bool:
    """A `keep` that keeps every class."""
    return True


def is_lock_test(cls: TestClass) -> bool:
    """Whether the class is test_threading's subclass of a parameterised class of lock_tests."""
    return any(
        base.__module__ == "test.lock_tests" and base.__name__ != "BaseTestCase"
        for base in cls.__mro__
    )


def locks(env: Environment) -> list[TestClass]:
    """Lock, RLock, Condition, Semaphore, Event and Barrier, through lock_tests."""
    lock_tests: Any = importlib.import_module("test.lock_tests")
    module: Any = importlib.import_module("test.test_threading")
    lock_tests.threading = env.over("threading")
    # `locktype = staticmethod(threading.Lock)` ran under the overlay; the RLock class names a
    # private C type instead, and its pure-Python twin tests nothing that we replace.
    if "RLock" in env.substituted("threading"):
        module.CRLockTests.locktype = staticmethod(env.over("threading").RLock)
    return test_classes(module, lambda cls: is_lock_test(cls) and cls.__name__ != "PyRLockTests")


def threading(env: Environment) -> list[TestClass]:
    """Everything else in test_threading: threads, timers, shutdown, fork, exception hooks."""
    module = importlib.import_module("test.test_threading")
    return test_classes(module, lambda cls: not is_lock_test(cls))


def local(env: Environment) -> list[TestClass]:
    """threading.local; test_threading_local itself only knows the C and the Python version."""
    module: Any = importlib.import_module("test.test_threading_local")
    attributes = {"_local": env.over("threading").local, "__module__": module.__name__}
    return [type("ThreadLocalTest", (unittest.TestCase, module.BaseLocalTest), attributes)]


def threadsignals(env: Environment) -> list[TestClass]:
    """Signals against blocked acquires, which this file takes from `_thread`."""
    module: Any = importlib.import_module("test.test_threadsignals")
    threading = env.over("threading")
    names = types.SimpleNamespace(allocate_lock=threading.Lock, RLock=threading.RLock)
    module.thread = Overlay(module.thread, names, ["allocate_lock", "RLock"])
    return test_classes(module, everything)


def queue(env: Environment) -> list[TestClass]:
    """Queue, LifoQueue, PriorityQueue and SimpleQueue."""
    import_helper: Any = importlib.import_module("test.support.import_helper")
    real = import_helper.import_fresh_module

    def import_fresh_module(name: str, *args: Any, **kwargs: Any) -> Any:
        return env.over("queue") if name == "queue" else real(name, *args, **kwargs)

    import_helper.import_fresh_module = import_fresh_module
    try:
        module = importlib.import_module("test.test_queue")
    finally:
        import_helper.import_fresh_module = real
    # Each test comes as a pair; the Py* one is for the stdlib's pure-Python fallback.
    return test_classes(module, lambda cls: not cls.__name__.startswith("Py"))


def _is_process_test(cls: TestClass) -> bool:
    name = cls.__name__
    return "Process" in name or name.startswith(("FailingInitializerResources", "ForkServer"))


def _futures_tests(names: Sequence[str], keep: Callable[[TestClass], bool]) -> list[TestClass]:
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):  # one file up to 3.11, a package since
        return test_classes(package, keep)
    return [
        cls
        for name in names
        for cls in test_classes(importlib.import_module(f"{package.__name__}.test_{name}"), keep)
    ]


_FUTURES = ("future", "thread_pool", "wait", "as_completed", "shutdown", "init")


def futures(env: Environment) -> list[TestClass]:
    """Future, ThreadPoolExecutor, wait and as_completed."""
    return _futures_tests(_FUTURES, lambda cls: not _is_process_test(cls))


def process_pool(env: Environment) -> list[TestClass]:
    """ProcessPoolExecutor, by each of the standard library's start methods."""
    # The registry of managers was filled before. Its classes are pickled by names, which are the
    # overlay's now.
    registry = importlib.import_module("multiprocessing.managers").SyncManager._registry
    for typeid, (made, *rest) in registry.items():
        module = sys.modules.get(getattr(made, "__module__", ""))
        name = getattr(made, "__name__", typeid)
        registry[typeid] = (getattr(module, name, made), *rest)
    # The futures tests of 3.12 are those of 3.13, which ask after one more sanitizer.
    support: Any = importlib.import_module("test.support")
    check_sanitizer = support.check_sanitizer
    if "thread" not in inspect.signature(check_sanitizer).parameters:
        support.check_sanitizer = lambda *, thread=False, **others: (
            bool(others) and check_sanitizer(**others)
        )
    return _futures_tests((*_FUTURES, "process_pool", "deadlock"), _is_process_test)


def replaced(package: str) -> list[str]:
    """The classes and functions that the package's `install` has put into multiprocessing."""
    return sorted(
        {
            name
            for module, namespace in list(sys.modules.items())
            if module.partition(".")[0] == "multiprocessing"
            for name, value in vars(namespace).items()
            if str(getattr(value, "__module__", None)).partition(".")[0] == package
        }
    )


def own_names(package: str, layer: str) -> list[str]:
    """The names of one of the package's modules that are its own objects, not re-exported ones."""
    module = importlib.import_module(f"{package}.{layer}")
    return sorted(
        name
        for name in exported(module)
        if str(getattr(getattr(module, name), "__module__", "")).partition(".")[0] == package
    )


def event_loop(env: Environment) -> list[TestClass]:
    """What the package's event loop does, through the mixins of test_asyncio."""
    return loops.event_loop(importlib.import_module(f"{env.package}.asyncio"))


def multiprocessing(method: str, part: str) -> Callable[[Environment], list[TestClass]]:
    """One part of `_test_multiprocessing` with one start method.

    The parts are its types (`processes`, `threads`, `manager`) and, as `misc`, what has none.
    """
    prefixes = {f"With{type_.capitalize()}": type_ for type_ in ("processes", "threads", "manager")}

    def keep(cls: TestClass) -> bool:
        of = [type_ for prefix, type_ in prefixes.items() if cls.__name__.startswith(prefix)]
        return part == (of[0] if of else "misc")

    def build(env: Environment) -> list[TestClass]:
        return test_classes(importlib.import_module(f"start_methods.{method}"), keep)

    return build


def asyncio(part: str) -> Callable[[Environment], list[TestClass]]:
    """One of the modules of test.test_asyncio."""

    def build(env: Environment) -> list[TestClass]:
        module = importlib.import_module(f"test.test_asyncio.test_{part}")
        return test_classes(module, asyncio_classes.is_ours)

    return build


def loop_part(part: str) -> Callable[[Environment], list[TestClass]]:
    """One of the modules of test.test_asyncio that judge loops."""

    def build(env: Environment) -> list[TestClass]:
        return loops.part(part, importlib.import_module(f"{env.package}.asyncio"))

    return build


@dataclass(frozen=True)
class Suite:
    """A suite's layer, the test modules it needs, and the function that picks its classes."""

    layer: str
    needs: tuple[str, ...]
    build: Callable[[Environment], list[TestClass]]


SUITES = {
    "locks": Suite("threading", ("test.lock_tests", "test.test_threading"), locks),
    "threading": Suite("threading", ("test.test_threading",), threading),
    "local": Suite("threading", ("test.test_threading_local",), local),
    "threadsignals": Suite("threading", ("test.test_threadsignals",), threadsignals),
    "queue": Suite("queue", ("test.test_queue",), queue),
    "futures": Suite("futures", ("test.test_concurrent_futures",), futures),
    "process-pool": Suite("futures", ("test.test_concurrent_futures",), process_pool),
    "event-loop": Suite("asyncio", loops.NEEDS, event_loop),
}

SUITES |= {
    f"asyncio-{part}": Suite("asyncio-classes", (f"test.test_asyncio.test_{part}",), asyncio(part))
    for part in asyncio_classes.PARTS
}

SUITES |= {
    f"asyncio-{part}": Suite(
        "asyncio-classes", (f"test.test_asyncio.test_{part}",), loop_part(part)
    )
    for part in loops.PARTS
}

# `threads` is multiprocessing.dummy, the same with every start method.
_PARTS = {
    f"{method}-{part}": (method, part)
    for method in ("fork", "spawn", "forkserver", "zygote")
    for part in ("processes", "manager", "misc", *(["threads"] if method == "fork" else []))
}
SUITES |= {
    name: Suite("multiprocessing", ("test._test_multiprocessing",), multiprocessing(*part))
    for name, part in _PARTS.items()
}

PROCESSES = ("process-pool", *_PARTS)
_SHORT = ("processes", "misc")

# What `make conformance` runs of them where nothing is chosen. All of them everywhere take an hour.
_EVERYDAY = {
    "3.11": ("process-pool", *(f"{m}-{part}" for m in ("fork", "zygote") for part in _SHORT)),
    "3.14": (
        "process-pool",
        *(f"{m}-{part}" for m in ("fork", "zygote") for part in (*_SHORT, "manager")),
        "spawn-processes",
        "forkserver-processes",
    ),
}


def everyday(version: str) -> list[str]:
    """The suites for a version when the command line names none."""
    left_out = set(PROCESSES).difference(_EVERYDAY.get(version, ()))
    if version == "3.11":
        left_out.add("asyncio-eager_task_factory")  # which came with 3.12, and its tests
    return [name for name in SUITES if name not in left_out]
