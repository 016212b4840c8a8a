"""The watchdog tells of what holds a loop up while it does."""

import asyncio
import logging
import threading
import time

import pytest

import juggler.asyncio
from juggler.asyncio import watchdog

PATIENCE = 30.0


def hold_up(told: threading.Event) -> None:
    """Blocks until the watchdog has told of it."""
    assert told.wait(PATIENCE), "nobody told while the loop was held up"


class Reports(list[juggler.asyncio.Blocked]):
    """What was told, and that it was."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def __call__(self, blocked: juggler.asyncio.Blocked) -> None:
        self.append(blocked)
        self.told.set()


def test_a_coroutine_that_blocks_is_told_of_while_it_does() -> None:
    reports = Reports()

    async def main() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.set_name("culprit")
        hold_up(reports.told)

    with watchdog(0.02, report=reports):
        juggler.asyncio.run(main())
    assert len(reports) == 1
    assert reports[0].task == "culprit"
    assert reports[0].seconds >= 0.02
    assert [frame.name for frame in reports[0].stack][:2] == ["main", "hold_up"]
    text = str(reports[0])
    assert "task 'culprit' is here:" in text
    assert "hold_up(reports.told)" in text
    assert "to_thread" in text


def test_a_callback_that_blocks_is_told_of_once_each_time() -> None:
    reports = Reports()

    def block() -> None:
        hold_up(reports.told)
        reports.told.clear()
        # It goes on to block, which is no news.
        time.sleep(0.1)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(2):
            loop.call_soon(block)
            await asyncio.sleep(0.05)

    with watchdog(0.02, report=reports):
        juggler.asyncio.run(main())
    assert [blocked.task for blocked in reports] == [None, None]
    assert "because a callback is here" in str(reports[0])


def test_a_loop_that_sleeps_or_works_in_small_steps_is_not_told_of() -> None:
    reports = Reports()

    async def main() -> None:
        await asyncio.sleep(1)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            await asyncio.sleep(0)

    with watchdog(0.7, report=reports):
        juggler.asyncio.run(main())
    assert reports == []


def test_by_default_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        give_up = time.monotonic() + PATIENCE
        while not caplog.records and time.monotonic() < give_up:
            time.sleep(0.005)

    with caplog.at_level(logging.WARNING, "asyncio"), watchdog(0.02):
        juggler.asyncio.run(main())
    assert "has not moved for" in caplog.text
    assert "time.sleep(0.005)" in caplog.text


def test_a_report_that_raises_is_logged_and_the_watch_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = threading.Event()
    calls = []

    def report(_: juggler.asyncio.Blocked) -> None:
        calls.append(1)
        told.set()
        raise LookupError("no report")

    async def main() -> None:
        for _ in range(2):
            hold_up(told)
            told.clear()
            await asyncio.sleep(0.05)

    with watchdog(0.02, report=report):
        juggler.asyncio.run(main())
    assert len(calls) == 2
    assert "LookupError: no report" in caplog.text


def test_bad_use() -> None:
    for bad in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            watchdog(bad)
    dog = watchdog(1)
    dog.stop()
    with dog, pytest.raises(RuntimeError, match="already"):
        dog.start()
    with dog:
        pass
