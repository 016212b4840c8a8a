"""The event loop: stands in for ``asyncio.EventLoop``. See `juggler.asyncio`."""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import threading
import weakref
from asyncio import base_events, unix_events
from asyncio.log import logger

from juggler import _juggler
from juggler.asyncio import _handles as _handles  # the classes that the native loop makes
from juggler.asyncio._children import ChildWatching
from juggler.asyncio._transports import SocketTransports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any


class _Watched:
    """What the standard library's transports ask of a selector: the `repr` of theirs does."""

    def __init__(self, loop: _juggler.Loop) -> None:
        self._loop = weakref.ref(loop)

    def get_key(self, descriptor: int) -> selectors.SelectorKey:
        loop = self._loop()
        read, write = loop._watched(descriptor) if loop else (False, False)
        if not read and not write:
            raise KeyError(f"{descriptor} is not watched")
        events = read * selectors.EVENT_READ | write * selectors.EVENT_WRITE
        return selectors.SelectorKey(descriptor, descriptor, events, None)

    def close(self) -> None:
        """Nothing: the loop closes its descriptors."""


class EventLoop(
    _juggler.Loop, ChildWatching, SocketTransports, unix_events._UnixSelectorEventLoop
):
    """An event loop.

    Stands in for `asyncio.EventLoop`, and is a subclass of it. What runs often is native; what is
    called once per connection or less often is the standard library's own.
    """

    def __init__(self) -> None:
        # Not the bases in between: they make a selector and a pair of sockets.
        asyncio.BaseEventLoop.__init__(self)
        self._selector = _Watched(self)
        self._ssock = self._csock = None
        self._internal_fds = 1
        self._transports: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._signal_handlers: dict[int, asyncio.Handle] = {}
        self._unix_server_sockets: dict[Any, int] = {}
        self._child_descriptors: set[int] = set()

    # ------------------------------------------------------------ running

    def run_forever(self) -> None:
        """Run until `stop` is called."""
        self._run_forever_setup()
        try:
            self._run(self._wakeup_descriptor())
        finally:
            self._run_forever_cleanup()

    if sys.version_info < (3, 13):

        def _run_forever_setup(self) -> None:
            self._check_closed()
            self._check_running()
            self._set_coroutine_origin_tracking(self._debug)
            self._old_agen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
            )
            asyncio._set_running_loop(self)

        def _run_forever_cleanup(self) -> None:
            self._stopping = False
            self._thread_id = None
            asyncio._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            if self._old_agen_hooks is not None:
                sys.set_asyncgen_hooks(*self._old_agen_hooks)
                self._old_agen_hooks = None

    def _ran(self, entry: object, took: float) -> None:
        """In debug mode: `entry` has run for so many seconds."""
        if took >= self.slow_callback_duration:
            is_handle = isinstance(entry, asyncio.Handle)
            text = base_events._format_handle(entry) if is_handle else repr(entry)
            logger.warning("Executing %s took %.3f seconds", text, took)

    def close(self) -> None:
        """Close the loop: whatever waits to run is dropped, and its descriptors are closed.

        Raises:
            RuntimeError: the loop is running.
        """
        super().close()
        self._release()
        self._forget_children()

    # ------------------------------------------------------------ signals

    def _wakeup_descriptor(self) -> int:
        """Where the interpreter is to write signals' numbers to while the loop runs; -1: nowhere.

        Only the main thread runs signal handlers. Without this, one that comes between the loop's
        last look and its sleep would wait for something else to end that sleep.
        """
        if threading.current_thread() is not threading.main_thread():
            return -1
        if self._csock is None:
            self._make_self_pipe()
        return self._csock.fileno()

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback` in the loop when the signal `sig` comes; only in the main thread."""
        if self._csock is None and not self.is_closed():
            self._make_self_pipe()
        super().add_signal_handler(sig, callback, *args)

    def _make_self_pipe(self) -> None:
        self._ssock, self._csock = socket.socketpair()
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._add_reader(self._ssock.fileno(), self._read_from_self)

    def _close_self_pipe(self) -> None:
        self._internal_fds = 0
        if self._csock is not None:
            self._remove_reader(self._ssock.fileno())
            self._ssock.close()
            self._csock.close()
            self._ssock = self._csock = None

    # ------------------------------------------------------------ executors

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call `func` in a pool, by default one of `juggler.futures.ThreadPoolExecutor`."""
        if executor is None and self._default_executor is None and not self.is_closed():
            self._check_default_executor()
            from juggler.futures import ThreadPoolExecutor

            self._default_executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        return super().run_in_executor(executor, func, *args)


_juggler._set_loop_class(EventLoop)
