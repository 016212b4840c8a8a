"""``python -m juggler`` is the ``juggler`` command."""

from juggler.cli import script

script()
