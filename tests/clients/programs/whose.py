"""Asserts, from inside a program, that it runs on juggler."""

import asyncio

from juggler.asyncio import EventLoop, Future, Task


def assert_ours() -> None:
    """Fail unless the running loop, its current task and its futures are juggler's."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert type(loop) is EventLoop, loop
    assert type(task) is Task, task
    assert type(loop.create_future()) is Future
