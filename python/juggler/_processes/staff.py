"""The workers of a process pool, and who looks after them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import ProcessError

from juggler import _juggler
from juggler._processes import errors, worker
from juggler._processes.executor import threads

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Staff:
    """The workers of a pool, and the thread that looks after them.

    The executor and the thread share it; it does not keep the executor.
    """

    def __init__(
        self,
        engine: Any,
        context: Any,
        max_workers: int,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int,
    ) -> None:
        self.engine = engine
        self.context = context
        self.max_workers = max_workers
        self.initializer = initializer
        self.initargs = initargs
        self.max_tasks = max_tasks
        # A fork with threads about may copy a lock that one of them holds: all are started before
        # there is a thread of ours.
        self.all_at_once = context.get_start_method(allow_none=False) == "fork"
        self.lock = threading.RLock()
        self.processes: dict[int, Any] = {}
        self.desks: dict[int, Any] = {}
        # Calls to fail, with the reason.
        self.failed: list[tuple[Any, BaseException]] = []
        self.thread: threading.Thread | None = None
        # Workers that died in a row before they had taken a call.
        self.barren = 0
        self.dismissed = False

    def grow(self, *, everyone: bool = False) -> None:
        """Start a worker, as calls wait and nobody is idle; or all that there may be."""
        try:
            with self.lock:
                self._hire(everyone)
        finally:
            self._tell()

    def _hire(self, everyone: bool) -> None:
        try:
            while self.start() and (everyone or self.all_at_once):
                pass
        except (OSError, ProcessError) as problem:
            # Those that there are do all the work.
            if not self.desks:
                self.break_down(f"cannot start a worker process: {problem}")
        except BaseException:
            if not self.desks:
                self.break_down("cannot start a worker process")
            raise
        if self.thread is None and self.desks:
            thread = threading.Thread(target=_supervise, args=(self,), name="juggler-supervisor")
            try:
                thread.start()
            except RuntimeError as problem:
                self.break_down(f"cannot start the thread that looks after workers: {problem}")
                for desk in list(self.desks):
                    self.discard(desk)
            else:
                threads.add(thread)
                self.thread = thread

    def _tell(self) -> None:
        """Fail the calls that are to be; without the lock, as callbacks may wait for others'."""
        with self.lock:
            failed, self.failed = self.failed, []
        for future, reason in failed:
            self.engine.fail(future, reason)

    def start(self) -> bool:
        """Start a worker; whether there was a free desk."""
        if self.dismissed or self.engine.closing:
            return False
        desk = self.engine.take_desk()
        if desk is None:
            return False
        seat = worker.Seat(self.engine.fileno(), desk)
        args = (seat, self.initializer, self.initargs, self.max_tasks)
        process = self.context.Process(target=worker.main, args=args)
        with uninterrupted():
            spare = -1
            try:
                # The descriptor with which it will be watched: better none now than none then.
                spare = os.dup(self.engine.fileno())
                try:
                    process.start()
                except ProcessError:  # its zygote died; the next start begins with another
                    process = self.context.Process(target=worker.main, args=args)
                    process.start()
            except BaseException:
                self.engine.leave_desk(desk)
                raise
            finally:
                if spare >= 0:
                    os.close(spare)
            self.desks[desk] = process
            self.processes[process.pid] = process
            try:
                watched = self.engine.watch(desk, process.pid)
            except OSError:
                self.discard(desk)
                raise
            if not watched:
                self._bury(*self.engine.settle(desk))
        return True

    def discard(self, desk: int) -> None:
        """Kill the worker at `desk`, which nobody looks after."""
        process = self.desks[desk]
        process.kill()
        process.join()
        self.clear(*self.engine.settle(desk)[:2])

    def bury(self, desk: int, lost: Any, worked: bool, unfit: bool) -> None:
        """Do what is to be done when the worker at `desk` is dead."""
        with self.lock:
            self._bury(desk, lost, worked, unfit)
        self._tell()

    def _bury(self, desk: int, lost: Any, worked: bool, unfit: bool) -> None:
        pid, exitcode = self.clear(desk, lost)
        self.barren = 0 if worked else self.barren + 1
        if self.dismissed:
            if not self.desks:
                self.break_down("the workers were told to end")
        elif unfit:
            self.break_down("A worker's initializer failed, the process pool is not usable anymore")
        elif self.barren >= max(3, self.max_workers):
            how = errors.died(pid, exitcode)
            self.break_down(f"no worker lived to take a call; the last: {how}")
        elif self.engine.waiting:
            # The others do the work, or the pool is broken and has said why.
            with contextlib.suppress(Exception):
                self._hire(everyone=False)

    def clear(self, desk: int, lost: Any) -> tuple[int, int | None]:
        """Clear the desk of a dead worker, and have the call fail that is lost with it."""
        process = self.desks.pop(desk)
        self.engine.leave_desk(desk)
        self.processes.pop(process.pid, None)
        pid, exitcode = process.pid, _reap(process)
        if lost is not None:
            future, reason, done = lost
            if reason is None:
                self.failed.append((future, errors.died(pid, exitcode, done)))
            else:
                self.failed.append((future, errors.stopped(reason, pid, exitcode)))
        return pid, exitcode

    def break_down(self, why: str) -> None:
        """End the pool: nothing that waits can be done."""
        self.dismissed = True
        self.failed += ((future, BrokenProcessPool(why)) for future in self.engine.break_down(why))
        for process in self.desks.values():
            process.terminate()

    def dismiss(self, operation: str) -> None:
        """Have all workers end at once: `terminate` or `kill` them."""
        with self.lock:
            self.dismissed = True
            for process in self.desks.values():
                getattr(process, operation)()


