"""What the tracer asks of Python: which threads there are, and to be told when one is joined."""

from __future__ import annotations

# What `signal` makes enums of: asked at many waits, and imported with every program.
import _signal  # type: ignore[import-not-found]
import os
import sys
import threading
import time

from juggler import _juggler

_stdlib_join = threading.Thread.join

bystanders: set[int] = set()
"""The identities of threads that end no wait of the program's."""


def live() -> tuple[list[int], bool]:
    """The identities of all threads, and whether Python code may run outside them.

    A thread that is being started is not among them yet, a signal handler runs whenever a signal
    comes, and a thread of a C library may call Python: while any of these is possible, no wait that
    any thread could end is hopeless.
    """
    starting = bool(getattr(threading, "_limbo", None))
    threads = sys._current_frames().keys()
    foreign = len(os.listdir("/proc/self/task")) > len(threads)
    return list(threads - bystanders), starting or foreign or _has_signal_handlers()


_SIGNALS = tuple(range(1, _signal.NSIG))


def _has_signal_handlers() -> bool:
    for number in _SIGNALS:
        handler = _signal.getsignal(number)
        if callable(handler) and handler is not _signal.default_int_handler:
            return True
    return False


def thread_name(ident: int) -> str | None:
    """The name of the thread with this identity."""
    thread = threading._active.get(ident)  # type: ignore[attr-defined]
    return None if thread is None else thread.name


def _join(self: threading.Thread, timeout: float | None = None) -> None:
    if timeout is None and self.ident is not None and self is not threading.current_thread():
        _juggler.trace_join(self, _stdlib_join)
    else:
        _stdlib_join(self, timeout)
    if sys.version_info < (3, 13):
        _await_end(self)


def _await_end(thread: threading.Thread) -> None:
    """Wait for what is left of a thread that was joined; before 3.13 `join` returns before that.

    Until the system's thread has ended the tracer does not know that what it held stays held, and
    a verdict is only taken when a wait begins.
    """
    if thread.is_alive() or thread is threading.main_thread():
        return
    task = f"/proc/self/task/{thread.native_id}"
    # The system may have given the number to another thread meanwhile.
    deadline = time.monotonic() + 0.1
    while os.path.exists(task) and time.monotonic() < deadline:
        time.sleep(0.0001)


_join.__name__ = "join"
_join.__qualname__ = "Thread.join"
_join.__doc__ = _stdlib_join.__doc__


def watch_joins() -> None:
    """Have `threading.Thread.join` tell the tracer whom it waits for."""
    threading.Thread.join = _join  # type: ignore[method-assign]


def unwatch_joins() -> None:
    """Give `threading.Thread.join` back."""
    threading.Thread.join = _stdlib_join  # type: ignore[method-assign]
