"""``multiprocessing.shared_memory`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import shared_memory
from multiprocessing.shared_memory import *  # noqa: F403

sys.modules[__name__] = shared_memory
