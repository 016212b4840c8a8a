"""``multiprocessing.process`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import process
from multiprocessing.process import *  # noqa: F403

sys.modules[__name__] = process
