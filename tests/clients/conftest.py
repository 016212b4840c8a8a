"""Programs that the tests talk to: the machine's own, or brought by `tools/get-program`."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Unix socket of a Redis server."""
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "socket"
    command = [program("redis-server"), "--port", "0", "--unixsocket", str(path)]
    command += ["--save", "", "--dir", str(folder), "--daemonize", "no"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if "eady to accept connections" in line:
                    break
            else:
                pytest.fail("redis-server has ended")
            yield str(path)
        finally:
            server.terminate()
            server.communicate()
