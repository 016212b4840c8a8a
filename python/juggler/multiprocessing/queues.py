"""``multiprocessing.queues` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import queues
from multiprocessing.queues import *  # noqa: F403

sys.modules[__name__] = queues
