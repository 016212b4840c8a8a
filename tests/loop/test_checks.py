"""Loops with checks tell of swallowed cancellations and forgotten awaits, and of nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import juggler.asyncio
from juggler.asyncio import SwallowedCancellation

Body = Callable[[], Coroutine[Any, Any, object]]


async def _park() -> None:
    await asyncio.get_running_loop().create_future()


def _cancelled(body: Body, *, checks: bool = True, debug: bool = False) -> list[str]:
    """Cancels a task that runs `body`, and returns what its loop told of that."""

    async def main() -> None:
        task: asyncio.Task[object] = asyncio.create_task(body())
        for _ in range(4):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(8):
            await asyncio.sleep(0)
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.01)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        juggler.asyncio.run(main(), checks=checks, debug=debug)
    assert all(warning.category is SwallowedCancellation for warning in told)
    return [f"{warning.lineno}: {warning.message}" for warning in told]


def _line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    (found,) = (number for number, line in enumerate(lines, 1) if line.endswith(f"# {text}"))
    return found


async def _goes_on() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await _park()  # swallowed, and on
    await _park()


async def _returns() -> None:
    try:
        await _park()  # swallowed at the end
    except asyncio.CancelledError:
        return


async def _cleans_up_and_returns() -> None:
    try:
        await _park()  # swallowed after cleaning up
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def _suppresses() -> None:
    with contextlib.suppress(BaseException):
        await _park()  # suppressed


@pytest.mark.parametrize(
    ("body", "place", "then"),
    [
        (_goes_on, "swallowed, and on", "it went on"),
        (_returns, "swallowed at the end", "it returned"),
        (_cleans_up_and_returns, "swallowed after cleaning up", "it returned"),
        (_suppresses, "suppressed", "it returned"),
    ],
)
def test_a_swallowed_cancellation_is_told_of(body: Body, place: str, then: str) -> None:
    (told,) = _cancelled(body)
    assert told.startswith(f"{_line_of(place)}: {body.__name__}() has swallowed the cancellation")
    assert then in told


def test_debug_mode_looks_too_and_others_do_not() -> None:
    assert len(_cancelled(_goes_on, checks=False, debug=True)) == 1
    assert _cancelled(_goes_on, checks=False) == []


async def _lets_it_through() -> None:
    try:
        await _park()
    finally:
        for _ in range(3):
            await asyncio.sleep(0)


async def _raises_it_again() -> None:
    try:
        await _park()
    except asyncio.CancelledError:
        await asyncio.sleep(0)
        raise


async def _raises_another() -> None:
    try:
        await _park()
    except asyncio.CancelledError:
        raise KeyError("another") from None


async def _takes_it_back() -> None:
    current = asyncio.current_task()
    assert current is not None
    try:
        await _park()
    except asyncio.CancelledError:
        current.uncancel()
    await asyncio.sleep(0)


async def _times_out() -> None:
    for _ in range(2):
        try:
            async with juggler.asyncio.timeout(0):
                await _park()
        except TimeoutError:
            await asyncio.sleep(0)
        try:
            await juggler.asyncio.wait_for(_park(), 0)
        except TimeoutError:
            await asyncio.sleep(0)


async def _has_a_group(group_class: type[asyncio.TaskGroup]) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("member")

    try:
        async with group_class() as group:
            group.create_task(fails())
            await _park()
    except BaseExceptionGroup:
        for _ in range(3):
            await asyncio.sleep(0)


async def _awaits_another_cancelled() -> None:
    other = asyncio.create_task(_park())
    await asyncio.sleep(0)
    other.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await other
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "body",
    [
        _park,
        _lets_it_through,
        _raises_it_again,
        _raises_another,
        _takes_it_back,
        _times_out,
        lambda: _has_a_group(asyncio.TaskGroup),
        lambda: _has_a_group(juggler.asyncio.TaskGroup),
        _awaits_another_cancelled,
        lambda: juggler.asyncio.sleep(10),
        lambda: juggler.asyncio.Event().wait(),
    ],
)
def test_what_is_none_is_not_told_of(body: Body) -> None:
    async def until_done() -> None:
        """Not cancelled from outside."""
        task: asyncio.Task[object] = asyncio.create_task(body())
        await asyncio.wait({task}, timeout=0.1)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        juggler.asyncio.run(until_done(), checks=True)
    assert _cancelled(body) == []


async def _forgets() -> None:
    _park()  # forgotten here
    gc.collect()


def _unawaited(checks: bool) -> str:
    with pytest.warns(RuntimeWarning, match="never awaited") as told:
        juggler.asyncio.run(_forgets(), checks=checks)
    (warning,) = told
    return str(warning.message)


def test_a_forgotten_await_is_told_with_the_line_of_the_call() -> None:
    depth = sys.get_coroutine_origin_tracking_depth()
    text = _unawaited(checks=True)
    assert text.startswith("coroutine '_park' was never awaited\nCoroutine created at")
    assert f"line {_line_of('forgotten here')}, in _forgets" in text
    assert sys.get_coroutine_origin_tracking_depth() == depth


def test_without_checks_it_tells_where_the_function_is() -> None:
    text = _unawaited(checks=False)
    assert text.startswith("coroutine '_park' was never awaited\nIt is defined at ")
    assert f"{__file__}:{_park.__code__.co_firstlineno}." in text


PROGRAM = """
import asyncio, time

async def blocks():
    time.sleep(1.2)

async def swallows():
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await asyncio.sleep(0)

async def main():
    await blocks()
    blocks()
    for _ in range(2):
        task = asyncio.create_task(swallows())
        await asyncio.sleep(0)
        task.cancel()
        await task

asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "table"])
def test_the_report_has_what_the_checks_found(tmp_path: Path, form: str) -> None:
    program, report = tmp_path / "program.py", tmp_path / "report"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "juggler", "run", f"--report={form}", "--report-file", report]
    done = subprocess.run(
        [*command, program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Told at once as well.
    assert "the event loop has not moved for" in done.stderr
    assert "SwallowedCancellation: swallows() has swallowed" in done.stderr
    text = report.read_text(encoding="utf-8")
    if form == "table":
        rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
        found = {(row[0], row[1], row[3]) for row in rows if len(row) >= 4}
    else:
        findings = json.loads(text)["findings"]
        found = {(row["kind"], row["site"], str(row["count"])) for row in findings}
        (blocked,) = (row for row in findings if row["kind"] == "blocked loop")
        assert blocked["seconds"] >= 0.5
    assert {
        ("blocked loop", f"{program}:5", "1"),
        ("never awaited", f"{program}:15", "1"),
        ("swallowed cancellation", f"{program}:9", "2"),
    } <= found
