"""``multiprocessing.resource_sharer`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import resource_sharer
from multiprocessing.resource_sharer import *  # noqa: F403

sys.modules[__name__] = resource_sharer
