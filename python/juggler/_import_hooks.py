"""Hooks around the import of modules that the program has not imported yet.

A finder at the head of ``sys.meta_path`` lets the finders behind it locate a module that is
watched, and wraps the loader of what they found. The wrapper takes itself out again before the
module runs, so that ``module.__loader__`` and ``module.__spec__`` are what they would have been.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # neither is imported at run time: both cost more than this whole module
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_hooks: "dict[str, Callable[[Callable[[], None]], None]]" = {}
_watch: "Callable[[str, Callable[[], None]], None] | None" = None


def around_import(name: str, hook: "Callable[[Callable[[], None]], None]") -> None:
    """Have `hook` run the import of the module `name`, whenever it comes.

    Args:
        name: The full name of a module; one hook a name.
        hook: Called in the importing thread, under the import lock of the module, with a function
            that executes the module. It must call that function once. What it raises, the
            import raises.
    """
    _hooks[name] = hook
    _find()


def forget_import(name: str) -> None:
    """Take back the hook of `name`, if it has one."""
    _hooks.pop(name, None)
    _find()


def around_every_import(watch: "Callable[[str, Callable[[], None]], None] | None") -> None:
    """Have `watch` run the import of every module from now on, or none.

    Args:
        watch: Called as a hook is, with the module's name before that function.
    """
    global _watch
    _watch = watch
    _find()


def _find() -> None:
    wanted = bool(_hooks) or _watch is not None
    if wanted and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    elif not wanted and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


class _Finder:
    """Finds the modules that have a hook or are watched, by asking the other finders."""

    def find_spec(
        self,
        name: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if name not in _hooks and _watch is None:
            return None
        for finder in sys.meta_path:
            # Finders without `find_spec` are passed over, as the import system does it.
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, name)  # type: ignore[assignment]
                return spec
        return None


class _Loader:
    """Stands in for a module's loader until the module runs."""

    def __init__(self, loader: "Any", name: str) -> None:
        self._loader = loader
        self._name = name

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: "ModuleType") -> None:
        loader = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = loader
        module.__loader__ = loader

        def execute() -> None:
            hook = _hooks.get(self._name)
            if hook is None:  # taken back since the module was found
                loader.exec_module(module)
            else:
                hook(lambda: loader.exec_module(module))

        if _watch is None:
            execute()
        else:
            _watch(self._name, execute)


_finder: "Any" = _Finder()
