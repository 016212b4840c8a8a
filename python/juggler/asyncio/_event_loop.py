"""The event loop: stands in for ``asyncio.EventLoop``. See `juggler.asyncio`."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
import weakref
from asyncio import base_events, unix_events
from asyncio.log import logger

from juggler import _juggler
from juggler.asyncio import (
    _checks,
    _handles,  # noqa: F401  # the classes that the native loop makes
    tasks,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from concurrent.futures import Executor
    from typing import Any, TypeVar, TypeVarTuple

    _T = TypeVar("_T")
    _Ts = TypeVarTuple("_Ts")

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

        # All that is kept in an instance: the interpreter finds the methods of one that has no
        # dictionary yet without looking them up.
        __slots__ = (
            "_asyncgens",
            "_asyncgens_shutdown_called",
            "_child_descriptors",
            "_clock_resolution",
            "_coroutine_origin_tracking_enabled",
            "_coroutine_origin_tracking_saved_depth",
            "_csock",
            "_current_handle",
            "_default_executor",
            "_exception_handler",
            "_executor_shutdown_called",
            "_internal_fds",
            "_old_agen_hooks",
            "_ready",
            "_scheduled",
            "_selector",
            "_signal_handlers",
            "_ssock",
            "_timer_cancelled_count",
            "_transports",
            "_unix_server_sockets",
            "slow_callback_duration",
        )


__all__ = ["EventLoop"]  # what `juggler.install` puts in place of the standard library's

_format_handle: Callable[[asyncio.Handle], str] = base_events._format_handle  # type: ignore[attr-defined]


running: set[EventLoop] = set()
"""The loops that run now, in whichever thread."""


class _Watched:
    """What the standard library's transports ask of a selector: the `repr` of theirs does."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = weakref.ref(loop)

    def get_key(self, file: Any) -> selectors.SelectorKey:
        descriptor = file if isinstance(file, int) else file.fileno()
        loop = self._loop()
        read, write = loop._watched(descriptor) if loop else (False, False)
        if not read and not write:
            raise KeyError(f"{file!r} is not watched")
        events = read * selectors.EVENT_READ | write * selectors.EVENT_WRITE
        return selectors.SelectorKey(file, descriptor, events, None)

    def close(self) -> None:
        """Nothing: the loop closes its descriptors."""


class _woken_by_signals:  # noqa: N801
    """Has the interpreter tell the loop, which runs in the main thread, of each signal.

    Without this, one that comes between the loop's last look and its sleep would wait for something
    else to end that sleep. If the program has told the interpreter to write elsewhere, that stays.
    """

    __slots__ = ("_descriptor", "_loop")

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        if loop._csock is None:
            loop._make_self_pipe()
        self._descriptor: int = loop._csock.fileno()

    def __enter__(self) -> None:
        self._replace(-1, self._descriptor)

    def __exit__(self, *_: object) -> None:
        # The loop's own handlers may have a signal between two runs.
        if not self._loop._signal_handlers:
            self._replace(self._descriptor, -1)

    @staticmethod
    def _replace(old: int, new: int) -> None:
        found = signal.set_wakeup_fd(new)
        if found != old:
            signal.set_wakeup_fd(found)


class _Later:
    """A method that makes transports, whose module is imported when the first of them is called.

    A program that runs coroutines need not have a connection, nor a child process.
    """

    def __set_name__(self, owner: type[EventLoop], name: str) -> None:
        self._name = name

    def __get__(self, loop: EventLoop | None, owner: type[EventLoop]) -> Any:
        from juggler.asyncio import _transports

        # From now on these are the loop's methods as if they had been defined here.
        for name, method in _transports.METHODS.items():
            setattr(EventLoop, name, method)
        return vars(EventLoop)[self._name].__get__(loop, owner)


@_juggler._own_methods
class EventLoop(Base):
    """An event loop.

    Stands in for `asyncio.EventLoop`, and is a subclass of it. What runs often is native; what is
    called once per connection or less often is the standard library's own.

    Args:
        checks: Whether the loop tells of mistakes that go unnoticed: of a forgotten ``await`` with
            the line that made the coroutine, and of a cancellation that was swallowed, by a
            `SwallowedCancellation`. None: no, but under ``juggler run --report``. Debug mode does
            so, too. A call of a coroutine function takes a quarter of a microsecond longer.
    """

    def __init__(self, *, checks: bool | None = None) -> None:
        self._checks = _checks.enabled if checks is None else checks
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
        if self._checks and not self._debug:
            if _checks.enabled:
                from juggler.asyncio import _watchdog

                _watchdog.begin()
            with _checks.origins():
                self._run_forever()
        else:
            self._run_forever()

    def _run_forever(self) -> None:
        self._run_forever_setup()
        running.add(self)
        try:
            if threading.current_thread() is threading.main_thread():
                with _woken_by_signals(self):
                    self._run()
            else:
                self._run()
        finally:
            running.discard(self)
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
            text = _format_handle(entry) if isinstance(entry, asyncio.Handle) else repr(entry)
            logger.warning("Executing %s took %.3f seconds", text, took)

    def close(self) -> None:
        """Close the loop: whatever waits to run is dropped, and its descriptors are closed.

        Raises:
            RuntimeError: the loop is running.
        """
        super().close()
        self._release()
        self._forget_children()

    def _forget_children(self) -> None:
        """Close the descriptors of the child processes that have outlived the loop."""
        while self._child_descriptors:
            os.close(self._child_descriptors.pop())

    # ------------------------------------------------------------ transports

    _make_socket_transport = _Later()
    _make_datagram_transport = _Later()
    _make_read_pipe_transport = _Later()
    _make_write_pipe_transport = _Later()
    _make_ssl_transport = _Later()
    _make_subprocess_transport = _Later()
    _start_serving = _Later()

    async def start_tls(  # type: ignore[override]
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """Put TLS over `transport`.

        Returns:
            The transport that `protocol` is to use from now on.

        Args:
            transport: one of this loop's, TLS included, or any that is said to be fit for it.
            protocol: whoever gets what is decrypted.
            sslcontext: any `ssl.SSLContext`.
            server_side: whether this side is the server.
            server_hostname: the name that the server's certificate is checked against.
            ssl_handshake_timeout: seconds; 60 by default.
            ssl_shutdown_timeout: seconds; 30 by default.
        """
        from juggler.asyncio import _tls

        secured: asyncio.Transport = await _tls.start(
            self,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            handshake_timeout=ssl_handshake_timeout,
            shutdown_timeout=ssl_shutdown_timeout,
        )
        return secured

    # ------------------------------------------------------------ signals

    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None:
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

    # ------------------------------------------------------------ tasks

    def set_task_factory(self, factory: Any) -> None:
        """Have `factory` make the loop's tasks; None: the loop itself.

        With ``asyncio.eager_task_factory`` they are native, too.
        """
        if factory is not None and factory is tasks.stdlib_eager_task_factory:
            factory = tasks.eager_task_factory
        super().set_task_factory(factory)

    # ------------------------------------------------------------ executors

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Call `func` in a pool, by default one of `juggler.futures.ThreadPoolExecutor`."""
        if executor is None and self._default_executor is None and not self.is_closed():
            self._check_default_executor()
            from juggler.futures import ThreadPoolExecutor

            self._default_executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        return super().run_in_executor(executor, func, *args)
