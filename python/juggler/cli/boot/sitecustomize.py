"""The second half of ``juggler run``, in the interpreter that is about to run the program.

`site` imports this before anything of the program. It puts the environment and the import system
back as they were, has juggler installed, and gives way to the ``sitecustomize`` that would have
been found in its place.
"""

import os
import sys


def _restore() -> None:
    """Take back what ``juggler.cli.run`` did to the environment and to ``sys.path``."""
    boot = os.path.dirname(__file__)
    path = os.environ.pop("JUGGLER_RUN_PYTHONPATH", None)
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path
    sys.path.remove(boot)
    sys.path_importer_cache.pop(boot, None)
    del sys.modules[__name__]


def _begin() -> None:
    """Install juggler: the copy that this file belongs to, wherever it lies."""
    root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
    sys.path.insert(0, root)
    try:
        from juggler import _program
    finally:
        sys.path.remove(root)
    _program.begin(
        detect=os.environ.pop("JUGGLER_RUN_DETECT") == "1",
        report=os.environ.pop("JUGGLER_RUN_REPORT", None),
        report_file=os.environ.pop("JUGGLER_RUN_REPORT_FILE", None),
    )


_restore()
_begin()
# Where there is none, `site` expects exactly this ImportError, and passes over it.
__import__("sitecustomize")
