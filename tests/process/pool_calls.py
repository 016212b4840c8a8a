"""Calls that the process pool's tests make, in a module that every worker can import."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Never


def identity(value: Any) -> Any:
    return value


def kill_self(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(60)


def segfault() -> None:
    ctypes.string_at(0)


def exit_now(status: int) -> None:
    os._exit(status)


def exit_when(marker: str) -> None:
    """Die once the file is there."""
    while not os.path.exists(marker):
        time.sleep(0.01)
    os._exit(1)


def return_when(marker: str, value: Any) -> Any:
    """Return once the file is there."""
    while not os.path.exists(marker):
        time.sleep(0.01)
    return value


def kill_if(value: int, culprit: int) -> int:
    if value == culprit:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def die_once(marker: str) -> str:
    """Dies the first time, and returns the second."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        os._exit(7)
    return "alive"


def sleep_then(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


def touch_then_sleep(marker: str, seconds: float) -> None:
    Path(marker).touch()
    time.sleep(seconds)


def stubborn(marker: str) -> None:
    """Catches what would stop it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(marker).touch()
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def devour(size: int) -> int:
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(60)
    return len(held)


class TwoArgumentsError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.one = one


def raise_two_arguments() -> Never:
    raise TwoArgumentsError(1, 2)


def raise_with_locals() -> Never:
    marked_local = 1
    raise RuntimeError(f"number {marked_local}")  # the source line


class Unpickled:
    """Can be pickled, not unpickled."""

    def __getstate__(self) -> dict[str, int]:
        return {"a": 1}

    def __setstate__(self, state: dict[str, int]) -> None:
        raise ArithmeticError("refuses to be unpickled")


class Unpicklable:
    def __reduce__(self) -> Never:
        raise ArithmeticError("refuses to be pickled")


def make(name: str) -> Any:
    return {"unpickled": Unpickled, "unpicklable": Unpicklable}[name]()


def raise_unpicklable() -> Never:
    error = RuntimeError("holds what refuses")
    error.held = Unpicklable()  # type: ignore[attr-defined]
    raise error


def make_unknown() -> Any:
    """An object of a class that no other process can import."""
    import types

    module = sys.modules["only_here"] = types.ModuleType("only_here")
    exec("class Unknown: pass", vars(module))
    return module.Unknown()


def put_then_die(target: Any, lock: Any, kind: str) -> None:
    """Die with what `target` is held by, so that others must take over."""
    if kind == "condition":
        target.acquire()
    lock.release()
    if kind == "queue":
        while True:
            target.put(b"x" * 10_000)
    time.sleep(600)


def kill_children() -> None:
    """Kill this process's children: its zygote."""
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def kill_if_27(value: int) -> int:
    return kill_if(value, 27)


def sleep_then_none(seconds: float) -> None:
    time.sleep(seconds)


initialized: list[int] = []


def initialize(value: int) -> None:
    initialized.append(value)


def what_was_initialized(_: Any = None) -> tuple[int, list[int]]:
    return os.getpid(), initialized


def raise_in_initializer() -> Never:
    sys.stderr.close()
    raise RuntimeError("the initializer refuses")


def nested(method: str) -> int:
    import multiprocessing

    from juggler.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        return pool.submit(pow, 2, 5).result(30)


hoarded: list[Any] = []


def hoard(array: Any) -> int:
    """Keeps its argument."""
    hoarded.append(array)
    return len(array)


def die_with(_array: Any) -> Never:
    os._exit(3)


def ones_and_pid(size: int) -> tuple[Any, int]:
    import numpy

    return numpy.ones(size), os.getpid()


def spoil_and_die_once(array: Any, marker: str) -> float:
    """Changes its argument and dies the first time, and returns the sum the second."""
    path = Path(marker)
    if not path.exists():
        path.touch()
        array[:] = 0
        os._exit(7)
    return float(array.sum())


def together(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    return (*args, *kwargs.values())


def are_one(first: object, second: object) -> bool:
    return first is second


class Noted:
    """Notes which threads unpickle it."""

    threads: ClassVar[set[int]] = set()

    def __init__(self, number: int) -> None:
        self.number = number

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.threads.add(threading.get_ident())
        vars(self).update(state)
