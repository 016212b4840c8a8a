"""Lay a replacement package over the standard library's concurrency modules.

`install("juggler")` puts an `Overlay` into `sys.modules` for every stdlib module that the package
replaces.  A later `import threading` or `from concurrent import futures` binds the overlay, while
whatever was imported before keeps the real module.

This file is also executed by the interpreters that the tests start (see `prelude`), so it imports
nothing of ours and as little as it can of the standard library.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable, Sequence
from types import ModuleType
from typing import Any

LAYERS = {
    # submodule of the package -> the stdlib modules with the same objects, the main one first
    "threading": ("threading",),
    "queue": ("queue",),
    "futures": (
        "concurrent.futures",
        "concurrent.futures._base",
        "concurrent.futures.thread",
        "concurrent.futures.process",
    ),
}

# What the main module is called; its layer is looked up by this name everywhere.
REAL = {layer: names[0] for layer, names in LAYERS.items()}


class Overlay(ModuleType):
    """The replacement's own names on top of a stdlib module.

    Reading, setting and deleting one of those names reaches the replacement; any other name (also
    one that the replacement merely re-exports) reaches the real module, so a test that patches
    `threading.excepthook` or pokes `threading._active` still does what it says.
    """

    def __init__(self, real: ModuleType, over: Any, names: Collection[str]) -> None:
        own = {n for n in names if not hasattr(real, n) or getattr(over, n) is not getattr(real, n)}
        # Straight into __dict__: our own __setattr__ would forward to the real module.
        attributes = self.__dict__
        attributes.update(
            __name__=real.__name__,
            __doc__=real.__doc__,
            __spec__=real.__spec__,
            __loader__=getattr(real, "__loader__", None),
            __package__=real.__package__,
            __file__=getattr(real, "__file__", None),
            _overlay_real=real,
            _overlay_over=over,
            _overlay_own=frozenset(own),
        )
        for name in ("__path__", "__all__"):
            if hasattr(real, name):
                attributes[name] = list(getattr(real, name))

    def _overlay_side(self, name: str) -> Any:
        own = name in self.__dict__["_overlay_own"]
        return self.__dict__["_overlay_over" if own else "_overlay_real"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._overlay_side(name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            self.__dict__[name] = value
        else:
            setattr(self._overlay_side(name), name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            del self.__dict__[name]
        else:
            delattr(self._overlay_side(name), name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._overlay_real), *self._overlay_own})


def exported(module: ModuleType) -> list[str]:
    """The names a module offers: its `__all__`, else whatever is public and not a module."""
    names: Iterable[str] | None = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and not isinstance(value, ModuleType)
        ]
    return [name for name in names if hasattr(module, name)]


def add_tests(directories: Sequence[str]) -> None:
    """Complete the `test` package, which keeps precedence: they only add what it lacks."""
    package: Any = importlib.import_module("test")
    package.__path__.extend(path for path in directories if path not in package.__path__)
    if sys.version_info[:2] == (3, 12):
        # 3.12 borrows tests from 3.13, whose decorators speak of builds that 3.12 does not have:
        # free-threaded ones and those with the thread sanitizer.
        support: Any = importlib.import_module("test.support")
        support.Py_GIL_DISABLED = False
        keep: Any = lambda *_, **__: lambda test: test  # noqa: E731
        support.requires_gil_enabled = support.skip_if_sanitizer = keep


def install(
    package: str, paths: Sequence[str] = (), extra_tests: Sequence[str] = ()
) -> tuple[dict[str, ModuleType], dict[str, Overlay]]:
    """Put the overlays of `package` into `sys.modules`.

    Args:
        package: a package with any of the submodules `threading`, `queue` and `futures`.
        paths: directories put before `sys.path`.
        extra_tests: directories with what the interpreter's own `test` package lacks.

    Returns:
        The package's submodules by layer, and the overlays by the name of the stdlib module.
    """
    sys.path[:0] = [path for path in paths if path not in sys.path]
    if extra_tests:
        add_tests(extra_tests)

    layers = {
        layer: importlib.import_module(f"{package}.{layer}")
        for layer in LAYERS
        if importlib.util.find_spec(f"{package}.{layer}")
    }
    overlays: dict[str, Overlay] = {}
    for layer, over in layers.items():
        main, *others = LAYERS[layer]
        top = importlib.import_module(main)
        names = exported(over)
        overlays[main] = Overlay(top, over, names)
        for other in others:
            real = importlib.import_module(other)
            # A submodule gets only the names it shares with the module its package re-exports.
            shared = [
                n for n in names if n in vars(real) and vars(real)[n] is getattr(top, n, None)
            ]
            overlays[other] = Overlay(real, over, shared)

    sys.modules.update(overlays)
    for name, overlay in overlays.items():
        parent, _, leaf = name.rpartition(".")
        if parent:
            # `import a.b` reads b from a's attributes; an overlay keeps its own copy of them.
            sys.modules[parent].__dict__[leaf] = overlay
    return layers, overlays


def prelude(package: str, paths: Sequence[str], extra_tests: Sequence[str]) -> str:
    """Source text that installs the overlays; put before the code of a `python -c` child."""
    return (
        "import importlib.util as _u; "
        f"_s = _u.spec_from_file_location('_overlay', {os.path.abspath(__file__)!r}); "
        "_m = _u.module_from_spec(_s); _s.loader.exec_module(_m); "
        f"_m.install({package!r}, {list(paths)!r}, {list(extra_tests)!r}); del _s, _m, _u\n"
    )
