"""Who takes part: the standard library, juggler, and the strongest peers from PyPI.

A contender is a set of classes under the standard library's names, plus the few places where its
users spell a call differently. No adapter stands between a benchmark and a class: the spelling is
applied to the source of a statement, or to the name of a method before it is bound, so that each
contender runs exactly the bytecode that its own users would run.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

_THREADING = (
    "Lock",
    "RLock",
    "Semaphore",
    "BoundedSemaphore",
    "Event",
    "Condition",
    "Barrier",
    "Timer",
)
_QUEUE = ("Queue", "LifoQueue", "PriorityQueue")
_FUTURES = ("Future", "ThreadPoolExecutor", "wait", "as_completed")

_MODULES = (
    # the standard library's module, juggler's, and the names compared
    ("threading", "juggler.threading", _THREADING),
    ("queue", "juggler.queue", _QUEUE),
    ("concurrent.futures", "juggler.futures", _FUTURES),
)


@dataclass(frozen=True)
class Contender:
    """One implementation, as its users meet it.

    Attributes:
        name: What the tables call it.
        version: What the header says about it, or why it is missing.
        classes: The standard library's name of each class or function that it has. A queue that
            takes a `maxsize` is there a second time as `BoundedQueue`.
        rewrites: Source text of the standard library's call to the contender's.
        methods: The standard library's name of a method to the contender's.
        informative: Why it is shown, but never counted as a rival; empty for rivals.
    """

    name: str
    version: str
    classes: Mapping[str, Any]
    rewrites: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    informative: str = ""

    def has(self, needs: Iterable[str]) -> bool:
        """Whether it has every class that a row needs."""
        return all(name in self.classes for name in needs)

    def spell(self, source: str) -> str:
        """A statement written for the standard library, as this contender's users write it."""
        for written, ours in self.rewrites.items():
            source = source.replace(written, ours)
        for name, ours in self.methods.items():
            source = source.replace(f".{name}(", f".{ours}(")
        return source

    def make(self, name: str, *args: Any) -> Any:
        """An instance of the class that stands for `name`."""
        made = self.classes[name](*args)
        return made.sync_q if self.name == "culsans" else made

    def bound(self, instance: Any, *names: str) -> list[Callable[..., Any]]:
        """Bound methods of an instance, by the standard library's names."""
        return [getattr(instance, self.methods.get(name, name)) for name in names]


def version(distribution: str) -> str:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


def _with_bounded(classes: dict[str, Any]) -> dict[str, Any]:
    if "Queue" in classes:
        classes["BoundedQueue"] = classes["Queue"]
    return classes


def stdlib() -> Contender:
    """The baseline of every ratio."""
    classes: dict[str, Any] = {}
    for module, _, names in _MODULES:
        found = importlib.import_module(module)
        classes.update({name: getattr(found, name) for name in names})
    return Contender("stdlib", "this interpreter's", _with_bounded(classes))


def juggler() -> Contender:
    """juggler's own classes; a name that still hands out the standard library's is absent."""
    classes: dict[str, Any] = {}
    missing = []
    for module, replacement, names in _MODULES:
        theirs = importlib.import_module(module)
        try:
            ours = importlib.import_module(replacement)
        except ImportError as error:
            missing.append(f"{replacement}: {error}")
            continue
        for name in names:
            value = getattr(ours, name, None)
            if value is not None and value is not getattr(theirs, name):
                classes[name] = value
    known = version("juggler")
    if missing:
        known += f" ({'; '.join(missing)})"
    return Contender("juggler", known, _with_bounded(classes))


def _optional(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def aiologic() -> Contender:
    """aiologic through its calls for threads: `with`, `green_*`, and `REvent` for `clear`."""
    module = _optional("aiologic")
    if module is None:
        return Contender("aiologic", "not installed", {})
    same = ("Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Barrier")
    classes = {name: getattr(module, name) for name in (*same, *_QUEUE)}
    classes["Event"] = module.REvent
    return Contender(
        "aiologic",
        version("aiologic"),
        _with_bounded(classes),
        rewrites={
            ".put_nowait(1)": ".put(1, blocking=False)",
            ".get_nowait()": ".get(blocking=False)",
        },
        methods={name: f"green_{name}" for name in ("acquire", "release", "put", "get")},
    )


def culsans() -> Contender:
    """culsans's queues through `sync_q`, the face that it documents for threads."""
    module = _optional("culsans")
    if module is None:
        return Contender("culsans", "not installed", {})
    classes = {name: getattr(module, name) for name in _QUEUE}
    return Contender(
        "culsans",
        version("culsans"),
        _with_bounded(classes),
        rewrites={"Queue()": "Queue().sync_q"},
    )


def simple_queue() -> Contender:
    """The C `queue.SimpleQueue`: unbounded and without `join`, so informative only."""
    simple = importlib.import_module("queue").SimpleQueue
    why = "it has neither a size limit nor join()"
    return Contender("SimpleQueue", "this interpreter's", {"Queue": simple}, informative=why)


MAKERS: Mapping[str, Callable[[], Contender]] = {
    "stdlib": stdlib,
    "juggler": juggler,
    "aiologic": aiologic,
    "culsans": culsans,
    "SimpleQueue": simple_queue,
}
