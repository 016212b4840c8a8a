"""`install` and `uninstall`: juggler in place of the standard library's concurrency modules.

The modules stay, their public names change: ``threading.Lock`` becomes ``juggler.threading.Lock``,
and so on for every name of ``juggler.threading.__all__`` whose object differs. A program holds
such names in three places, and each is treated in its own way:

* *The standard library's modules*, where they are loaded: replaced at once; where not: when the
  program imports them. Nothing is imported ahead of the program: ``concurrent.futures`` alone
  brings ``logging`` and costs milliseconds.
* *Modules that said* ``from queue import Queue`` *before*: found by identity in the namespaces of
  ``sys.modules`` and replaced there.
* *Everything else* (a base class, a default argument, an instance) stays what it was. It keeps
  working: the two kinds of objects are used side by side.

Private names are left alone. ``threading._allocate_lock`` and its like guard the interpreter's own
books (the table of threads, the end of a thread, the state after ``fork``); they are taken while
the interpreter shuts down, and nothing about them is the program's.
"""

import sys
from _thread import RLock

from juggler import _import_hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Set
    from typing import Any

# Our modules, and those of the standard library that carry the names they replace.
_STDLIB = {
    "juggler.threading": ("threading",),
    "juggler.queue": ("queue",),
    "juggler.futures": ("concurrent.futures", "concurrent.futures._base"),
    "juggler._thread_pool": ("concurrent.futures.thread",),
    "juggler._processes.executor": ("concurrent.futures.process",),
    # The package itself holds methods of its default context, which come to ours by the classes of
    # these modules and by the table of contexts (`_replace_contexts`).
    "juggler.multiprocessing.context": ("multiprocessing", "multiprocessing.context"),
    "juggler.multiprocessing.connection": ("multiprocessing.connection",),
    "juggler.multiprocessing.managers": ("multiprocessing.managers",),
    "juggler.multiprocessing.pool": ("multiprocessing.pool",),
    "juggler.multiprocessing.queues": ("multiprocessing.queues",),
    "juggler.multiprocessing.sharedctypes": ("multiprocessing.sharedctypes",),
    "juggler.multiprocessing.spawn": ("multiprocessing.spawn",),
    "juggler.multiprocessing.synchronize": ("multiprocessing.synchronize",),
    # `run`, `new_event_loop` and their like come to our loop by the policy (`_replace_policy`),
    # which a program may replace by its own.
    "juggler.asyncio._named_loops": ("asyncio", "asyncio.unix_events"),
    "juggler.asyncio._primitives": (
        "asyncio",
        "asyncio.futures",
        "asyncio.locks",
        "asyncio.queues",
    ),
    "juggler.asyncio.streams": ("asyncio", "asyncio.streams"),
    "juggler.asyncio.subprocess": ("asyncio", "asyncio.subprocess"),
    "juggler.asyncio.taskgroups": ("asyncio", "asyncio.taskgroups"),
    "juggler.asyncio.tasks": ("asyncio", "asyncio.tasks"),
    "juggler.asyncio.timeouts": ("asyncio", "asyncio.timeouts"),
}
ASYNCIO = frozenset(ours for ours in _STDLIB if ours.startswith("juggler.asyncio."))
"""What `juggler.asyncio.install` puts in place."""

# These are loaded in the middle of their package, at a moment when our module, which builds on that
# package, could not be imported. The end of the package's import serves for both.
_INNER = {"concurrent.futures._base", "multiprocessing.context"}  # and all of asyncio's
_TRIGGERS = {
    stdlib: [ours for ours in _STDLIB if stdlib in _STDLIB[ours]]
    for family in _STDLIB.values()
    for stdlib in family
    if stdlib not in _INNER and not stdlib.startswith("asyncio.")
}

# These derive from a class of the standard library's and override what that one has inside.
_NEEDS_STOCK = {
    "concurrent.futures.interpreter": ("concurrent.futures.thread", "ThreadPoolExecutor"),
    # Pickled to children that may have imported this before or after juggler was installed.
    "concurrent.futures.process": ("multiprocessing.queues", "Queue"),
    "multiprocessing.synchronize": ("threading", "Barrier"),
}

# Namespaces that keep their own: where the names come from, and what the import system runs on.
_UNTOUCHED = frozenset(
    {"_frozen_importlib", "_frozen_importlib_external", "_queue", "_thread", "_weakrefset"}
    | {name for family in _STDLIB.values() for name in family}
)

