"""Queues, pipes and managers between two processes, in numbers.

The other process is forked before the clock runs. A contender is a few classes under the names of
the standard library's; `faster_fifo` has a queue only.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import repeat
from multiprocessing import connection, managers
from typing import Any

from harness.contenders import Contender, version
from harness.measure import Bench, Effort, Metric, Turn

GROUP = "between two processes"

_fork = multiprocessing.get_context("fork")
_clock = time.perf_counter


def _put_all(queue: Any, go: Any, item: object, count: int) -> None:
    while go.recv():
        for _ in repeat(None, count):
            queue.put(item)


def _echo(end: Any, other: Any) -> None:
    other.close()
    with suppress(EOFError):
        while True:
            end.send(end.recv())


def _queue_row(name: str, item: object, full: int) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        count, queue = effort.count(full), contender.classes["Queue"]()
        go, told = _fork.Pipe()
        _fork.Process(target=_put_all, args=(queue, told, item, count), daemon=True).start()

        def turn() -> Sequence[Sequence[float]]:
            begin = _clock()
            go.send(True)
            for _ in repeat(None, count):
                queue.get()
            return [[(_clock() - begin) / count]]

        return turn

    return Bench(GROUP, (Metric(name),), ("Queue",), prepare, _entrants())


def _trips_row(
    name: str, needs: str, start: Callable[[Contender], Callable[[], object]], full: int
) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        count, trip = effort.count(full), start(contender)

        def turn() -> Sequence[Sequence[float]]:
            begin = _clock()
            for _ in repeat(None, count):
                trip()
            return [[(_clock() - begin) / count]]

        return turn

    return Bench(GROUP, (Metric(name),), (needs,), prepare, _entrants())


def _pipe(contender: Contender) -> Callable[[], object]:
    end, other = contender.classes["Pipe"]()
    _fork.Process(target=_echo, args=(other, end), daemon=True).start()
    other.close()

    def trip() -> None:
        end.send((1, "item"))
        end.recv()

    return trip


def _manager(contender: Contender) -> Callable[[], object]:
    # juggler's connections serve all managers once its own are imported.
    managers.listener_client["pickle"] = contender.classes["channels"]  # type: ignore[attr-defined]
    manager = contender.classes["Manager"]()
    shared = manager.dict(key=1)
    # The proxy keeps the manager's connection, but not the manager.
    return partial(lambda manager, shared: shared["key"], manager, shared)


def _entrants() -> tuple[Contender, ...]:
    import juggler.multiprocessing.managers  # noqa: F401  (before the rows that set what it sets)
    from juggler.multiprocessing import get_context

    names = ("Queue", "Pipe", "Manager")
    ours = get_context("fork")
    entrants = [
        Contender(
            "stdlib",
            "this interpreter's",
            {name: getattr(_fork, name) for name in names}
            | {"channels": (connection.Listener, connection.Client)},
        ),
        Contender(
            "juggler",
            version("juggler"),
            {name: getattr(ours, name) for name in names}
            | {"channels": managers.listener_client["pickle"]},  # type: ignore[attr-defined]
        ),
    ]
    if importlib.util.find_spec("faster_fifo"):
        import faster_fifo  # type: ignore[import-not-found,unused-ignore]

        queue = {"Queue": lambda: faster_fifo.Queue(4 << 20)}
        entrants.append(Contender("faster-fifo", version("faster-fifo"), queue))
    return tuple(entrants)


ROWS = [
    _queue_row("Queue: an int from one process to the other", 1, 40_000),
    _queue_row("Queue: 1 KiB of bytes from one process to the other", b"x" * 1024, 40_000),
    _trips_row("Pipe: round trip of an object", "Pipe", _pipe, 2_000),
    _trips_row("Manager: read an item of a dict", "Manager", _manager, 1_000),
]
