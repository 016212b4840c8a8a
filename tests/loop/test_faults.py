"""Callbacks that raise, and debug mode."""

import asyncio
import gc
import logging
import threading
import time
import weakref
from typing import Any

import pytest

from juggler.asyncio import EventLoop

Loop = asyncio.AbstractEventLoop


def raises(error: BaseException) -> None:
    """A callback."""
    raise error


def run_ready(loop: Loop) -> None:
    """Run what is ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_an_exception_goes_to_the_handler_and_the_loop_goes_on(any_loop: Loop) -> None:
    seen: list[object] = []
    contexts: list[dict[str, Any]] = []
    any_loop.set_exception_handler(lambda _, context: contexts.append(context))
    error = ValueError("oops")
    handle = any_loop.call_soon(raises, error)
    timer = any_loop.call_later(0, raises, error)
    any_loop.call_soon(seen.append, 1)
    any_loop.call_later(0.005, any_loop.stop)
    any_loop.run_forever()
    assert seen == [1]
    assert [context["exception"] for context in contexts] == [error, error]
    assert [context["handle"] for context in contexts] == [handle, timer]
    assert contexts[0]["message"].startswith("Exception in callback raises(")


def test_the_default_handler_logs(any_loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    any_loop.call_soon(raises, ValueError("oops"))
    run_ready(any_loop)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and "callback raises(" in record.message


def test_an_exception_handler_that_raises_is_logged(
    any_loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    any_loop.set_exception_handler(lambda *_: raises(RuntimeError("worse")))
    any_loop.call_soon(raises, ValueError("oops"))
    run_ready(any_loop)
    (record,) = caplog.records
    assert record.message.startswith("Unhandled error in exception handler")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("by", ["callback", "exception handler", "timer"])
def test_what_ends_the_program_ends_the_run_and_the_rest_stays(
    any_loop: Loop, error: type[BaseException], by: str
) -> None:
    seen: list[int] = []
    if by == "exception handler":
        any_loop.set_exception_handler(lambda *_: raises(error()))
        any_loop.call_soon(raises, ValueError())
    elif by == "timer":
        any_loop.call_at(0, raises, error())
    else:
        any_loop.call_soon(raises, error())
    any_loop.call_soon(seen.append, 1)
    any_loop.call_soon(seen.append, 2)
    with pytest.raises(error):
        any_loop.run_forever()
    assert not any_loop.is_running()
    assert asyncio._get_running_loop() is None
    any_loop.set_exception_handler(None)
    any_loop.call_soon(seen.append, 3)
    run_ready(any_loop)
    assert seen == [1, 2, 3]


def test_an_exception_leaves_no_cycle_behind(loop: EventLoop) -> None:
    class Argument: ...

    def fail(argument: object) -> None:
        raise ValueError

    gc.disable()
    try:
        loop.set_exception_handler(lambda *_: None)
        argument = Argument()
        ref = weakref.ref(argument)
        loop.call_soon(fail, argument)
        del argument
        run_ready(loop)
        assert ref() is None
    finally:
        gc.enable()


def test_a_loop_runs_once_at_a_time(loop: EventLoop) -> None:
    problems: list[str] = []

    def run_again() -> None:
        for one in (loop, other):
            try:
                one.run_forever()
            except RuntimeError as error:
                problems.append(str(error))
        try:
            loop.close()
        except RuntimeError as error:
            problems.append(str(error))

    other = type(loop)()
    loop.call_soon(run_again)
    run_ready(loop)
    other.close()
    assert problems == [
        "This event loop is already running",
        "Cannot run the event loop while another loop is running",
        "Cannot close a running event loop",
    ]


def test_debug_mode_tells_what_took_long(any_loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    async def slow() -> None:
        time.sleep(0.02)

    any_loop.set_debug(True)
    any_loop.slow_callback_duration = 0.01
    any_loop.call_soon(time.sleep, 0.02)
    any_loop.call_soon(int)
    run_ready(any_loop)
    any_loop.run_until_complete(slow())
    callback, task = (record.message for record in caplog.records)
    assert (
        callback.startswith("Executing <Handle ") and "sleep" in callback and __file__ in callback
    )
    assert task.startswith("Executing <Task ") and "slow()" in task


def test_debug_mode_tells_where_a_callback_came_from(any_loop: Loop) -> None:
    contexts: list[dict[str, Any]] = []
    any_loop.set_debug(True)
    any_loop.set_exception_handler(lambda _, context: contexts.append(context))
    any_loop.call_soon(raises, ValueError())
    any_loop.call_soon_threadsafe(raises, ValueError())
    any_loop.call_later(0, raises, ValueError())
    any_loop.call_at(0, raises, ValueError())
    any_loop.call_later(0.01, any_loop.stop)
    any_loop.run_forever()
    lines = [context["source_traceback"][-1].line for context in contexts]
    assert [line.partition("(")[0] for line in lines] == [
        "any_loop.call_soon",
        "any_loop.call_soon_threadsafe",
        "any_loop.call_at",
        "any_loop.call_later",
    ]


def test_debug_mode_tells_of_mistakes(any_loop: Loop) -> None:
    async def coroutine() -> None: ...

    any_loop.set_debug(True)
    assert any_loop.get_debug()
    for schedule in (any_loop.call_soon, any_loop.call_soon_threadsafe):
        with pytest.raises(TypeError, match="coroutines cannot be used"):
            schedule(coroutine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a callable object was expected by call_at"):
        any_loop.call_later(1, "no function")  # type: ignore[arg-type]
    errors: list[Exception] = []

    def call() -> None:
        try:
            any_loop.call_soon(print)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    any_loop.call_soon(thread.start)
    any_loop.call_soon(thread.join)
    run_ready(any_loop)
    assert "Non-thread-safe operation" in str(errors[0])


def test_a_handle_that_is_cancelled_in_debug_mode_still_tells_what_it_was(loop: EventLoop) -> None:
    loop.set_debug(True)
    handle = loop.call_soon(raises, ValueError())
    handle.cancel()
    assert repr(handle).startswith("<Handle cancelled raises(")


def test_coroutines_tell_where_they_were_made_in_debug_mode(any_loop: Loop) -> None:
    async def made() -> None: ...

    async def main() -> Any:
        coroutine = made()
        coroutine.close()
        return coroutine.cr_origin

    assert any_loop.run_until_complete(main()) is None
    any_loop.set_debug(True)
    assert any_loop.run_until_complete(main()) is not None
    any_loop.set_debug(False)
    assert any_loop.run_until_complete(main()) is None


def test_a_generator_that_nobody_finished_is_closed_in_the_loop(any_loop: Loop) -> None:
    closed: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main() -> None:
        async for _ in numbers():
            break
        gc.collect()
        await asyncio.sleep(0.01)

    any_loop.run_until_complete(main())
    assert closed == ["closed"]