# Programs assign to this one: the object there may be theirs.
_ASSIGNED_BY_PROGRAMS = frozenset({"excepthook"})

# Guards what follows. Never held during an import, whose own lock another thread may hold while
# it waits for this one.
_lock = RLock()
_installed: "set[str]" = set()  # those of our modules that are in place
_replaced: "list[tuple[str, dict[str, Any], str, object, object]]" = []
"""Our module, and of what it replaced: namespace, name, stock, ours."""
_stock: "dict[int, tuple[str, object, object]]" = {}
"""By the identity of ours: our module, ours, stock."""
_loading: "set[str]" = set()  # those of our modules that are being executed


def install() -> None:
    """Put juggler in place of the standard library's concurrency modules.

    These are ``threading``, ``queue``, ``concurrent.futures``, ``multiprocessing`` and ``asyncio``.

    Replaces the public names of these modules (and of their submodules) in the modules themselves
    and in every loaded module that took one of them by ``from ... import ...``. Those not imported
    yet are replaced as they are imported. Objects and subclasses made before stay what they are.
    The program's start method stays what its interpreter gives it; children run on juggler, too.

    Call it as early as you can. It is idempotent and does not nest: one `uninstall` undoes any
    number of calls. It may be called from any thread.
    """
    put_in_place(_STDLIB.keys())


def put_in_place(modules: "Set[str]") -> None:
    """Have these of our modules replace the standard library's."""
    with _lock:
        if modules <= _installed:
            return
        new = [ours for ours in _STDLIB if ours in modules and ours not in _installed]
        _installed.update(new)
        for stdlib, replacing in _TRIGGERS.items():
            if not set(new).isdisjoint(replacing):
                _import_hooks.around_import(stdlib, _stdlib_hook(stdlib))
        for ours in new:
            _import_hooks.around_import(ours, _our_hook(ours))
        for name in _NEEDS_STOCK.keys() - _TRIGGERS.keys():
            _import_hooks.around_import(name, _stock_hook(name))
    for ours in new:
        if any(stdlib in sys.modules for stdlib in _STDLIB[ours]):
            __import__(ours)
            _replace(ours)
    _replace_taken()


def is_installed() -> bool:
    """Whether juggler is in place of all of the standard library's modules."""
    return _installed == _STDLIB.keys()


def uninstall() -> None:
    """Undo `install`: every name that it replaced holds the standard library's object again.

    A name that the program has assigned since is left as it is. So is what a module imported
    under `install` took by ``from ... import ...``: nothing tells it from a use of juggler by
    name, and it keeps working. Without `install` before, this does nothing.
    """
    take_out(_STDLIB.keys())


def take_out(modules: "Set[str]") -> None:
    """Undo `put_in_place` for these of our modules."""
    with _lock:
        if modules.isdisjoint(_installed):
            return
        _installed.difference_update(modules)
        for ours in modules:
            _import_hooks.forget_import(ours)
        for stdlib, replacing in _TRIGGERS.items():
            if _installed.isdisjoint(replacing):
                _import_hooks.forget_import(stdlib)
        if not _installed:
            for name in _NEEDS_STOCK:
                _import_hooks.forget_import(name)
        for module, namespace, name, stock, ours in reversed(_replaced):
            if module not in modules or namespace.get(name) is not ours:
                continue
            if stock is None:
                del namespace[name]
            else:
                namespace[name] = stock
        # `concurrent.futures` binds ThreadPoolExecutor by itself, at its first use.
        for namespace in _families(modules):
            for name, value in list(namespace.items()):
                if id(value) in _stock and _stock[id(value)][0] in modules:
                    namespace[name] = _stock[id(value)][2]
        _replaced[:] = [entry for entry in _replaced if entry[0] not in modules]
        for identity in [key for key, entry in _stock.items() if entry[0] in modules]:
            del _stock[identity]


def _stdlib_hook(stdlib: str) -> "Callable[[Callable[[], None]], None]":
    with_stock = _stock_hook(stdlib) if stdlib in _NEEDS_STOCK else None

    def hook(execute: "Callable[[], None]") -> None:
        if with_stock is None:
            execute()
        else:
            with_stock(execute)
        for ours in _TRIGGERS[stdlib]:
            if ours not in _installed:
                continue
            __import__(ours)
            # Our module may be what imports `stdlib`. It is replaced when ours is complete.
            if ours not in _loading:
                _replace(ours)

    return hook


