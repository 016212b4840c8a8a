"""Has the standard library's forkserver begin on juggler, before it imports the main module.

Its children install juggler anyway, but that is too late for classes which the main module and
what it imports have derived from the standard library's by then.
"""

from collections.abc import Sequence
from multiprocessing import forkserver, util
from typing import Any

from juggler import _program
from juggler.multiprocessing.spawn import BOOT


class _Util:
    """``multiprocessing.util`` as the module `forkserver` sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(util, name)

    def spawnv_passfds(self, path: bytes, args: Sequence[str], passfds: Sequence[int]) -> int:
        """Start the server, on juggler if this process is."""
        settings = _program.child_settings()
        command = [*args]
        if settings is not None:
            code = command.index("-c") + 1
            first = f"__import__('runpy').run_path({BOOT!r}, {{'settings': {settings!r}}})"
            command[code] = f"{first}; {command[code]}"
        return util.spawnv_passfds(path, command, passfds)


def prepare() -> None:
    """To be called before the server may be started."""
    if not isinstance(vars(forkserver)["util"], _Util):
        vars(forkserver)["util"] = _Util()
