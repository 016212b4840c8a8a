"""What `EventLoop` is based on: the native loop first, the standard library's second."""

from __future__ import annotations

import asyncio
from asyncio import unix_events

from juggler import _juggler
from juggler.asyncio import _handles as _handles  # the classes that the native loop makes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    class Base(asyncio.SelectorEventLoop):
        """The standard library's loop, as its stubs have it."""

        # Neither these nor the private names of the native loop's are in the stubs.
        _csock: Any
        _default_executor: Any
        _old_agen_hooks: Any
        _selector: Any
        _ssock: Any
        _thread_id: Any

        def __getattr__(self, name: str) -> Any: ...

else:

    class Base(_juggler.Loop, unix_events._UnixSelectorEventLoop):
        """The native loop, with what it lacks from the standard library's."""
