"""Programs that the tests talk to: the machine's own, or brought by `tools/get-program`.

PostgreSQL is not brought: it looks for its parts where it was installed.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str) -> str:
    """Where a program is."""
    if found := shutil.which(name):
        return found
    subprocess.run([ROOT / "tools" / "get-program", name], check=True)
    return str(ROOT / ".cache" / "programs" / name / "bin" / name)


@pytest.fixture(scope="session")
def wrk() -> str:
    """The load generator."""
    return program("wrk")


@contextmanager
def running(*command: str | Path, **options: Any) -> Iterator[None]:
    """Have a server run for as long as the block, which begins when the server says it is ready."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    ) as server:
        try:
            assert server.stdout is not None
            said = []
            for line in server.stdout:
                said.append(line)
                if "ready to accept connections" in line.lower():
                    break
            else:
                pytest.fail("".join(said))
            yield
        finally:
            server.terminate()
            server.communicate()


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Unix socket of a Redis server."""
    folder = tmp_path_factory.mktemp("redis")
    path = str(folder / "socket")
    options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder)]
    with running(program("redis-server"), *options):
        yield path


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """The folder in which a PostgreSQL server has its Unix socket; its user is `juggler`."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = shutil.which("postgres") or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip("this machine has no PostgreSQL")
    programs = Path(found).resolve().parent
    # It refuses to run as root, and another user may not enter pytest's folders.
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        if nobody:
            os.chown(folder, 65534, 65534)
        data = os.path.join(folder, "data")
        make = [programs / "initdb", "-D", data, "-A", "trust", "-U", "juggler", "--no-sync"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, cwd=folder, **nobody)
        with running(programs / "postgres", "-D", data, "-k", folder, "-h", "", **nobody):
            yield folder
