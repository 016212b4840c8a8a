"""`Timer`: what it shares with the standard library's, and that it needs no thread to wait."""

import os
import sys
import threading as stdlib_threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from juggler import _timer, threading

BOTH = pytest.mark.parametrize("module", [threading, stdlib_threading])
LONG = 600.0


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.0005)


def nothing() -> None:
    pass


def threads() -> set[str]:
    """The threads of this process that the system knows."""
    return set(os.listdir("/proc/self/task"))


@pytest.fixture(autouse=True)
def no_timer_is_left() -> Iterator[None]:
    before = stdlib_threading.active_count()
    yield
    until(lambda: stdlib_threading.active_count() == before)
    until(lambda: not _timer._clock.running)


@BOTH
def test_calls_the_function_with_its_arguments_when_it_is_due(module: Any) -> None:
    calls: list[object] = []
    timer = module.Timer(0.01, lambda *args, **kwargs: calls.append((args, kwargs)), (1,), {"a": 2})
    begin = time.monotonic()
    timer.start()
    assert timer.finished.wait(10)
    assert time.monotonic() - begin >= 0.01
    assert calls == [((1,), {"a": 2})]


@BOTH
def test_the_attributes(module: Any) -> None:
    timer = module.Timer(LONG, nothing)
    assert (timer.interval, timer.function) == (LONG, nothing)
    assert (timer.args, timer.kwargs) == ([], {})
    assert not timer.finished.is_set()
    assert timer.args is not module.Timer(LONG, nothing).args
    assert isinstance(timer, stdlib_threading.Thread)
    assert timer.name.startswith("Thread-")
    assert timer.daemon is False
    timer.name = "alarm"
    timer.daemon = True
    assert (timer.name, timer.daemon) == ("alarm", True)
    assert repr(timer) == "<Timer(alarm, initial daemon)>"


@BOTH
def test_what_is_assigned_before_it_is_due_counts(module: Any) -> None:
    calls: list[object] = []
    timer = module.Timer(LONG, nothing)
    timer.interval = 0.02
    timer.start()
    timer.function, timer.args, timer.kwargs = calls.extend, [[1, 2]], {}
    timer.join()
    assert calls == [1, 2]


@BOTH
def test_the_states(module: Any) -> None:
    go = module.Event()
    timer = module.Timer(0.01, go.wait)
    assert timer.ident is None
    assert timer.native_id is None
    assert not timer.is_alive()
    with pytest.raises(RuntimeError, match="before it is started"):
        timer.join()
    timer.start()
    assert timer.is_alive()
    assert timer in module.enumerate()
    with pytest.raises(RuntimeError, match="only be started once"):
        timer.start()
    with pytest.raises(RuntimeError, match="active thread"):
        timer.daemon = True
    timer.join(0.1)
    assert timer.is_alive()
    assert not timer.finished.is_set()
    go.set()
    timer.join()
    assert not timer.is_alive()
    assert timer not in module.enumerate()
    assert timer.finished.is_set()
    assert "stopped" in repr(timer)
    with pytest.raises(RuntimeError, match="only be started once"):
        timer.start()


@BOTH
@pytest.mark.parametrize("cancel", ["cancel()", "finished.set()"])
def test_a_cancelled_timer_is_over(module: Any, cancel: str) -> None:
    called: list[object] = []
    timer = module.Timer(LONG, called.append, (1,))
    timer.start()
    assert "started" in repr(timer)
    eval(f"timer.{cancel}")
    timer.join()
    assert not timer.is_alive()
    assert timer not in module.enumerate()
    assert timer.finished.is_set()
    assert not called
    until(lambda: "stopped" in repr(timer))
    timer.cancel()


@BOTH
def test_cancelled_before_its_start(module: Any) -> None:
    called: list[object] = []
    timer = module.Timer(0, called.append, (1,))
    timer.cancel()
    timer.start()
    timer.join()
    assert not called


