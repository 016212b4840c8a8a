"""``multiprocessing.popen_spawn_posix`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing import popen_spawn_posix
from multiprocessing.popen_spawn_posix import *  # noqa: F403

sys.modules[__name__] = popen_spawn_posix
