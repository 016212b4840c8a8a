"""Signals while the loop sleeps or is busy."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from juggler.asyncio import EventLoop, run

Loop = asyncio.AbstractEventLoop


class InterruptError(Exception):
    """What a handler raises."""


@pytest.fixture(autouse=True)
def wakeup() -> Iterator[None]:
    """The interpreter writes signals nowhere, before and after."""
    assert signal.set_wakeup_fd(-1) == -1
    yield
    assert signal.set_wakeup_fd(-1) == -1


def send_soon(number: int = signal.SIGUSR1, delay: float = 0.02) -> threading.Timer:
    """Have a signal sent to this process."""
    timer = threading.Timer(delay, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def test_a_handler_of_the_loop_is_called_in_it(any_loop: Loop) -> None:
    seen: list[object] = []

    def handle(argument: object) -> None:
        seen.append((argument, asyncio.get_running_loop()))
        any_loop.stop()

    any_loop.add_signal_handler(signal.SIGUSR1, handle, 1)
    timer = send_soon()
    any_loop.run_forever()
    timer.join()
    assert seen == [(1, any_loop)]
    assert any_loop.remove_signal_handler(signal.SIGUSR1)
    assert not any_loop.remove_signal_handler(signal.SIGUSR1)


def test_a_signal_between_two_runs_is_kept(any_loop: Loop) -> None:
    any_loop.add_signal_handler(signal.SIGUSR1, any_loop.stop)
    any_loop.call_soon(any_loop.stop)
    any_loop.run_forever()
    os.kill(os.getpid(), signal.SIGUSR1)
    any_loop.run_forever()
    any_loop.remove_signal_handler(signal.SIGUSR1)


def test_a_busy_loop_answers_signals(any_loop: Loop) -> None:
    def go_on() -> None:
        any_loop.call_soon(go_on)

    any_loop.add_signal_handler(signal.SIGUSR1, any_loop.stop)
    any_loop.call_soon(go_on)
    timer = send_soon()
    any_loop.run_forever()
    timer.join()
    any_loop.remove_signal_handler(signal.SIGUSR1)


def test_a_python_handler_that_raises_ends_the_sleep(loop: EventLoop) -> None:
    def handle(*_: object) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        timer = send_soon()
        with pytest.raises(InterruptError):
            loop.run_forever()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_python_handler_may_stop_a_loop_that_sleeps(loop: EventLoop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        timer = send_soon()
        loop.run_forever()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_another_thread_gets_wakes_the_loop(loop: EventLoop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        timer = threading.Timer(
            0.02, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        )
        timer.start()
        loop.run_forever()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_cancels_what_runs() -> None:
    ended: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    timer = send_soon(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(main())
    timer.join()
    assert ended == ["cancelled"]


def test_a_program_s_own_wakeup_descriptor_is_kept(loop: EventLoop) -> None:
    a, b = socket.socketpair()
    with a, b:
        b.setblocking(False)
        signal.set_wakeup_fd(b.fileno())
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            assert signal.set_wakeup_fd(-1) == b.fileno()
            assert a.recv(10) == bytes([signal.SIGUSR1])
        finally:
            signal.signal(signal.SIGUSR1, before)


def test_handlers_belong_to_the_main_thread(loop: EventLoop) -> None:
    errors: list[Exception] = []

    def add() -> None:
        try:
            loop.add_signal_handler(signal.SIGUSR1, print)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
    with pytest.raises(ValueError, match="signal number"):
        loop.add_signal_handler(1000, print)


def test_closing_the_loop_takes_its_handlers_back(loop: EventLoop) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    loop.add_signal_handler(signal.SIGUSR1, print)
    assert signal.getsignal(signal.SIGUSR1) != before
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) == before
