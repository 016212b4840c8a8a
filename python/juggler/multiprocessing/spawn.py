"""Starting a new interpreter: stands in for ``multiprocessing.spawn``.

The standard library's, and what it sends to a child says whether juggler is installed: the child
then installs it, before it imports the main module.
"""

from __future__ import annotations

import os
import runpy
from multiprocessing.spawn import (
    _main,
    freeze_support,
    get_command_line,
    get_executable,
    import_main_path,
    set_executable,
)
from multiprocessing.spawn import get_preparation_data as _get_preparation_data

from juggler import _program

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "_main",
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "set_executable",
]

BOOT = os.path.join(os.path.dirname(os.path.dirname(__file__)), "cli", "boot", "child.py")


class _Installed:
    """Installs juggler where it is unpickled."""

    def __init__(self, settings: dict[str, bool]) -> None:
        self._settings = settings

    def __reduce__(self) -> tuple[Any, ...]:
        return runpy.run_path, (BOOT, {"settings": self._settings})


def get_preparation_data(name: str) -> dict[str, Any]:
    """What a child needs to know before it can unpickle its process object."""
    data: dict[str, Any] = _get_preparation_data(name)
    settings = _program.child_settings()
    if settings is not None:
        data["juggler"] = _Installed(settings)
    return data
