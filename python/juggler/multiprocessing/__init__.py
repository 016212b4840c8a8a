"""Processes: stands in for the standard library's ``multiprocessing``.

Everything the running version's package offers, under the same names. The start method here is
``zygote`` unless `set_start_method` says otherwise: a clean process with one thread that has
imported what the program had imported, and forks each child. It is as safe as ``spawn`` (nothing is
inherited from the program's threads) at about the price of ``fork``, and needs no
``if __name__ == "__main__"``: the child doesn't run the main module, what it needs of it is sent by
value. ``fork``, ``spawn`` and ``forkserver`` are as in the standard library.

Nothing is imported before the first use of a name, `multiprocessing` itself included.

Which start method: ``zygote`` unless there is a reason. ``fork`` when children have to see what the
program had in memory, and it has no threads yet; ``spawn`` when what was imported is not to be
shared; ``forkserver`` for what was made for it. A program under `juggler run` keeps the one that
its interpreter would have given it.

Of the submodules, `connection`, `context`, `managers`, `pool`, `queues`, `sharedctypes`, `spawn`
and `synchronize` have classes of juggler's; all others (`shared_memory`, `process`, `util`, `dummy`
and so on) are the standard library's own.

Deviations:

* A child of the zygote is killed when its parent has died, daemonic or not.
* A child of the zygote has none of the main module's globals but those that what it was sent
  refers to, and those as copies.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing import *  # noqa: F403
    from multiprocessing import context, process, reduction  # noqa: F401

# Submodules that ``import multiprocessing`` brings.
_MODULES = frozenset({"context", "process", "reduction"})

SUBDEBUG = 5
SUBWARNING = 25


def __getattr__(name: str) -> object:
    import sys

    if name in _MODULES:
        __import__(f"{__name__}.{name}")
        return sys.modules[f"{__name__}.{name}"]
    if name != "__all__" and name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from juggler.multiprocessing.context import default_context

    namespace = globals()
    if "__all__" not in namespace:
        # As the standard library has it: what the default context offers, whatever the version.
        namespace["__all__"] = [x for x in dir(default_context) if not x.startswith("_")]
        for public in namespace["__all__"]:
            namespace[public] = getattr(default_context, public)
    if name not in namespace:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return namespace[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})  # type: ignore[misc]
