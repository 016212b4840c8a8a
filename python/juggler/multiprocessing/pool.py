"""``multiprocessing.pool` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import pool
from multiprocessing.pool import *  # noqa: F403

sys.modules[__name__] = pool
