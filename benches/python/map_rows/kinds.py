"""The kinds of work that `on="auto"` is to tell apart. Functions that any process can import."""

from __future__ import annotations

import ctypes
import hashlib
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A function, and its items for a run of about a second on the best model."""

    name: str
    function: Callable[[Any], Any]
    items: Sequence[Any]


def sleep(seconds: float) -> None:
    time.sleep(seconds)


_SERVER = """
import socket, sys, threading, time
server = socket.create_server(("127.0.0.1", 0), backlog=128)
print(server.getsockname()[1], flush=True)
def serve(client):
    with client:
        client.recv(16)
        time.sleep(0.01)
        client.sendall(b"x" * 1000)
threading.Thread(target=lambda: (sys.stdin.read(), __import__("os")._exit(0)), daemon=True).start()
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""


@cache
def _server() -> tuple[subprocess.Popen[str], int]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def ask(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET")
        size = 0
        while received := connection.recv(4096):
            size += len(received)
    return size


def python(number: int) -> int:
    total = 0
    for step in range(100_000):
        total += step ^ number
    return total


@cache
def _matrix() -> Any:
    import numpy

    return numpy.random.default_rng(0).random((500, 500))


def matmul(_: int) -> float:
    matrix = _matrix()
    return float((matrix @ matrix)[0, 0])


def elementwise(number: int) -> float:
    import numpy

    values = numpy.arange(2_000_000, dtype=float)
    return float((numpy.sqrt(values * values + number) * 0.5 - values).sum())


_LARGE = bytes(8 << 20)


def hash_large(_: int) -> bytes:
    return hashlib.sha256(_LARGE).digest()


def hash_small(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(64, "little")).digest()


_TEXT = " ".join(str(number * 7919 % 100_003) for number in range(60_000)).encode()


def compress(_: int) -> int:
    return len(zlib.compress(_TEXT))


_DOCUMENT = json.dumps([{"id": n, "name": f"name {n}", "tags": ["a", "b"]} for n in range(3_000)])


def parse(_: int) -> int:
    return len(json.dumps(json.loads(_DOCUMENT)))


_PATTERN = re.compile(r"(\d+) \w*(\d)\d* \2")


def search(_: int) -> int:
    return sum(1 for _ in _PATTERN.finditer(_TEXT[:100_000].decode()))


def order(seed: int) -> int:
    numbers = [seed * n * 2_654_435_761 % 1_000_003 for n in range(30_000)]
    return sorted(numbers)[0]


@cache
def _folder() -> tuple[tempfile.TemporaryDirectory[str], list[str]]:
    folder = tempfile.TemporaryDirectory(prefix="juggler-bench-")
    data = random.Random(0).randbytes(1 << 20)
    paths = [Path(folder.name, str(number)) for number in range(16)]
    for path in paths:
        path.write_bytes(data)
    return folder, [str(path) for path in paths]


def read(path: str) -> int:
    with open(path, "rb") as file:
        return zlib.crc32(file.read())


def child(seconds: float) -> int:
    return subprocess.run(["sleep", str(seconds)], check=True).returncode


def sleep_with_gil(microseconds: int) -> None:
    ctypes.PyDLL(None).usleep(microseconds)


def mixed(number: int) -> int:
    time.sleep(0.003)
    return python(number)


def kinds(share: float) -> list[Kind]:
    """All kinds, with this share of the items."""

    def some(count: int, value: Any = None) -> list[Any]:
        many = range(max(8, int(count * share)))
        return [value for _ in many] if value is not None else list(many)

    _, paths = _folder()
    rows = [
        Kind("sleep", sleep, some(1_500, 0.01)),
        Kind("socket wait", ask, some(1_000, _server()[1])),
        Kind("pure Python", python, some(300)),
        Kind("large hashes", hash_large, some(200)),
        Kind("small hashes", hash_small, some(300_000)),
        Kind("zlib", compress, some(60)),
        Kind("json", parse, some(150)),
        Kind("regex", search, some(150)),
        Kind("sort", order, some(150)),
        Kind("file reads", read, paths * max(1, int(100 * share))),
        Kind("subprocess", child, some(150, 0.02)),
        Kind("C call that holds the GIL", sleep_with_gil, some(400, 5_000)),
        Kind("mixed", mixed, some(300)),
    ]
    try:
        import numpy  # noqa: F401
    except ImportError:
        return rows
    return [
        *rows[:3],
        Kind("numpy matmul", matmul, some(300)),
        Kind("numpy, large temporaries", elementwise, some(60)),
        *rows[3:],
    ]
