"""Puts a child of a program that runs on juggler on juggler, too.

Run by path, when the child unpickles the first of what its parent sends it: juggler need not be
where the child would find it. `settings` is among the globals that this file is run with.
"""

import os
import sys

root = os.path.abspath(f"{os.path.dirname(__file__)}/../../..")
sys.path.insert(0, root)
try:
    from juggler import _program
finally:
    sys.path.remove(root)
_program.begin_child(settings)  # type: ignore[name-defined]  # noqa: F821
