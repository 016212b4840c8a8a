"""Has every process of the training write its profile, however it ends.

The profile is written by a function that the C library calls at a process's end. Workers that were
forked end without that: `os._exit` is for them what it has to be, but here it would lose all that
they did.
"""

import ctypes
import os

os._exit = ctypes.CDLL(None).exit
