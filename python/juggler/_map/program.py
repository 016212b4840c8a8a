"""A whole program under measurement: what `juggler advise program.py` runs."""

from __future__ import annotations

import asyncio
import concurrent.futures as stdlib
import functools
import inspect
import multiprocessing.pool
import multiprocessing.process
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import Context
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import juggler
from juggler import asyncio as native_asyncio
from juggler import futures
from juggler._import_hooks import around_import
from juggler._map import advice, watched
from juggler._map.advice import Advice
from juggler._map.choosing import Facts
from juggler._map.flow import Flow
from juggler._map.results import Results
from juggler._map.watched import Watched
from juggler._processes.executor import PoolView
from juggler.multiprocessing import pool as native_pools

_PATIENCE = 1.0
"""Seconds that a call waits for the measured one to end; it may be what that one waits for."""
TASKS = "event loop"
_PROCESSES = ("process", "process pool")


class Subject:
    """A function that the program has handed over.

    Attributes:
        name: its name.
        handed_to: what to.
        calls: how often.
        facts: what was seen of its calls; None if none has ended.
    """

    def __init__(self, function: Any, handed_to: str, key: int) -> None:
        self.name = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.handed_to = handed_to
        self.calls = 0
        self.facts: Facts | None = None
        self.key = key
        # It stays, and so nothing else is found under its identity.
        self._function = function

    def advice(self) -> Advice | None:
        """What to say of it; None if no call has ended."""
        facts = self.facts
        if self.handed_to == TASKS:
            return advice.of(self.name, None)
        if facts is None or facts.obstacle is None or self.handed_to not in _PROCESSES:
            return None if facts is None else advice.of(self.name, facts)
        # That is where it runs.
        found = advice.of(self.name, replace(facts, obstacle=None))
        if facts.obstacle.startswith(("it assigns", "its calls change")):
            found = replace(found, stops=f"{facts.obstacle}, in each process for itself")
        return found