def _reap(process: Any) -> int | None:
    """The exit status of a process that is dead.

    It is not closed: the program may have it from `_processes`, and join it.

    Another thread that starts a process or asks for `active_children` looks for dead ones too, and
    what it has taken from the system it has not yet noted for a moment.  Where the program ignores
    ``SIGCHLD``, nobody gets the status.
    """
    for _ in range(200):
        process.join()
        exitcode = process.exitcode
        if exitcode is not None:
            return int(exitcode)
        time.sleep(0.001)
    return None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Puts Ctrl-C off, which would leave a process that nobody knows of.

    A child that inherits the signals' mask lets it through when it is ready for it.
    """
    pending: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread() and callable(handler)
    if is_main:
        signal.signal(signal.SIGINT, lambda number, _: pending.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, handler)
            if pending:
                signal.raise_signal(signal.SIGINT)


def _supervise(staff: Staff) -> None:
    engine = staff.engine
    most = -1
    while True:
        for dead in engine.supervise(most):
            staff.bury(*dead)
        if engine.closed:
            if engine.busy:
                # Whoever waits for a shutdown does not ask for results.
                try:
                    engine.collect_eagerly()
                except RuntimeError:
                    # The interpreter exits, and starts no more threads.
                    most = 10
                    engine.collect()
            elif not staff.desks:
                return


class _Hooks:
    """What the native part leaves to Python."""

    broken = BrokenProcessPool
    stopped = staticmethod(errors.stopped)
    result_lost = staticmethod(errors.result_lost)
    result_refused = staticmethod(errors.result_refused)

    @staticmethod
    def start_collector(engine: Any, or_break: bool) -> None:
        """Start the thread that collects where nobody waits; else break the pool, or raise.

        Some versions of Python start none at exit.
        """
        thread = threading.Thread(target=engine.collect_all, name="juggler-collector")
        try:
            with uninterrupted():
                thread.start()
                threads.add(thread)  # only now: what is there is joined at exit
        except RuntimeError as problem:
            if not or_break:
                raise
            # Nobody would tell of results.
            why = f"cannot start a thread: {problem}"
            for future in engine.break_down(why):
                engine.fail(future, BrokenProcessPool(why))

    @staticmethod
    def dump_call(call: tuple[Any, ...], define: bool) -> tuple[bytes, list[Any]]:
        """The pickle of a call that plain pickle refused, and its buffers."""
        from juggler._processes import pickling

        return pickling.dumps(
            call,
            define=define,
            what="the call",
            root=("the function", "the arguments", "the named arguments"),
        )

    @staticmethod
    def dump_function(function: Any, define: bool) -> Any:
        """The pickle of a function by value, and how long it is true."""
        from juggler._processes import by_value

        return by_value.lasting(function, define)

    @staticmethod
    def load_error(data: bytes) -> BaseException:
        """What a call raised."""
        from juggler._processes import exceptions

        return exceptions.unpack_exception(data)


_juggler._set_process_pool_hooks(_Hooks)
