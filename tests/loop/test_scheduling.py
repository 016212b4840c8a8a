"""`call_soon` and its siblings: order, arguments, contexts, time, cancellation."""

import asyncio
import contextvars
import gc
import math
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from juggler.asyncio import EventLoop, Handle, TimerHandle, new_event_loop

Loop = asyncio.AbstractEventLoop


def run_ready(loop: Loop) -> None:
    """Run what is ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_calls_are_made_in_order_with_their_arguments(any_loop: Loop) -> None:
    seen: list[object] = []
    any_loop.call_soon(seen.append, 1)
    any_loop.call_soon_threadsafe(lambda *args: seen.append(args), 2, 3)
    any_loop.call_soon(callback=lambda: seen.append(4))  # type: ignore[call-arg]
    run_ready(any_loop)
    assert seen == [1, (2, 3), 4]


def test_what_a_callback_schedules_runs_in_the_next_turn(any_loop: Loop) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        any_loop.call_soon(seen.append, "later")

    any_loop.call_soon(first)
    any_loop.call_soon(seen.append, "second")
    run_ready(any_loop)
    assert seen == ["first", "second"]
    run_ready(any_loop)
    assert seen == ["first", "second", "later"]


def test_a_callback_runs_in_a_copy_of_the_context_or_in_the_one_that_is_passed(
    any_loop: Loop,
) -> None:
    variable = contextvars.ContextVar("variable", default="none")
    own = contextvars.copy_context()
    own.run(variable.set, "own")
    seen: list[str] = []

    def look(then: str) -> None:
        seen.append(variable.get())
        variable.set(then)

    variable.set("caller")
    any_loop.call_soon(look, "changed")
    any_loop.call_soon(look, "changed")
    any_loop.call_soon(look, "changed", context=own)
    any_loop.call_later(0, look, "changed again", context=own)
    any_loop.call_later(0.001, any_loop.stop)
    any_loop.run_forever()
    assert seen == ["caller", "caller", "own", "changed"]
    assert variable.get() == "caller"
    assert own[variable] == "changed again"


def test_an_object_that_runs_functions_passes_for_a_context(any_loop: Loop) -> None:
    seen: list[object] = []

    class Context:
        def run(self, function: Callable[..., Any], *args: Any) -> Any:
            seen.append("context")
            return function(*args)

    any_loop.call_soon(seen.append, "callback", context=Context())  # type: ignore[arg-type]
    run_ready(any_loop)
    assert seen == ["context", "callback"]


def test_handles_are_the_standard_library_s(loop: EventLoop) -> None:
    def callback() -> None: ...

    handle, timer = loop.call_soon(callback), loop.call_later(1, callback, 2)
    assert type(handle) is Handle and isinstance(handle, asyncio.Handle)
    assert type(timer) is TimerHandle and isinstance(timer, asyncio.TimerHandle)
    assert isinstance(timer, Handle)
    stock = asyncio.Handle(callback, (), loop)
    assert repr(handle) == repr(stock)
    fields: Any = handle
    assert (fields._callback, fields._args, fields._loop) == (callback, (), loop)
    assert loop.time() < timer.when() <= loop.time() + 1
    assert repr(timer).startswith(f"<TimerHandle when={timer.when()} ")
    assert not handle.cancelled()
    handle.cancel()
    assert handle.cancelled() and (fields._callback, fields._args) == (None, None)
    assert repr(handle) == "<Handle cancelled>"
    handle.cancel()
    timer.cancel()
    assert weakref.ref(handle)() is handle


def test_timers_compare_as_the_standard_library_s(loop: EventLoop) -> None:
    early, late = loop.call_at(1, print), loop.call_at(2, print)
    stock = asyncio.TimerHandle(1.5, print, (), loop)
    assert early < stock < late
    assert early != late and early == asyncio.TimerHandle(1, print, (), loop)
    assert sorted([late, stock, early]) == [early, stock, late]
    assert hash(early) == hash(1)
    early.cancel()
    late.cancel()


def test_a_handle_of_one_s_own_can_be_run_and_cancelled(loop: EventLoop) -> None:
    seen: list[int] = []

    class Mine(Handle):
        def __del__(self) -> None:
            seen.append(0)

    handle: Any = Mine(seen.append, (1,), loop)
    handle._run()
    handle.cancel()
    handle._run()
    del handle
    gc.collect()
    assert seen == [1, 0]
    timer = TimerHandle(5, seen.append, (2,), loop)
    timer.cancel()
    assert timer.cancelled() and timer.when() == 5


def test_a_cancelled_call_is_not_made_and_lets_its_arguments_go(any_loop: Loop) -> None:
    class Argument: ...

    seen: list[object] = []
    soon, later = Argument(), Argument()
    handles = any_loop.call_soon(seen.append, soon), any_loop.call_later(0.001, seen.append, later)
    gone = [weakref.ref(soon), weakref.ref(later)]
    del soon, later
    for handle in handles:
        handle.cancel()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    any_loop.call_later(0.005, any_loop.stop)
    any_loop.run_forever()
    assert seen == []


def test_timers_fire_in_the_order_of_their_times_then_of_their_coming(loop: EventLoop) -> None:
    seen: list[tuple[float, int]] = []
    now = loop.time()
    times = [now + 0.01 * (number * 7 % 5) for number in range(40)]
    for number, when in enumerate(times):
        loop.call_at(when, seen.append, (when, number))
    loop.call_at(now + 0.06, loop.stop)
    loop.run_forever()
    assert seen == sorted((when, number) for number, when in enumerate(times))


@pytest.mark.parametrize("delay", [0.0001, 0.0007, 0.003, Fraction(1, 1000)])
def test_a_timer_is_never_early(loop: EventLoop, delay: float) -> None:
    fired: list[float] = []

    def fire() -> None:
        fired.append(loop.time())
        loop.stop()

    timer = loop.call_later(delay, fire)
    loop.run_forever()
    assert fired[0] >= timer.when()


@pytest.mark.parametrize("when", [-math.inf, -1, 0, 0.5])
def test_a_time_that_has_passed_is_now(any_loop: Loop, when: float) -> None:
    any_loop.call_at(when, any_loop.stop)
    any_loop.run_forever()


@pytest.mark.parametrize("when", [math.inf, 1e30])
def test_a_time_that_never_comes_is_waited_for(loop: EventLoop, when: float) -> None:
    never = loop.call_at(when, pytest.fail, "it came")
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert never.when() == when
    never.cancel()


def test_many_cancelled_timers_are_forgotten(loop: EventLoop) -> None:
    class Argument: ...

    kept = [loop.call_later(100, print, number) for number in range(100)]
    timers = [loop.call_later(100, print) for _ in range(1000)]
    refs = [weakref.ref(timer) for timer in timers]
    for timer in timers:
        timer.cancel()
    fields: Any = timers[0]
    assert fields._scheduled is False
    del timers, timer, fields
    gc.collect()
    assert sum(ref() is not None for ref in refs) <= len(kept)
    for timer in kept:
        timer.cancel()


def test_calls_from_other_threads_come_in_their_order_and_wake_the_loop(loop: EventLoop) -> None:
    seen: dict[int, list[int]] = {number: [] for number in range(3)}
    asleep = threading.Event()

    def call(thread: int) -> None:
        asleep.wait()
        for number in range(1000):
            loop.call_soon_threadsafe(seen[thread].append, number)
        loop.call_soon_threadsafe(finished, thread)

    left = set(seen)

    def finished(thread: int) -> None:
        left.discard(thread)
        if not left:
            loop.stop()

    threads = [threading.Thread(target=call, args=(number,)) for number in seen]
    for thread in threads:
        thread.start()
    loop.call_soon(asleep.set)
    loop.run_forever()
    for thread in threads:
        thread.join()
    assert all(numbers == list(range(1000)) for numbers in seen.values())


def test_a_call_from_another_thread_wakes_a_loop_that_has_nothing_else(loop: EventLoop) -> None:
    for _ in range(50):
        timer = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
        loop.call_soon(timer.start)
        loop.run_forever()
        timer.join()


def test_stop_ends_the_loop_from_another_thread_too(loop: EventLoop) -> None:
    timer = threading.Timer(0.02, loop.stop)
    timer.start()
    loop.run_forever()
    timer.join()


def test_stop_before_running_makes_one_turn(any_loop: Loop) -> None:
    seen: list[int] = []
    any_loop.call_soon(seen.append, 1)
    any_loop.stop()
    any_loop.run_forever()
    assert seen == [1]


def test_time_is_the_monotonic_clock(loop: EventLoop) -> None:
    before = time.monotonic()
    assert before <= loop.time() <= time.monotonic()


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop: loop.call_soon(print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.call_later(1, print),
        lambda loop: loop.call_at(1, print),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.run_forever(),
        lambda loop: loop.run_until_complete(asyncio.sleep(0)),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited")
def test_a_closed_loop_takes_nothing(any_loop: Loop, schedule: Callable[[Loop], object]) -> None:
    any_loop.close()
    any_loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        schedule(any_loop)
    assert any_loop.remove_reader(0) is False


@pytest.mark.parametrize(
    "schedule",
    [
        lambda loop: loop.call_soon(),
        lambda loop: loop.call_soon(print, contxt=None),
        lambda loop: loop.call_soon(print, callback=print),
        lambda loop: loop.call_later(None, print),
        lambda loop: loop.call_later("soon", print),
        lambda loop: loop.call_later(1),
        lambda loop: loop.call_at(None, print),
    ],
)
def test_wrong_arguments_are_type_errors(
    any_loop: Loop, schedule: Callable[[Loop], object]
) -> None:
    with pytest.raises(TypeError):
        schedule(any_loop)


def test_closing_drops_what_waits(loop: EventLoop) -> None:
    class Argument: ...

    arguments = [Argument() for _ in range(3)]
    refs = [weakref.ref(argument) for argument in arguments]
    loop.call_soon(print, arguments.pop())
    loop.call_soon_threadsafe(print, arguments.pop())
    timer: Any = loop.call_later(1, print, arguments.pop())
    loop.close()
    assert timer._scheduled is False
    del timer
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_a_loop_that_is_dropped_is_collected_with_all_that_waits(
    recwarn: pytest.WarningsRecorder,
) -> None:
    loop = new_event_loop()
    ref = weakref.ref(loop)
    loop.call_soon(loop.stop)
    loop.call_later(5, loop.stop)
    del loop
    gc.collect()
    assert ref() is None
    assert [str(w.message).partition(" <")[0] for w in recwarn] == ["unclosed event loop"]


def test_a_loop_is_subclassed(recwarn: pytest.WarningsRecorder) -> None:
    class Mine(EventLoop):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[object] = []

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            self.calls.append(callback)
            return super().call_soon(callback, *args, context=context)

    loop = Mine()
    run_ready(loop)
    assert loop.calls == [loop.stop]
    loop.close()
    assert not recwarn


def test_a_loop_keeps_nothing_in_a_dictionary() -> None:
    """With one, the interpreter would look each method up there first."""

    class Heir(EventLoop):
        pass

    async def use(loop: Loop) -> None:
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
        await loop.run_in_executor(None, int)
        loop.add_signal_handler(signal.SIGUSR1, int)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        assert await child.wait() == 0

    for loop in (new_event_loop(), Heir()):
        try:
            loop.run_until_complete(use(loop))
            loop.set_debug(True)
            loop.set_exception_handler(lambda *_: None)
            loop.set_task_factory(None)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
        assert vars(loop) == {}
