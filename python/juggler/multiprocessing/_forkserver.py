"""Has the standard library's forkserver begin on juggler, before it imports the main module.

Its children install juggler anyway, but that is too late for classes which the main module and
what it imports have derived from the standard library's by then.

A request that breaks off, as for want of descriptors, ends the server of older interpreters,
and while it dies others break off, too. They wait for the next server.
"""

import time
from collections.abc import Sequence
from multiprocessing import forkserver, util
from multiprocessing.popen_forkserver import Popen
from typing import Any

from juggler import _program
from juggler.multiprocessing.spawn import BOOT

# For how long a server may be dying, in seconds.
_PAUSES = (0.001, 0.01, 0.1, 1.0)


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


def popen(process: Any) -> Popen:
    """Have the server fork a child, and start the server if there is none."""
    if not isinstance(vars(forkserver)["util"], _Util):
        vars(forkserver)["util"] = _Util()
    for pause in _PAUSES:
        try:
            return Popen(process)
        except (ConnectionError, EOFError):  # before the child had a number: it has not run
            time.sleep(pause)
    return Popen(process)
