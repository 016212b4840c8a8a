"""Memory of tasks that sleep, by the resident set of a fresh process; see `thread_rows.memory`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from itertools import repeat

from harness.contenders import Contender
from harness.measure import Bench, Effort, Metric
from loop_rows.contenders import contenders
from thread_rows.child import ask
from thread_rows.memory import resident

_TASKS = 50_000


async def _bytes_each(contender: Contender, count: int) -> float:
    create_task, sleep = contender.classes["create_task"], contender.classes["sleep"]

    async def body() -> None:
        await sleep(3600)

    async def begin(count: int) -> list[object]:
        tasks = [create_task(body()) for _ in repeat(None, count)]
        await sleep(0)
        await sleep(0)
        return tasks

    keep = await begin(1_000)
    gc.collect()
    gc.disable()
    before = resident()
    keep += await begin(count)
    return (resident() - before) / count


def _prepare(contender: Contender, effort: Effort) -> Callable[[], list[list[float]]]:
    arguments = ("loop_rows.memory", contender.name, str(effort.count(_TASKS)))
    return lambda: [[ask(*arguments)]]


ROWS = (
    Bench(
        "tasks",
        (Metric("memory of a task that sleeps", unit="B"),),
        ("new_event_loop", "create_task", "sleep"),
        _prepare,
        most_rounds=3,
    ),
)


if __name__ == "__main__":
    chosen, tasks = sys.argv[1:]
    (contender,) = (each for each in contenders() if each.name == chosen)
    loop = contender.make("new_event_loop")
    print(loop.run_until_complete(_bytes_each(contender, int(tasks))), flush=True)
    # Without waking fifty thousand tasks to cancel them.
    os._exit(0)
