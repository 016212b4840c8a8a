from asyncio import *
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from juggler.asyncio._event_loop import EventLoop as EventLoop
from juggler.asyncio._handles import Handle as Handle
from juggler.asyncio._handles import TimerHandle as TimerHandle
from juggler.asyncio._running import EventLoopPolicy as EventLoopPolicy
from juggler.asyncio._running import Runner as Runner
from juggler.asyncio._running import get_event_loop as get_event_loop
from juggler.asyncio._running import install as install
from juggler.asyncio._running import new_event_loop as new_event_loop
from juggler.asyncio._running import run as run
from juggler.asyncio._running import uninstall as uninstall
from juggler.asyncio.futures import Future as Future
from juggler.asyncio.taskgroups import TaskGroup as TaskGroup
from juggler.asyncio.tasks import Task as Task
from juggler.asyncio.tasks import create_task as create_task
from juggler.asyncio.tasks import gather as gather
from juggler.asyncio.tasks import sleep as sleep
from juggler.asyncio.tasks import wait as wait
