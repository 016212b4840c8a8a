"""A misbehaving server, and the command as users run it."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Server

FETCH = [str(Path(sysconfig.get_path("scripts"), "juggler")), "fetch"]
"""The command as it is installed, which runs no Python."""
FETCH_IN_PYTHON = [sys.executable, "-m", "juggler", "fetch"]
"""Its other door."""


@dataclass
class Run:
    """How ``juggler fetch`` ended."""

    status: int
    stderr: str
    files: dict[str, dict[str, Any]]
    """What it told of each address, by its path."""
    summary: dict[str, Any]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


Command = Callable[..., Run]


@pytest.fixture
def command(server: Server, folder: Path) -> Command:
    """Runs ``juggler fetch`` on pages of the server, with short waits."""

    def command(
        *words: str, env: dict[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> Run:
        is_page = [word.startswith("/") and not Path(word).is_file() for word in words]
        words = tuple(server.url(w) if is_p else w for w, is_p in zip(words, is_page, strict=True))
        done = subprocess.run(
            [*FETCH, "--json", "--backoff", "0.01", "-o", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, **(env or {})},
            preexec_fn=before,
            check=False,
        )
        *told, summary = map(json.loads, done.stdout.splitlines() or ["{}"])
        base = server.url("")
        files = {each["url"].removeprefix(base): each for each in told}
        return Run(done.returncode, done.stderr, files, summary)

    return command
