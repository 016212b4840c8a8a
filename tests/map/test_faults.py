"""What happens when something goes wrong."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from calls import EVERYWHERE, FIXED, deadly, double, running, sleepy, unpicklable

import juggler
from juggler import futures

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("chunk", [1, 4, "auto"])
def test_a_killed_worker_costs_its_own_item_only(chunk: Any) -> None:
    outcomes = list(
        juggler.map(deadly, range(20), on="processes", errors="return", chunk=chunk, limit=2)
    )
    assert isinstance(outcomes.pop(5), futures.WorkerDied)
    assert outcomes == [n for n in range(20) if n != 5]


def test_a_killed_worker_is_an_error_with_its_item() -> None:
    with pytest.raises(futures.WorkerDied) as caught:
        list(juggler.map(deadly, range(20), on="processes", chunk=3))
    assert "juggler.map: item 5" in caught.value.__notes__


def test_a_call_whose_worker_dies_may_be_tried_again(tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        try:
            (tmp_path / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
        return -1

    assert list(juggler.map(die_once, range(3), on="processes", retries=1)) == [0, 1, 2]


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_result_that_cannot_travel_is_that_item_s_error(chunk: int) -> None:
    outcomes = list(
        juggler.map(unpicklable, range(6), on="processes", errors="return", chunk=chunk)
    )
    assert isinstance(outcomes[2], pickle.PicklingError | TypeError)
    assert [*outcomes[:2], *outcomes[3:]] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("chunk", [1, 4])
def test_an_item_that_cannot_travel_is_that_item_s_error(chunk: int) -> None:
    items = [1, 2, threading.Lock(), 4]
    outcomes = list(juggler.map(str, items, on="processes", errors="return", chunk=chunk))
    assert isinstance(outcomes[2], pickle.PicklingError | TypeError)
    assert [*outcomes[:2], *outcomes[3:]] == ["1", "2", "4"]


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_of_the_input_comes_after_what_was_there(name: str, ordered: bool) -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    with running(name) as map_:
        results = map_(double, broken(), ordered=ordered)
        assert sorted(next(results) for _ in range(5)) == [0, 2, 4, 6, 8]
        with pytest.raises(OSError, match="the disk is gone"):
            next(results)
        assert list(results) == []


@pytest.mark.parametrize("name", FIXED)
def test_what_ends_programs_is_raised_in_any_case(name: str) -> None:
    def leave(number: int) -> int:
        if number == 2:
            raise SystemExit(7)
        return number

    with running(name) as map_, pytest.raises(SystemExit):
        list(map_(leave, range(5), errors="return", limit=1))


def test_a_closed_map_begins_no_call_that_waits_for_its_turn() -> None:
    begun: list[int] = []
    results = juggler.map(begun.append, itertools.count(), on="threads", rate="1/h", limit=4)
    next(results)
    began = threading.active_count()
    results.close()
    deadline = time.monotonic() + 60
    while threading.active_count() > began - 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert begun == [0]


def test_a_pause_between_attempts_ends_with_the_map() -> None:
    from juggler import policy

    attempts: list[int] = []

    def fail(number: int) -> int:
        attempts.append(number)
        raise ConnectionError

    patient = policy.retry(5, backoff=3600.0)
    results = juggler.map(fail, [1], on="threads", policy=patient)

    def close() -> None:
        while not attempts:
            time.sleep(0.01)
        time.sleep(0.05)
        results.close()

    closer = threading.Thread(target=close)
    closer.start()
    with results:
        assert list(results) == []
    closer.join()
    assert attempts == [1]


_INTERRUPTED = """
import os, signal, sys, threading, time
import juggler
sys.path.insert(0, {folder!r})

def work(number):
    with open({log!r}, "a") as log:
        log.write("x")
    time.sleep(0.05 if number < 2 else {seconds})
    return number

async def work_async(number):
    import asyncio
    with open({log!r}, "a") as log:
        log.write("x")
    await asyncio.sleep(0.05 if number < 2 else {seconds})

def strike():
    while not os.path.exists({log!r}):
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=strike, daemon=True).start()
fn = work_async if {on!r} == "loop" else work
for result in juggler.map(fn, range(100_000), on={on!r}, limit=4, **{options!r}):
    {body}
"""


@pytest.mark.parametrize("options", [{}, {"rate": "5/s", "retries": 3}], ids=["plain", "policies"])
@pytest.mark.parametrize("body", ["pass", "time.sleep(600)"], ids=["waiting", "consuming"])
def test_one_interrupt_ends_a_program(options: dict[str, Any], body: str, tmp_path: Path) -> None:
    programs = {}
    for on in ("serial", "threads", "processes", "loop", "auto"):
        log = tmp_path / on
        program = _INTERRUPTED.format(
            folder=str(FOLDER), log=str(log), seconds=600, on=on, options=options, body=body
        )
        command = [sys.executable, "-c", program]
        programs[log] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    begun = {}
    for log, run in programs.items():
        _, errors = run.communicate(timeout=60)
        assert run.returncode == -signal.SIGINT, log
        assert errors.count("Traceback (most recent call last)") == 1, errors
        assert errors.rstrip().endswith("KeyboardInterrupt"), errors
        begun[log] = log.read_text()
        # Two that end at once, and four more that don't.
        assert len(begun[log]) <= 7, log
    time.sleep(0.3)
    assert {log: log.read_text() for log in begun} == begun


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_shutdown_ends_the_input(name: str) -> None:
    found = []
    with running(name) as map_, juggler.shutdown(grace=30) as stop:
        for result in map_(double, itertools.count(), buffer=20):
            found.append(result)
            if len(found) == 30:
                stop.request()
    assert found == [2 * n for n in range(len(found))]
    assert 30 <= len(found) <= 51


def test_a_program_that_ends_with_a_map_under_way_ends() -> None:
    program = """
import itertools, time, juggler
results = juggler.map(time.sleep, itertools.repeat(0.01), on="threads", limit=3)
next(results)
"""
    run = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert run.returncode == 0


def test_a_map_survives_the_fork_of_its_program() -> None:
    results = juggler.map(sleepy, [0.01] * 20, on="threads", limit=2)
    next(results)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert list(results) == [0.01] * 19


_UNGUARDED = """
import juggler
from juggler import policy

def double(number):
    return 2 * number

print(*juggler.map(double, range(3), on="processes"), policy.timeout(60, on="processes")(double)(4))
"""


@pytest.mark.parametrize("how", [[], ["-m", "juggler", "run"]], ids=["python", "juggler run"])
def test_processes_need_no_guard_in_the_main_module(how: list[str], tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_UNGUARDED)
    command = [sys.executable, *how, str(program)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr) == ("0 2 4 8\n", "")


@pytest.mark.parametrize("on", ["serial", "threads", "processes", "auto"])
@pytest.mark.parametrize("ordered", [True, False])
def test_an_error_of_the_input_says_so(on: Any, ordered: bool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    results = juggler.map(double, broken(), on=on, ordered=ordered)
    assert next(results) == 2
    with pytest.raises(OSError, match="gone") as caught:
        next(results)
    assert caught.value.__notes__ == ["juggler.map: the input"]


def test_a_second_thread_is_refused_and_the_first_goes_on() -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait(number: int) -> int:
        begun.set()
        assert gate.wait(60)
        return number

    results = juggler.map(wait, range(3), on="serial")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(list, results)
        assert begun.wait(60)
        with pytest.raises(RuntimeError, match="by another thread"):
            next(results)
        gate.set()
        assert found.result() == [0, 1, 2]
