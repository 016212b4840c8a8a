"""``multiprocessing.connection` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import connection
from multiprocessing.connection import *  # noqa: F403

sys.modules[__name__] = connection
