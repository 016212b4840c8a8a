"""``multiprocessing.managers` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import managers
from multiprocessing.managers import *  # noqa: F403

sys.modules[__name__] = managers
