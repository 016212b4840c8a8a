"""Many waits on one thread: stands in for the standard library's ``asyncio``.

Native: the event loop with its handles and timers, `Future`, `Task`, `TaskGroup`, `as_completed`,
`create_task`, `gather`, `shield`, `sleep`, `timeout`, `wait`, `wait_for`, locks and their like,
queues, streams, transports of sockets, pipes and datagrams, TLS, the streams of child processes.
Everything else, whatever the running version has, is the standard library's own object, and runs on
the native loop unchanged.

Five ways in: ``juggler run program.py`` for a program as it is; ``from juggler import asyncio``
and go on as ever; ``juggler.asyncio.run(main())``; ``loop_factory=juggler.asyncio.new_event_loop``
for whatever takes one; `install` for a program that calls ``asyncio.run`` itself.

`juggler run` and `install` put the loop and the classes in place: ``asyncio.Task`` is `Task`, and
so on, in every module that has the name. By the other ways, a module that says ``asyncio.Lock`` has
the standard library's, which gets along with everything here; tasks and futures that the loop makes
are native in any case. A policy of the program's own stays, and so do a loop made with a selector
and a class derived from ``asyncio.SelectorEventLoop``: these count on what is inside the standard
library's loop.

Beyond the running version's standard library: `run` takes a ``loop_factory`` on every version;
servers have ``close_clients`` and ``abort_clients``, and there is `eager_task_factory`, on every
version; child processes need neither the main thread nor a child watcher; timers are exact to well
below a millisecond; the default executor is `juggler.futures.ThreadPoolExecutor`.

Deviations:

* Of the standard library's loop, the private parts `_ready`, `_scheduled` and `_run_once` have no
  effect.
* A busy loop looks at its descriptors once in 20 µs, if the last 16 looks were in vain, and not in
  each turn.
* While the loop runs in the main thread, it is the one whom signals wake (`signal.set_wakeup_fd`),
  unless somebody else is.
* In the child of a fork the loop counts as not running.
* A loop holds its tasks until they are done, so none is collected midway; that a pending task was
  destroyed is therefore never reported.
* `sleep` is a class, whose instances are coroutines. `wait_for` is a native function, which
  `inspect.iscoroutinefunction` does not take for a coroutine function.
* Before CPython 3.13, what `as_completed` gives is an object with the methods of a generator.
* A native transport passes `isinstance` for `asyncio.Transport`, but its class is no subclass.
"""

from __future__ import annotations

import asyncio as _stdlib
import sys as _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The submodules by the names that they offer here. Each is imported when it is first asked for:
# where juggler is installed, those that `asyncio` has names of are imported with it, and what
# belongs to connections, child processes and checks is not.
_OFFERED = {
    "_checks": ("SwallowedCancellation",),
    "_event_loop": ("EventLoop",),
    "_handles": ("Handle", "TimerHandle"),
    "_named_loops": ("EventLoopPolicy", "SelectorEventLoop"),
    "_running": ("Runner", "get_event_loop", "install", "new_event_loop", "run", "uninstall"),
    "_watchdog": ("Blocked", "watchdog"),
    "futures": ("Future",),
    "locks": ("Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "Semaphore"),
    "queues": ("LifoQueue", "PriorityQueue", "Queue", "QueueEmpty", "QueueFull", "QueueShutDown"),
    "streams": (
        "StreamReader",
        "StreamReaderProtocol",
        "StreamWriter",
        "open_connection",
        "open_unix_connection",
        "start_server",
        "start_unix_server",
    ),
    "subprocess": ("create_subprocess_exec", "create_subprocess_shell"),
    "taskgroups": ("TaskGroup",),
    "tasks": (
        "Task",
        "as_completed",
        "create_eager_task_factory",
        "create_task",
        "eager_task_factory",
        "gather",
        "shield",
        "sleep",
        "wait",
        "wait_for",
    ),
    "timeouts": ("Timeout", "timeout", "timeout_at"),
}
_OWN = {name: module for module, names in _OFFERED.items() for name in names}
_MODULES = frozenset(module for module in _OFFERED if not module.startswith("_"))
__all__ = sorted({*_stdlib.__all__, *_OWN})


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        # The import system binds the module in this namespace, so this runs once a name.
        __import__(f"juggler.asyncio.{name}")
        return _sys.modules[f"juggler.asyncio.{name}"]
    if name in _OWN:
        module = f"juggler.asyncio.{_OWN[name]}"
        __import__(module)
        value = globals()[name] = getattr(_sys.modules[module], name)
        return value
    # Names of the standard library's module, also those that only some versions have; but not what
    # the import system keeps in a module.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    return getattr(_stdlib, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OWN, *dir(_stdlib)})
