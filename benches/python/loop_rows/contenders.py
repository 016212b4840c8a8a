"""Whose event loops take part. Each runs its users' own code: the same calls, its own loop."""

from __future__ import annotations

import asyncio
import importlib

from harness.contenders import Contender, version


def _peer(name: str) -> Contender:
    """Another loop on the standard library's tasks and futures."""
    try:
        module = importlib.import_module(name)
    except ImportError:
        return Contender(name, "not installed", {})
    return Contender(name, version(name), {"new_event_loop": module.new_event_loop})


def contenders() -> list[Contender]:
    """The standard library's loop, which every ratio refers to, juggler's and the peers'."""
    from juggler.asyncio import new_event_loop

    stock = {"new_event_loop": asyncio.SelectorEventLoop}
    return [
        Contender("asyncio", "this interpreter's", stock),
        Contender("juggler", version("juggler"), {"new_event_loop": new_event_loop}),
        _peer("uvloop"),
        _peer("rloop"),
    ]
