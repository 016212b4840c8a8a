"""``python -m juggler`` is the ``juggler`` command."""

import sys

from juggler.cli import main

sys.exit(main())
