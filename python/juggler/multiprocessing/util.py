"""``multiprocessing.util`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import util
from multiprocessing.util import *  # noqa: F403

sys.modules[__name__] = util
