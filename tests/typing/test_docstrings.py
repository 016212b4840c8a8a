"""Everything public of ours says what it does and what it stands in for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from juggler import _juggler

MODULES = [
    "juggler.threading",
    "juggler.queue",
    "juggler.futures",
    "juggler.multiprocessing",
    "juggler.multiprocessing.connection",
    "juggler.multiprocessing.managers",
    "juggler.multiprocessing.pool",
    "juggler.multiprocessing.queues",
    "juggler.multiprocessing.sharedctypes",
    "juggler.multiprocessing.synchronize",
    "juggler.policy",
]
# Of what is not public by its name, that which users meet.
DUNDERS = {"__enter__", "__exit__"}


def is_ours(value: object) -> bool:
    home = getattr(value, "__module__", None) or ""
    if isinstance(value, type):
        return home.startswith("juggler") or hasattr(value, "statistics")
    return home.startswith("juggler")


def public() -> Iterator[tuple[str, Any]]:
    for module in MODULES:
        names = importlib.import_module(module)
        for name in names.__all__:
            if is_ours(value := getattr(names, name)):
                yield f"{module}.{name}", value


PUBLIC = dict(public())
CLASSES = {name: value for name, value in PUBLIC.items() if isinstance(value, type)}
MEMBERS = {
    f"{name}.{member}": value
    for name, cls in CLASSES.items()
    if not issubclass(cls, BaseException)
    for owner in cls.__mro__
    # The public classes derive from native ones, which have the names of the standard library's.
    if owner.__module__.startswith("juggler") or getattr(_juggler, owner.__name__, None) is owner
    for member, value in vars(owner).items()
    if (not member.startswith("_") or member in DUNDERS) and not isinstance(value, int | str)
}


def test_what_is_ours_is_found() -> None:
    assert {"juggler.threading.Condition", "juggler.queue.PriorityQueue"} <= set(CLASSES)
    assert "juggler.threading.acquire_all" in PUBLIC
    assert {"juggler.queue.Queue.put", "juggler.futures.Future.result"} <= set(MEMBERS)
    assert "juggler.multiprocessing.queues.SimpleQueue.get" in MEMBERS


@pytest.mark.parametrize("name", [*PUBLIC, *MEMBERS])
def test_has_a_docstring_that_begins_with_a_sentence(name: str) -> None:
    doc = inspect.getdoc(PUBLIC.get(name, MEMBERS.get(name)))
    assert doc, f"{name} has no docstring"
    first = doc.split("\n\n")[0]
    assert first[0].isupper() or first[0] == "`", first
    assert first.endswith("."), first


@pytest.mark.parametrize("name", [name for name in PUBLIC if ".policy." not in name])
def test_says_what_it_stands_in_for(name: str) -> None:
    doc = inspect.getdoc(PUBLIC[name]) or ""
    if name.endswith("Statistics"):
        assert "; see `" in doc, doc
    else:
        words = ("tands in for `", "; as `", "no counterpart", "only some versions", "Raised by")
        assert any(word in " ".join(doc.split()) for word in words), doc


def waits_with_a_timeout(member: Any) -> bool:
    # The slots of the interpreter have no signature of their own.
    text = getattr(member, "__text_signature__", None)
    return text is not None and "timeout" in text


@pytest.mark.parametrize("name", [name for name in MEMBERS if waits_with_a_timeout(MEMBERS[name])])
def test_a_wait_tells_its_clock_and_what_it_does_to_the_gil(name: str) -> None:
    doc = " ".join((inspect.getdoc(MEMBERS[name]) or "").split())
    assert "seconds on the monotonic clock" in doc, doc
    assert "GIL" in doc or "as `wait` does" in doc, doc