@BOTH
def test_the_callback_runs_in_the_thread_that_the_timer_is(module: Any) -> None:
    seen: list[object] = []

    def look() -> None:
        seen[:] = [module.current_thread(), module.get_ident(), module.get_native_id()]

    timer = module.Timer(0.01, look)
    timer.start()
    assert timer.finished.wait(10)
    assert seen == [timer, timer.ident, timer.native_id]
    timer.join()


@BOTH
def test_identity_while_it_waits(module: Any) -> None:
    timer = module.Timer(LONG, nothing)
    timer.start()
    assert timer.ident in sys._current_frames()
    assert str(timer.native_id) in os.listdir("/proc/self/task")
    assert timer.is_alive()
    timer.cancel()
    timer.join()


@BOTH
def test_an_exception_goes_to_the_hook(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stdlib_threading, "excepthook", seen.append)
    timer = module.Timer(0.01, lambda: 1 / 0)
    timer.start()
    timer.join()
    assert [(args.exc_type, args.thread) for args in seen] == [(ZeroDivisionError, timer)]
    assert not timer.finished.is_set()


@BOTH
@pytest.mark.parametrize("interval", ["soon", 1e300])
def test_a_bad_interval_is_found_out_in_the_thread(
    module: Any, interval: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stdlib_threading, "excepthook", seen.append)
    timer = module.Timer(interval, nothing)
    timer.start()
    timer.join()
    assert [args.thread for args in seen] == [timer]


@BOTH
@pytest.mark.parametrize("interval", [0, -1, 0.0])
def test_no_time_at_all(module: Any, interval: float) -> None:
    called: list[object] = []
    timer = module.Timer(interval, called.append, (1,))
    timer.start()
    timer.join()
    assert called == [1]


@BOTH
def test_a_subclass_that_overrides_run(module: Any) -> None:
    ticks: list[float] = []

    class Ticker(module.Timer):  # type: ignore[misc]
        def run(self) -> None:
            while not self.finished.wait(self.interval):
                self.function(*self.args, **self.kwargs)

    ticker = Ticker(0.001, lambda: ticks.append(time.monotonic()))
    ticker.start()
    until(lambda: len(ticks) >= 3)
    ticker.cancel()
    ticker.join()
    assert not ticker.is_alive()


@BOTH
def test_a_subclass_that_calls_what_it_overrides(module: Any) -> None:
    order: list[str] = []

    class Noted(module.Timer):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.daemon = True

        def start(self) -> None:
            order.append("start")
            super().start()

        def run(self) -> None:
            order.append("run")
            super().run()

        def cancel(self) -> None:
            order.append("cancel")
            super().cancel()

    timer = Noted(0.001, order.append, ("called",))
    timer.start()
    timer.join()
    timer.cancel()
    assert order == ["start", "run", "called", "cancel"]


@BOTH
def test_an_event_of_the_program_in_its_place(module: Any) -> None:
    timer = module.Timer(LONG, nothing)
    timer.finished = event = stdlib_threading.Event()
    timer.start()
    event.set()
    timer.join()
    assert not timer.is_alive()


@BOTH
def test_the_function_may_not_join_its_own_timer(module: Any) -> None:
    errors: list[Exception] = []

    def join() -> None:
        try:
            timer.join()
        except RuntimeError as error:
            errors.append(error)

    timer = module.Timer(0.01, join)
    timer.start()
    timer.join()
    assert [str(error) for error in errors] == ["cannot join current thread"]


@BOTH
def test_a_slow_callback_delays_nobody(module: Any) -> None:
    go = module.Event()
    slow = module.Timer(0.001, go.wait)
    quick = module.Timer(0.002, go.set)
    slow.start()
    quick.start()
    slow.join()
    quick.join()
    assert go.is_set()


@BOTH
def test_a_timer_that_starts_its_successor(module: Any) -> None:
    left = [20]
    done = module.Event()

    def tick() -> None:
        left[0] -= 1
        if left[0]:
            module.Timer(0.001, tick).start()
        else:
            done.set()

    module.Timer(0.001, tick).start()
    assert done.wait(20)


