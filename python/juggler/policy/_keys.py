"""Keys: what has a state of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

PerKey: TypeAlias = Callable[..., object] | None
"""From a call's arguments to its key, which must be hashable."""
KEYS = 10_000
"""How many keys are remembered unless more are in use; see the engine's `keyed` module."""


def host(url: str, *_args: object, **_kwargs: object) -> str:
    """The host and port of the URL that is a call's first argument: for ``per_key=host``.

    Args:
        url: such as ``https://example.com:8080/page``.

    Returns:
        In lower case, such as ``example.com:8080``; empty if it has none.
    """
    from urllib.parse import urlsplit

    return urlsplit(url).netloc.rpartition("@")[2].lower()
