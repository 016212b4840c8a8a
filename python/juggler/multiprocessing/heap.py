"""``multiprocessing.heap`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import heap
from multiprocessing.heap import *  # noqa: F403

sys.modules[__name__] = heap
