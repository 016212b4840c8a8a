"""``multiprocessing.resource_tracker`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import resource_tracker
from multiprocessing.resource_tracker import *  # noqa: F403

sys.modules[__name__] = resource_tracker
