"""``multiprocessing.dummy`` itself, which has the package's interface over threads."""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import *  # noqa: F403

sys.modules[__name__] = dummy