@BOTH
def test_many_threads_join_and_look(module: Any) -> None:
    timer = module.Timer(0.05, nothing)
    timer.start()
    errors: list[BaseException] = []

    def look() -> None:
        try:
            assert timer.ident is not None
            timer.join()
            assert not timer.is_alive()
        except BaseException as error:
            errors.append(error)

    lookers = [stdlib_threading.Thread(target=look) for _ in range(8)]
    for looker in lookers:
        looker.start()
    for looker in lookers:
        looker.join()
    assert not errors


@BOTH
def test_cancelled_while_it_becomes_due(module: Any) -> None:
    for _ in range(200):
        called: list[object] = []
        timer = module.Timer(0.0005, called.append, (1,))
        timer.start()
        time.sleep(0.0004)
        timer.cancel()
        timer.join()
        assert len(called) <= 1
        assert not timer.is_alive()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="threads have a context from 3.14 on")
@BOTH
def test_the_context_is_that_of_the_start(module: Any) -> None:
    place: ContextVar[str] = ContextVar("place", default="nowhere")
    seen: list[str] = []
    place.set("here")
    timer = module.Timer(0.01, lambda: seen.append(place.get()))
    timer.start()
    place.set("there")
    timer.join()
    assert seen == ["here" if sys.flags.thread_inherit_context else "nowhere"]


def test_timers_that_wait_share_one_thread() -> None:
    before = threads()
    timers = [threading.Timer(LONG + number, nothing) for number in range(100)]
    for timer in timers:
        timer.start()
    [clock] = threads() - before
    assert set(timers) <= set(threading.enumerate())
    for timer in timers:
        timer.cancel()
    assert not set(timers) & set(threading.enumerate())
    until(lambda: clock not in threads())


def test_timers_start_in_the_order_in_which_they_are_due() -> None:
    order: list[int] = []
    timers = [threading.Timer(0.2 - number / 50, order.append, (number,)) for number in range(6)]
    for timer in timers:
        timer.start()
    for timer in timers:
        assert timer.finished.wait(10)
    assert order == [5, 4, 3, 2, 1, 0]


def test_an_earlier_timer_wakes_the_clock() -> None:
    late = threading.Timer(LONG, nothing)
    late.start()
    until(lambda: _timer._clock.wakes_at > time.monotonic() + 2 * _timer._LINGER)
    soon = threading.Timer(0.01, nothing)
    soon.start()
    assert soon.finished.wait(10)
    late.cancel()


def test_cancelled_timers_leave_the_heap() -> None:
    keep = threading.Timer(LONG, nothing)
    keep.start()
    for _ in range(1000):
        timer = threading.Timer(LONG, nothing)
        timer.start()
        timer.cancel()
    assert len(_timer._clock.heap) <= 2 + _timer._SLACK
    keep.cancel()


def test_no_thread_to_give_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    start = stdlib_threading.Thread.start
    failures = []

    def fail_twice(self: stdlib_threading.Thread) -> None:
        if len(failures) < 2:
            failures.append(self)
            # As the standard library has it.
            stdlib_threading._limbo.pop(self)  # type: ignore[attr-defined]
            raise RuntimeError("can't start new thread")
        start(self)

    timer = threading.Timer(0.01, called.append, (1,))
    timer.start()
    monkeypatch.setattr(stdlib_threading.Thread, "start", fail_twice)
    assert timer.finished.wait(10)
    assert called == [1]
    assert failures == [timer, timer]
    timer.join()


def test_no_thread_to_give_to_who_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: stdlib_threading.Thread) -> None:
        stdlib_threading._limbo.pop(self)  # type: ignore[attr-defined]
        raise RuntimeError("can't start new thread")

    timer = threading.Timer(LONG, nothing)
    timer.start()
    with monkeypatch.context() as patch:
        patch.setattr(stdlib_threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            timer.join()
    assert timer.is_alive()
    assert timer in threading.enumerate()
    timer.cancel()
    timer.join()
