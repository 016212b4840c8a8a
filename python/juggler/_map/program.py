"""A whole program under measurement: what `juggler advise program.py` runs."""

from __future__ import annotations

import asyncio
import concurrent.futures as stdlib
import functools
import inspect
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import thread as stdlib_thread
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from juggler import futures
from juggler._map import advice
from juggler._map.advice import Advice
from juggler._map.measuring import Measuring

_CALLS = 5
"""So many calls of a function are measured, if they take no longer than `_SECONDS`."""
_SECONDS = 0.5
_PATIENCE = 1.0
"""Seconds that a call waits for the measured one to end; it may be what that one waits for."""


class Subject:
    """A function that the program has handed over.

    Attributes:
        name: its name.
        handed_to: what to.
        calls: how often; chunks of calls count as one.
    """

    def __init__(self, function: Any, handed_to: str) -> None:
        self.name = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.handed_to = handed_to
        self.calls = 0
        self._function = function
        self._measured = 0
        self._measuring: Measuring | None = None

    @property
    def is_open(self) -> bool:
        """Whether more calls should be measured."""
        measuring = self._measuring
        return self._measured < _CALLS and (
            measuring is None or measuring.probe.read().wall < _SECONDS * 1e9
        )

    def call(self, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call under measurement, in this thread."""
        measuring = self._measuring = self._measuring or Measuring(self._function, None)
        self._measured += 1
        measuring.send([args], star=True)
        began = perf_counter_ns()
        measuring.probe.begin()
        try:
            result = fn(*args, **kwargs)
        finally:
            measuring.probe.end()
        measuring.came([result], perf_counter_ns() - began)
        return result

    def advice(self) -> Advice | None:
        """What to say of it; None if no call has ended."""
        if self.handed_to == TASKS:
            return advice.of(self.name, None)
        if self._measuring is None or not self._measuring.calls:
            return None
        return advice.of(self.name, self._measuring.facts(pickled=True))


TASKS = "event loop"


class Watch:
    """All that a program hands over while it runs."""

    def __init__(self) -> None:
        self.subjects: dict[Any, Subject] = {}
        # One call at a time is measured, so that none waits for another one's GIL.
        self._alone = threading.Lock()

    def subject(self, function: Any, handed_to: str) -> Subject:
        """The entry of a function, which has been handed over once more."""
        key = id(getattr(function, "__code__", None) or getattr(function, "__func__", function))
        subject = self.subjects.get(key)
        if subject is None:
            subject = self.subjects[key] = Subject(function, handed_to)
        subject.calls += 1
        return subject

    def make(
        self,
        patience: float,
        subject: Subject,
        fn: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a call, measured if it is worth it and no other is."""
        if subject.is_open and self._alone.acquire(timeout=patience):
            try:
                if subject.is_open:
                    return subject.call(fn, args, kwargs)
            finally:
                self._alone.release()
        return fn(*args, **kwargs)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Watch what is handed over meanwhile."""
        replaced: list[tuple[type, str, Any]] = []

        def replace(owner: type, name: str, around: Callable[[Any], Any]) -> None:
            replaced.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, around(getattr(owner, name)))

        # First the subclasses, so that what is watched is watched once.
        replace(futures.ThreadPoolExecutor, "submit", self._threads)
        replace(stdlib.ThreadPoolExecutor, "submit", self._threads)
        replace(futures.ProcessPoolExecutor, "submit", self._processes)
        replace(stdlib.ProcessPoolExecutor, "submit", self._processes)
        replace(threading.Thread, "start", self._own_run)
        replace(threading.Thread, "run", self._thread)
        replace(asyncio.BaseEventLoop, "create_task", self._tasks)
        try:
            yield
        finally:
            for owner, name, old in reversed(replaced):
                if old is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, old)

    def _threads(self, submit: Any) -> Any:
        def watched(pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            subject = self.subject(named(fn, args), "thread pool")
            return submit(pool, self.make, _PATIENCE, subject, fn, args, kwargs)

        return watched

    def _processes(self, submit: Any) -> Any:
        def watched(pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            subject = self.subject(named(fn, args), "process pool")
            if not subject.is_open:
                return submit(pool, fn, *args, **kwargs)
            # The first calls are made here instead, where they can be seen.
            future: futures.Future[Any] = futures.Future()
            future.set_running_or_notify_cancel()
            try:
                future.set_result(self.make(_PATIENCE, subject, fn, args, kwargs))
            except Exception as error:
                future.set_exception(error)
            return future

        return watched

    def _thread(self, run: Any) -> Any:
        def watched(thread: Any) -> None:
            target = getattr(thread, "_target", None)
            if inspect.isroutine(target) and not _is_others(target):
                subject = self.subject(target, "thread")
                # It may run as long as the program, so nobody waits for it.
                args, kwargs = thread._args, thread._kwargs
                thread._args, thread._kwargs = (0, subject, target, args, kwargs), {}
                thread._target = self.make
            run(thread)

        return watched

    def _own_run(self, start: Any) -> Any:
        def watched(thread: Any) -> None:
            run = getattr(thread, "run", None)
            if inspect.ismethod(run) and not _is_others(run):
                subject = self.subject(run.__func__, "thread")
                thread.run = functools.partial(self.make, 0, subject, run, (), {})
            start(thread)

        return watched

    def _tasks(self, create_task: Any) -> Any:
        def watched(loop: Any, coro: Any, **options: Any) -> Any:
            if inspect.iscoroutine(coro) and not _is_library(coro.cr_code.co_filename):
                subject = self.subject(coro.cr_code, TASKS)
                subject.name = coro.__qualname__
            return create_task(loop, coro, **options)

        return watched


def named(fn: Any, args: tuple[Any, ...]) -> Any:
    """What the program knows a function by: that of a chunk is among its arguments."""
    inner = fn.func if isinstance(fn, functools.partial) else fn
    if isinstance(getattr(inner, "__self__", None), Context):  # as `asyncio.to_thread` does it
        fn = next(iter((*getattr(fn, "args", ()), *args)), fn)
    elif getattr(inner, "__name__", "") in ("_process_chunk", "run_chunk"):
        fn = next((one for one in (*getattr(fn, "args", ()), *args) if callable(one)), fn)
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _is_library(path: str) -> bool:
    return Path(path).parent.name in ("asyncio", "concurrent")


_OTHERS = frozenset({"concurrent", "juggler", "multiprocessing", "threading", "asyncio"})


def _is_others(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.partition(".")[0] in _OTHERS


def _await_threads() -> None:
    """As at the end of a program: wait for its threads, but for those of pools, which idle."""
    pools = {*futures._workers, *stdlib_thread._threads_queues}
    for thread in threading.enumerate():
        if thread not in pools and thread is not threading.main_thread() and not thread.daemon:
            thread.join()


def run(path: str, arguments: list[str]) -> tuple[list[Subject], BaseException | None]:
    """Run a program under measurement: what it handed over, and what ended it if anything did."""
    watch = Watch()
    before = sys.argv, list(sys.path)
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).resolve().parent))
    ended: BaseException | None = None
    try:
        with watch.running():
            runpy.run_path(path, run_name="__main__")
            _await_threads()
    except BaseException as error:
        ended = error
    finally:
        sys.argv, sys.path[:] = before
    return list(watch.subjects.values()), ended
