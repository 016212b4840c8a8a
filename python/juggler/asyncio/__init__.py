"""Many waits on one thread: stands in for the standard library's ``asyncio``."""