class Watch:
    """All that a program hands over, from now on.

    Args:
        folder: where other processes leave what they have seen.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._home = os.getpid()
        self._subjects: dict[tuple[int, str], Subject] = {}
        self._lock = threading.Lock()
        self._maps: list[tuple[Subject, Flow]] = []
        # What the program's end would wait for.
        self._pending: set[stdlib.Future[Any]] = set()
        self._started: list[threading.Thread | multiprocessing.process.BaseProcess] = []
        pools = (futures.ThreadPoolExecutor, stdlib.ThreadPoolExecutor)
        for pool in (*pools, futures.ProcessPoolExecutor, stdlib.ProcessPoolExecutor, PoolView):
            self._replace(pool, "submit", self._submit)
            self._replace(pool, "map", self._map)
        for kind in (native_pools.Pool, multiprocessing.pool.Pool):
            for name in ("apply", "apply_async"):
                self._replace(kind, name, self._apply)
            for name in (
                "map",
                "map_async",
                "starmap",
                "starmap_async",
                "imap",
                "imap_unordered",
            ):
                self._replace(kind, name, self._pool_map)
        self._replace(threading.Thread, "start", self._start_thread)
        self._replace(multiprocessing.process.BaseProcess, "start", self._start_process)
        for loop in (native_asyncio.EventLoop, asyncio.BaseEventLoop):
            self._replace(loop, "create_task", self._create_task)
        self._replace(Results, "__init__", self._begin_map)
        # Only if the program has it, for it is not ours to import.
        around_import("joblib.parallel", self._import_joblib)

    def _replace(self, owner: Any, name: str, instead: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() != self._home:  # a worker that was forked; it has no table
                return original(*args, **kwargs)
            return instead(original, *args, **kwargs)

        setattr(owner, name, method)

    # ------------------------------------------------------------ what is handed over

    def _subject(self, function: Any, handed_to: str) -> Subject:
        while isinstance(function, functools.partial):
            function = function.func
        known = getattr(function, "__code__", None) or getattr(function, "__func__", function)
        with self._lock:
            key = id(known), handed_to
            if key not in self._subjects:
                self._subjects[key] = Subject(function, handed_to, len(self._subjects))
            return self._subjects[key]

    def _watched(
        self, function: Any, handed_to: str, patience: float = _PATIENCE
    ) -> tuple[Any, Subject | None]:
        """What to hand over instead, and the entry; None if it is nothing of the program's."""
        if _is_others(function):
            return function, None
        subject = self._subject(function, handed_to)
        if handed_to == _INTERPRETERS:  # which have no juggler
            return function, subject
        return Watched(function, subject.key, self._folder, patience), subject

    def _once(self, function: Any, handed_to: str, patience: float = _PATIENCE) -> Any:
        """What to hand over instead, for one call."""
        stands_in, subject = self._watched(function, handed_to, patience)
        if subject is not None:
            subject.calls += 1
        return stands_in

    def _call(
        self, function: Any, args: tuple[Any, ...], handed_to: str, patience: float = _PATIENCE
    ) -> tuple[Any, tuple[Any, ...]]:
        """What to hand over instead, for a call with these arguments, and the arguments."""
        inner = function.func if isinstance(function, functools.partial) else function
        if not isinstance(getattr(inner, "__self__", None), Context):
            return self._once(function, handed_to, patience), args
        # It runs another one in a context, as `asyncio.to_thread` has it.
        if inner is function:
            called, *rest = args
            return function, (self._once(called, handed_to, patience), *rest)
        called, *rest = function.args
        called = self._once(called, handed_to, patience)
        return functools.partial(inner, called, *rest, **function.keywords), args

    def _often(
        self, function: Any, handed_to: str, items: Iterable[Any]
    ) -> tuple[Any, Iterable[Any]]:
        """What to hand over instead, for a call with each item, and the items."""
        stands_in, subject = self._watched(function, handed_to)
        if subject is None:
            return stands_in, items
        if isinstance(items, Sized):
            subject.calls += len(items)
            return stands_in, items
        return stands_in, _counted(items, subject)

    # ------------------------------------------------------------ who takes it

    def _submit(self, submit: Any, pool: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        fn, args = self._call(fn, args, _kind(pool))
        future = submit(pool, fn, *args, **kwargs)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _map(self, map_: Any, pool: Any, fn: Any, *iterables: Any, **options: Any) -> Any:
        if iterables:
            fn, first = self._often(fn, _kind(pool), iterables[0])
            iterables = (first, *iterables[1:])
        return map_(pool, fn, *iterables, **options)

    def _apply(self, apply: Any, pool: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
        return apply(pool, self._once(func, _kind(pool)), *args, **kwargs)

    def _pool_map(
        self, map_: Any, pool: Any, func: Any, iterable: Any, *args: Any, **kwargs: Any
    ) -> Any:
        func, iterable = self._often(func, _kind(pool), iterable)
        return map_(pool, func, iterable, *args, **kwargs)

    def _import_joblib(self, execute: Callable[[], None]) -> None:
        execute()
        self._replace(sys.modules["joblib.parallel"].Parallel, "__call__", self._loop)

    def _loop(self, call: Any, parallel: Any, iterable: Iterable[Any]) -> Any:
        backend = parallel._backend
        if backend.effective_n_jobs(parallel.n_jobs) == 1:  # nothing is handed over
            return call(parallel, iterable)
        in_threads = getattr(backend, "uses_threads", False)
        kind = "thread pool" if in_threads else "process pool"
        calls = self._delayed(iterable, kind)
        # Of a list joblib tells how much is left.
        return call(parallel, list(calls) if isinstance(iterable, Sized) else calls)

    def _delayed(self, calls: Iterable[Any], handed_to: str) -> Iterator[Any]:
        """What `joblib.delayed` made of calls, with what to call instead."""
        last, stands_in, subject = None, None, None
        for function, args, kwargs in calls:
            if function is not last:
                stands_in, subject = self._watched(function, handed_to)
                last = function
            if subject is not None:
                subject.calls += 1
            yield stands_in, args, kwargs

    def _start_thread(self, start: Any, thread: Any) -> None:
        # They may run as long as the program, so nobody waits for them.
        if isinstance(thread, threading.Timer):
            thread.function = self._once(thread.function, "timer", 0)
        elif not _is_others(thread.run):
            thread.run = self._once(thread.run, "thread", 0)
        elif not _is_others(thread._target):
            thread._target, thread._args = self._call(thread._target, thread._args, "thread", 0)
        else:
            return start(thread)  # type: ignore[no-any-return]
        self._started.append(thread)
        return start(thread)  # type: ignore[no-any-return]

    def _start_process(self, start: Any, process: Any) -> None:
        if not _is_others(process.run):
            process.run = self._once(process.run, "process", 0)
        elif not _is_others(process._target):
            process._target = self._once(process._target, "process", 0)
        else:
            return start(process)  # type: ignore[no-any-return]
        self._started.append(process)
        return start(process)  # type: ignore[no-any-return]

    def _create_task(self, create_task: Any, loop: Any, coro: Any, **options: Any) -> Any:
        if inspect.iscoroutine(coro) and not _is_library(coro.cr_code.co_filename):
            subject = self._subject(coro.cr_code, TASKS)
            subject.name = coro.__qualname__
            subject.calls += 1
        return create_task(loop, coro, **options)

    def _begin_map(self, begin: Any, results: Any, options: Any, *rest: Any) -> None:
        subject: Subject | None
        if options.is_async:
            subject = self._subject(options.function, TASKS)
        else:
            options.function, subject = self._watched(options.function, "juggler.map")
        begin(results, options, *rest)
        if subject is not None:
            self._maps.append((subject, results._flow))

    # ------------------------------------------------------------ the end

    def wait(self) -> None:
        """As at the end of a program: wait for what it has begun."""
        for one in self._started:
            if not one.daemon and one.ident is not None:
                one.join()
        stdlib.wait(list(self._pending))

    def subjects(self) -> list[Subject]:
        """What was called, with what was seen of it."""
        for subject, flow in self._maps:
            subject.calls += flow.taken
        for subject in self._subjects.values():
            subject.facts = watched.facts(subject.key, self._folder)
        return [subject for subject in self._subjects.values() if subject.calls]


def _counted(items: Iterable[Any], subject: Subject) -> Iterator[Any]:
    for item in items:
        subject.calls += 1
        yield item


_INTERPRETERS = "interpreter pool"


def _kind(pool: Any) -> str:
    if isinstance(pool, multiprocessing.pool.ThreadPool | native_pools.ThreadPool):
        return "thread pool"
    if isinstance(pool, stdlib.ThreadPoolExecutor):
        interpreters = sys.modules.get("concurrent.futures.interpreter")
        own = interpreters is not None and isinstance(pool, interpreters.InterpreterPoolExecutor)
        return _INTERPRETERS if own else "thread pool"
    return "process pool"


_OTHERS = frozenset(
    {"asyncio", "concurrent", "joblib", "juggler", "loky", "multiprocessing", "threading"}
)
_JUGGLER = Path(juggler.__file__).parent


def _is_others(function: Any) -> bool:
    """Whether it is nothing of the program's, or watched already."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, Watched) or not callable(function):
        return True
    # What is built in tells nothing but the object that it is a method of.
    its = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or type(its).__module__
    return module.partition(".")[0] in _OTHERS


def _is_library(path: str) -> bool:
    return Path(path).parent.name in ("asyncio", "concurrent") or _JUGGLER in Path(path).parents


def run(path: str, arguments: list[str]) -> tuple[list[Subject], BaseException | None]:
    """Run a program under measurement: what it handed over, and what ended it if anything did.

    It becomes this process's program: it stays ``__main__``, for what is yet to run at exit.
    """
    sys.argv = [path, *arguments]
    sys.path.insert(0, str(Path(path).resolve().parent))
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = path
    ended: BaseException | None = None
    with tempfile.TemporaryDirectory(prefix="juggler-advise-") as folder:
        watch = Watch(folder)
        try:
            exec(compile(Path(path).read_bytes(), path, "exec"), vars(main))
            watch.wait()
        except BaseException as error:
            ended = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        return watch.subjects(), ended
