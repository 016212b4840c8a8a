import sys

# Whatever the running version has; what follows takes the place of some of it.
from asyncio import *  # noqa: F403

from juggler.asyncio._event_loop import EventLoop as EventLoop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._handles import Handle as Handle  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._handles import TimerHandle as TimerHandle  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._named_loops import SelectorEventLoop as SelectorEventLoop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import EventLoopPolicy as EventLoopPolicy  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import Runner as Runner  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import get_event_loop as get_event_loop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import install as install  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import new_event_loop as new_event_loop  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import run as run  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._running import uninstall as uninstall  # type: ignore[assignment, unused-ignore]
from juggler.asyncio._watchdog import Blocked as Blocked
from juggler.asyncio._watchdog import watchdog as watchdog
from juggler.asyncio.futures import Future as Future  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import Barrier as Barrier  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import BoundedSemaphore as BoundedSemaphore  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import Condition as Condition  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import Event as Event  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import Lock as Lock  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.locks import Semaphore as Semaphore  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import LifoQueue as LifoQueue  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import PriorityQueue as PriorityQueue  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import Queue as Queue  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import QueueEmpty as QueueEmpty  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import QueueFull as QueueFull  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.queues import QueueShutDown as QueueShutDown  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.taskgroups import TaskGroup as TaskGroup  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.tasks import Task as Task  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.tasks import create_task as create_task  # type: ignore[assignment, unused-ignore]
from juggler.asyncio.tasks import gather as gather  # type: ignore[assignment, no-redef, unused-ignore]
from juggler.asyncio.tasks import sleep as sleep  # type: ignore[assignment, no-redef, unused-ignore]
from juggler.asyncio.tasks import wait as wait  # type: ignore[assignment, unused-ignore]

if sys.version_info >= (3, 12):
    from juggler.asyncio.tasks import eager_task_factory as eager_task_factory  # type: ignore[assignment, unused-ignore]
