"""What the tests call: importable, so that it runs in other processes, too."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import juggler
from juggler import futures

FIXED = (
    "serial",
    "threads",
    "processes",
    "loop",
    "loop of threads",
    "stock threads",
    "processes' pool",
)
EVERYWHERE = (*FIXED, "auto", "auto loop")


@contextmanager
def running(name: str) -> Iterator[Callable[..., Any]]:
    """`juggler.map` with its `on=` for this name."""
    if name == "stock threads":
        with ThreadPoolExecutor(4) as executor:
            yield lambda fn, items, **options: juggler.map(fn, items, on=executor, **options)
    elif name == "processes' pool":
        with futures.ProcessPoolExecutor(2) as processes:
            yield lambda fn, items, **options: juggler.map(fn, items, on=processes, **options)
    else:
        on: Any = {"loop of threads": "threads", "auto loop": "auto"}.get(name, name)
        yield lambda fn, items, **options: juggler.map(
            awaiting(fn) if "loop" in name else fn, items, on=on, **options
        )


class awaiting:  # noqa: N801 - reads as a function
    """A coroutine function that does what a function does."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return self.function(*args, **kwargs)


def double(number: int) -> int:
    return 2 * number


def add(first: int, second: int) -> int:
    return first + second


def brittle(number: int) -> int:
    """Fails for multiples of 3."""
    if number % 3 == 0:
        raise ValueError(f"{number} is a multiple of 3")
    return number


def sleepy(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def deadly(number: int) -> int:
    """Kills its process for 5."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def unpicklable(number: int) -> Any:
    """What can't travel, for 2."""
    return threading.Lock() if number == 2 else number


def process(_: object) -> int:
    return os.getpid()


def where(_: object) -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


def spin(seconds: float) -> int:
    """Computes in pure Python."""
    end = time.thread_time() + seconds
    count = 0
    while time.thread_time() < end:
        count += 1
    return os.getpid()


class Pulled:
    """Counts how many items were pulled of it."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = iter(items)
        self.count = 0

    def __iter__(self) -> "Pulled":
        return self

    def __next__(self) -> Any:
        item = next(self.items)
        self.count += 1
        return item
