"""Many waits on one thread: stands in for the standard library's ``asyncio``."""

from __future__ import annotations

import asyncio as _stdlib

from juggler.asyncio._event_loop import EventLoop
from juggler.asyncio._handles import Handle, TimerHandle
from juggler.asyncio.futures import Future
from juggler.asyncio.locks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from juggler.asyncio.queues import (
    LifoQueue,
    PriorityQueue,
    Queue,
    QueueEmpty,
    QueueFull,
    QueueShutDown,
)
from juggler.asyncio.taskgroups import TaskGroup
from juggler.asyncio.tasks import Task, create_task, gather, sleep, wait

TYPE_CHECKING = False

__all__ = [*_stdlib.__all__]


def new_event_loop() -> EventLoop:
    """Make a new event loop."""
    return EventLoop()


def __getattr__(name: str) -> object:
    return getattr(_stdlib, name)
