"""queue, re-exported."""

from queue import *  # noqa: F403
from queue import __all__ as __all__
