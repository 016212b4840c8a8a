"""Whose event loops take part. Each runs its users' own code: the same calls, its own loop."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from harness.contenders import Contender, version


def _peer(name: str, *lacks: str) -> Contender:
    """Another loop on the standard library's tasks and futures; what it `lacks` is left out."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return Contender(name, "not installed", {})
    classes = _classes(asyncio, module.new_event_loop)
    known = {name: found for name, found in classes.items() if name not in lacks}
    return Contender(name, version(name), known)


def _classes(module: ModuleType, new_event_loop: Callable[[], object]) -> dict[str, Any]:
    """What the rows use: a loop, and what of `module` runs on it."""
    names = ("create_subprocess_exec", "start_server")
    own = {"new_event_loop": new_event_loop, "serve": None, "tls": None, "datagrams": None}
    return {**own, **{name: getattr(module, name) for name in names}}


def contenders() -> list[Contender]:
    """The standard library's loop, which every ratio refers to, juggler's and the peers'."""
    import juggler.asyncio

    return [
        Contender("asyncio", "this interpreter's", _classes(asyncio, asyncio.SelectorEventLoop)),
        Contender(
            "juggler",
            version("juggler"),
            _classes(juggler.asyncio, juggler.asyncio.new_event_loop),
        ),
        _peer("uvloop"),
        _peer("rloop", "tls", "datagrams"),
        # No loop: what the system calls, and OpenSSL, cost in any case.
        Contender(
            "blocking",
            "a socket of this interpreter's",
            {"serve": None, "tls": None},
            informative=True,
        ),
    ]
