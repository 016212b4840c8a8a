"""``multiprocessing.synchronize` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import synchronize
from multiprocessing.synchronize import *  # noqa: F403

sys.modules[__name__] = synchronize
