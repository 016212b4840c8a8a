"""Libraries that people use asyncio with, unmodified, on juggler's loop.

Each program in `programs` is an ordinary one, which checks its own results, and that what runs it
is juggler's. It is run in each way in which a user comes to juggler.
"""

import asyncio
import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import juggler.asyncio

PROGRAMS = Path(__file__).with_name("programs")


def by_run(program: str) -> None:
    """``juggler.asyncio.run(main())``."""
    juggler.asyncio.run(importlib.import_module(program).main())


def by_runner(program: str) -> None:
    """The standard library's runner, with a factory."""
    with asyncio.Runner(loop_factory=juggler.asyncio.new_event_loop) as runner:
        runner.run(importlib.import_module(program).main())


def by_command(program: str) -> None:
    """``juggler run program.py``."""
    command = [sys.executable, "-m", "juggler", "run", str(PROGRAMS / f"{program}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


in_every_way = pytest.mark.parametrize("run", [by_run, by_runner, by_command])
Run = Callable[[str], None]


@in_every_way
def test_aiohttp(run: Run) -> None:
    run("aiohttp_service")


@in_every_way
def test_httpx(run: Run) -> None:
    run("httpx_requests")


@in_every_way
def test_anyio(run: Run) -> None:
    run("anyio_tasks")


@in_every_way
def test_websockets(run: Run) -> None:
    run("websockets_chat")


@in_every_way
def test_redis(run: Run, redis_socket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_SOCKET", redis_socket)
    run("redis_commands")


@in_every_way
def test_asyncpg(run: Run, postgres_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("asyncpg", reason="asyncpg has no release for this Python")
    monkeypatch.setenv("PGHOST", postgres_folder)
    run("asyncpg_queries")


@in_every_way
def test_subprocess_pipelines(run: Run) -> None:
    run("subprocess_pipelines")


@contextmanager
def uvicorn(*command: str) -> Iterator[str]:
    """Serve for as long as the block runs; gives the address, and checks how the server ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(PROGRAMS)])}
    with subprocess.Popen(
        [sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stderr is not None
        lines = []
        for line in server.stderr:
            lines.append(line)
            if found := re.search(r"running on (http://[\d.:]+)", line):
                break
        else:
            pytest.fail("".join(lines))
        try:
            yield found[1]
        finally:
            server.send_signal(signal.SIGTERM)
            _, rest = server.communicate(timeout=60)
    assert "Application shutdown complete" in rest or "Finished server process" in rest
    assert "Traceback" not in rest and "ERROR" not in rest


COMMANDS = {
    "factory": (
        *("-m", "uvicorn", "--loop", "juggler.asyncio:new_event_loop", "--port", "0"),
        *("--no-access-log", "--lifespan", "off", "uvicorn_app:app"),
    ),
    "juggler run": ("-m", "juggler", "run", str(PROGRAMS / "uvicorn_app.py")),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_uvicorn_under_load(command: tuple[str, ...], wrk: str) -> None:
    with uvicorn(*command) as address:
        load = [wrk, "--threads", "1", "--connections", "50", "--duration", "2s", address]
        done = subprocess.run(load, capture_output=True, text=True, timeout=60, check=True)
    requests = re.search(r"(\d+) requests in", done.stdout)
    assert requests is not None and int(requests[1]) > 100, done.stdout
    # What goes wrong has a line of its own, each of which is there only then.
    assert "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout, done.stdout
