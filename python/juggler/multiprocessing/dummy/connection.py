"""``multiprocessing.dummy.connection`` itself: juggler has nothing of its own there."""

import sys
from multiprocessing.dummy import connection
from multiprocessing.dummy.connection import *  # noqa: F403

sys.modules[__name__] = connection
