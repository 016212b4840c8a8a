# Whatever the running version has; what follows takes the place of some of it.
from asyncio import *  # noqa: F403

from juggler.asyncio._event_loop import EventLoop as EventLoop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._handles import Handle as Handle  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._handles import TimerHandle as TimerHandle  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import EventLoopPolicy as EventLoopPolicy  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import Runner as Runner  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import get_event_loop as get_event_loop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import install as install  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import new_event_loop as new_event_loop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import run as run  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import uninstall as uninstall  # type: ignore[assignment, unused-ignore]
