"""``multiprocessing.forkserver`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import forkserver
from multiprocessing.forkserver import *  # noqa: F403

sys.modules[__name__] = forkserver
