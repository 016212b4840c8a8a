"""threading, re-exported."""

from threading import *  # noqa: F403
from threading import __all__ as __all__
