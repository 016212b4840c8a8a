"""``multiprocessing.reduction`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import reduction
from multiprocessing.reduction import *  # noqa: F403

sys.modules[__name__] = reduction
