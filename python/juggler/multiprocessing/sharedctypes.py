"""``multiprocessing.sharedctypes` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import sharedctypes
from multiprocessing.sharedctypes import *  # noqa: F403

sys.modules[__name__] = sharedctypes
