"""``multiprocessing.popen_fork`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import popen_fork
from multiprocessing.popen_fork import *  # noqa: F403

sys.modules[__name__] = popen_fork
