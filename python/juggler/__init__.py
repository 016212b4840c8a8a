"""Python's concurrency toolbox, rebuilt in Rust.

Three ways in:

* ``juggler run program.py`` runs an unmodified program on juggler.
* `install` does the same from inside a program, `uninstall` undoes it.
* ``from juggler import threading, queue, futures, multiprocessing, asyncio`` takes the drop-in
  modules by name.
* `juggler.policy` has retries, rates, limits and deadlines for functions and coroutine functions.

Besides, `map` calls a function with each item of a list, many at once, on what it measures to be
best: threads, processes, an event loop; `Pool` keeps its workers. `pipeline` joins such stages.
`fetch` downloads files, and `shutdown` ends a program in order.

Importing this package loads nothing else: each module comes with its first use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from juggler import asyncio, downloads, futures, multiprocessing, policy, queue, threading
    from juggler._map import (
        Advice,
        Choice,
        Facts,
        Pool,
        Progress,
        Results,
        advise,
        last_choice,
        map,
        starmap,
    )
    from juggler._pipelines import Pipeline, StageReport, Stream, pipeline
    from juggler._shutdown import shutdown
    from juggler._substitution import install, uninstall
    from juggler.downloads import fetch

    __version__: str

__all__ = [
    "Advice",
    "Choice",
    "Facts",
    "Pipeline",
    "Pool",
    "Progress",
    "Results",
    "StageReport",
    "Stream",
    "__version__",
    "advise",
    "asyncio",
    "downloads",
    "fetch",
    "futures",
    "install",
    "last_choice",
    "map",
    "multiprocessing",
    "pipeline",
    "policy",
    "queue",
    "shutdown",
    "starmap",
    "threading",
    "uninstall",
]

_MODULES = frozenset(
    {"asyncio", "downloads", "futures", "multiprocessing", "policy", "queue", "threading"}
)
_FUNCTIONS = {
    "Advice": "juggler._map",
    "Choice": "juggler._map",
    "Facts": "juggler._map",
    "Pipeline": "juggler._pipelines",
    "Pool": "juggler._map",
    "Progress": "juggler._map",
    "Results": "juggler._map",
    "StageReport": "juggler._pipelines",
    "Stream": "juggler._pipelines",
    "advise": "juggler._map",
    "fetch": "juggler.downloads",
    "install": "juggler._substitution",
    "last_choice": "juggler._map",
    "map": "juggler._map",
    "pipeline": "juggler._pipelines",
    "shutdown": "juggler._shutdown",
    "starmap": "juggler._map",
    "uninstall": "juggler._substitution",
}


def __getattr__(name: str) -> object:
    import sys

    if name in _MODULES:
        # The import system binds the module in this namespace, so this runs once a name.
        __import__(f"juggler.{name}")
        return sys.modules[f"juggler.{name}"]
    if name in _FUNCTIONS:
        __import__(_FUNCTIONS[name])
        value = getattr(sys.modules[_FUNCTIONS[name]], name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("juggler")
    else:
        raise AttributeError(f"module 'juggler' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
