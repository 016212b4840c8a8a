from asyncio import *  # noqa: F403
from asyncio import __all__ as __all__
