"""``multiprocessing.popen_forkserver`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import popen_forkserver
from multiprocessing.popen_forkserver import *  # noqa: F403

sys.modules[__name__] = popen_forkserver
