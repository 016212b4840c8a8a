"""juggler's process pool, as far as it is Python."""
