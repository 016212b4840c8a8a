"""Whose event loops take part. Each runs its users' own code: the same calls, its own loop."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from harness.contenders import Contender, version

_NAMES = (
    "Barrier",
    "Condition",
    "Event",
    "Lock",
    "Queue",
    "Semaphore",
    "TaskGroup",
    "as_completed",
    "create_subprocess_exec",
    "create_task",
    "gather",
    "open_connection",
    "shield",
    "sleep",
    "start_server",
    "timeout",
    "wait",
    "wait_for",
)


def _classes(module: Any, new_event_loop: Any) -> dict[str, Any]:
    own = {"new_event_loop": new_event_loop, "serve": None, "tls": None, "datagrams": None}
    return {**own, **{name: getattr(module, name) for name in _NAMES}}


def _peer(name: str, *lacks: str) -> Contender:
    """Another loop, on the standard library's tasks and primitives; what it `lacks` is left out."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return Contender(name, "not installed", {})
    classes = _classes(asyncio, module.new_event_loop)
    known = {name: found for name, found in classes.items() if name not in lacks}
    return Contender(name, version(name), known)


def _stock() -> Contender:
    classes = _classes(asyncio, asyncio.SelectorEventLoop)
    return Contender("asyncio", "this interpreter's", classes)


def _juggler() -> Contender:
    from juggler import asyncio as ours

    return Contender("juggler", version("juggler"), _classes(ours, ours.new_event_loop))


def _blocking() -> Contender:
    """No loop: what the system calls, and OpenSSL, cost in any case."""
    return Contender(
        "blocking",
        "a socket of this interpreter's",
        {"serve": None, "tls": None},
        informative="no loop, but what the system and OpenSSL cost in any case",
    )


MAKERS: Mapping[str, Callable[[], Contender]] = {
    "asyncio": _stock,
    "juggler": _juggler,
    "uvloop": lambda: _peer("uvloop"),
    "rloop": lambda: _peer("rloop", "tls", "datagrams"),
    "blocking": _blocking,
}


def contenders() -> list[Contender]:
    """The standard library's loop, which every ratio refers to, juggler's and the peers'."""
    return [make() for make in MAKERS.values()]
