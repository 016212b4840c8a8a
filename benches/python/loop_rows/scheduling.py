"""What it costs to have the loop call something: CPU time per call of a function without a body.

The loops are made once and not closed: what is measured is their running.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from itertools import repeat
from typing import Any

from harness.contenders import Contender
from harness.measure import Bench, Effort, bench

GROUP = "event loop: scheduling"

_CALLS = 20_000
_clock = time.process_time


def nothing() -> None:
    """What is called."""


def _row(name: str, work: Callable[[Any, int], None], share: float = 1.0) -> Bench:
    """A row in which `work(loop, count)` does something `count` times."""

    def prepare(contender: Contender, effort: Effort) -> Callable[[], float]:
        loop = contender.classes["new_event_loop"]()
        count = effort.count(int(_CALLS * share))

        def sample() -> float:
            began = _clock()
            work(loop, count)
            return (_clock() - began) / count

        return sample

    return bench(GROUP, name, ["new_event_loop"], prepare)


def _soon(loop: Any, count: int) -> None:
    call_soon = loop.call_soon
    for _ in repeat(None, count):
        call_soon(nothing)
    call_soon(loop.stop)
    loop.run_forever()


def _soon_with_arguments(loop: Any, count: int) -> None:
    call_soon, function = loop.call_soon, (lambda a, b: None)
    for _ in repeat(None, count):
        call_soon(function, 1, 2)
    call_soon(loop.stop)
    loop.run_forever()


def _chain(loop: Any, count: int) -> None:
    left = count

    def link() -> None:
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(link)
        else:
            loop.stop()

    loop.call_soon(link)
    loop.run_forever()


def _threadsafe(loop: Any, count: int) -> None:
    call = loop.call_soon_threadsafe
    for _ in repeat(None, count):
        call(nothing)
    call(loop.stop)
    loop.run_forever()


def _cancelled(loop: Any, count: int) -> None:
    call_later = loop.call_later
    for _ in repeat(None, count):
        call_later(60, nothing).cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()


def _fired(loop: Any, count: int) -> None:
    call_later = loop.call_later
    for _ in repeat(None, count):
        call_later(0, nothing)
    call_later(0.001, loop.stop)  # the peers' clocks know milliseconds
    loop.run_forever()


def _ready(loop: Any, count: int) -> None:
    """A byte to oneself, again and again."""
    a, b = socket.socketpair()
    left = count

    def read() -> None:
        nonlocal left
        try:
            a.recv(1)
        except BlockingIOError:  # rloop calls once too often
            return
        left -= 1
        if left:
            b.send(b"x")
        else:
            loop.stop()

    with a, b:
        a.setblocking(False)
        loop.add_reader(a.fileno(), read)
        b.send(b"x")
        loop.run_forever()
        loop.remove_reader(a.fileno())


ROWS = [
    _row("call_soon", _soon),
    _row("call_soon with two arguments", _soon_with_arguments),
    _row("call_soon, each from the one before", _chain),
    _row("call_soon_threadsafe in the loop's thread", _threadsafe),
    _row("call_later, cancelled", _cancelled),
    _row("call_later, fired", _fired),
    _row("add_reader, a byte at a time", _ready, share=0.5),
]