def _our_hook(ours: str) -> "Callable[[Callable[[], None]], None]":
    def hook(execute: "Callable[[], None]") -> None:
        _loading.add(ours)
        try:
            execute()
        finally:
            _loading.discard(ours)
        _replace(ours)

    return hook


def _stock_hook(name: str) -> "Callable[[Callable[[], None]], None]":
    module, public = _NEEDS_STOCK[name]

    def hook(execute: "Callable[[], None]") -> None:
        __import__(module)
        namespace = vars(sys.modules[module])
        ours = namespace[public]
        namespace[public] = _stock.get(id(ours), ("", ours, ours))[2]
        try:
            execute()
        finally:
            namespace[public] = ours

    return hook


def _replace(module: str) -> None:
    """Replace the names of one of our modules in its family."""
    ours = sys.modules[module]
    with _lock:
        if module not in _installed:
            return
        for stdlib in _STDLIB[module]:
            if stdlib not in sys.modules:
                continue
            namespace = vars(sys.modules[stdlib])
            # Only what is there already: `concurrent.futures` would import what it is asked for.
            for name in namespace.keys() & set(ours.__all__) - _ASSIGNED_BY_PROGRAMS:
                stock, mine = namespace[name], getattr(ours, name)
                if mine is not stock:
                    _put(module, namespace, name, stock, mine)
        if module == "juggler.multiprocessing.context":
            _replace_contexts(module, ours.contexts)
        elif module == "juggler.asyncio._named_loops":
            _replace_policy(module)


def _replace_contexts(ours: str, contexts: "dict[str, Any]") -> None:
    """Put our contexts where ``multiprocessing`` keeps its own.

    The default context with all its methods stays the program's; it looks the start methods up in
    a private table. It may have chosen one already, or (up to 3.13) been made with one.
    """
    module: Any = sys.modules["multiprocessing.context"]
    table = module._concrete_contexts
    chosen = vars(module._default_context)
    for name in ("_actual_context", "_default_context"):
        stock = chosen.get(name)
        if stock is not None and table.get(stock._name) is stock:
            _put(ours, chosen, name, stock, contexts[stock._name])
    for name, context in contexts.items():
        _put(ours, table, name, table.get(name), context)


def _replace_policy(ours: str) -> None:
    """Have ``asyncio`` make our loops, unless the program has a policy of its own."""
    policies: Any = sys.modules[ours]
    stock = policies.get_policy()
    if type(stock) is policies.StockPolicy:
        namespace = vars(sys.modules["asyncio.events"])
        _put(ours, namespace, "_event_loop_policy", stock, policies.EventLoopPolicy())


def _replace_taken() -> None:
    """Replace what other modules took from the families by name, before `install`."""
    with _lock:
        # Not constants such as FIRST_COMPLETED: an equal text need not be meant as one.
        found = {id(entry[2]): entry for entry in _stock.values() if callable(entry[2])}
        if not found:  # as under `juggler run`, where nothing of the program's is loaded yet
            return
        for namespace in _other_namespaces():
            for name, value in list(namespace.items()):
                if id(value) in found:
                    ours, mine, stock = found[id(value)]
                    _put(ours, namespace, name, stock, mine)


def _put(ours: str, namespace: "dict[str, Any]", name: str, stock: object, mine: object) -> None:
    namespace[name] = mine
    _replaced.append((ours, namespace, name, stock, mine))
    _stock[id(mine)] = ours, mine, stock


def _families(modules: "Set[str]") -> "Iterator[dict[str, Any]]":
    for ours in modules & _STDLIB.keys():
        for stdlib in _STDLIB[ours]:
            if stdlib in sys.modules:
                yield vars(sys.modules[stdlib])


def _other_namespaces() -> "Iterator[dict[str, Any]]":
    module_type = type(sys)
    for name, module in list(sys.modules.items()):
        if name in _UNTOUCHED or name.partition(".")[0] == "juggler":
            continue
        if isinstance(module, module_type):
            # Not `vars(module)`, which would make a lazy module load.
            yield module_type.__getattribute__(module, "__dict__")
