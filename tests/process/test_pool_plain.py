"""Numbers, strings and bytes go to workers and come back without a pickle: nobody can tell."""

import enum
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pool_calls
import pytest

from juggler.futures import ProcessPoolExecutor

# What fits a row of plain arguments is about 160 bytes long.
LENGTHS = [0, 1, 8, 100, *range(150, 170), 255, 256, 1000, 70_000]


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()


VALUES = [
    None,
    *(True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**30),
    *(0.0, -0.0, 1.5, float("inf"), struct.unpack("d", struct.pack("Q", 0x7FF8_0000_DEAD_BEEF))[0]),
    *("", "ä", "\0", "\ud800", "𝄞" * 50, b"", b"\xff\0", bytearray(b"ab")),
    *(Number.ONE, Text("text")),
    *("x" * length for length in LENGTHS),
    *("ä" * length for length in LENGTHS),
    *(bytes(length) for length in LENGTHS),
    *(bytearray(length) for length in LENGTHS),
]


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2) as pool:
        yield pool


def bits(value: Any) -> Any:
    """Something that is equal only for what is the same."""
    return (type(value), struct.pack("d", value) if type(value) is float else value)


def test_values_arrive_as_they_are(pool: ProcessPoolExecutor) -> None:
    futures = [pool.submit(pool_calls.identity, value) for value in VALUES]
    assert [bits(future.result()) for future in futures] == [bits(value) for value in VALUES]


def test_arguments_keep_their_order(pool: ProcessPoolExecutor) -> None:
    rows = [VALUES[:at] for at in range(20)]
    futures = [pool.submit(pool_calls.together, *row) for row in rows]
    for row, future in zip(rows, futures, strict=True):
        assert [bits(value) for value in future.result()] == [bits(value) for value in row]
    assert pool.submit(pool_calls.together, 1, last="x").result() == (1, "x")


@pytest.mark.parametrize("value", ["two words", b"two words", bytearray(b"two words"), (1, "x")])
def test_one_object_passed_twice_arrives_as_one(pool: ProcessPoolExecutor, value: Any) -> None:
    assert pool.submit(pool_calls.are_one, value, value).result()
    assert not pool.submit(pool_calls.are_one, bytearray(b"x"), bytearray(b"x")).result()


def test_submit_runs_no_code_of_the_program(tmp_path: Path) -> None:
    """Whoever submits may hold the lock that a callback takes, or a result when it is unpickled."""
    marker = tmp_path / "marker"
    called_by = []
    pool_calls.Noted.threads.clear()
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(pool_calls.Noted, n) for n in range(6000)]
        assert threading.get_ident() not in pool_calls.Noted.threads
        assert [future.result().number for future in futures] == list(range(6000))
        assert pool_calls.Noted.threads

        first = pool.submit(pool_calls.return_when, str(marker), 1)
        first.add_done_callback(lambda _: called_by.append(threading.get_ident()))
        marker.touch()
        futures = [pool.submit(pool_calls.identity, n) for n in range(6000)]
        assert threading.get_ident() not in called_by
        assert [future.result() for future in futures] == list(range(6000))
    assert len(called_by) == 1


def test_a_burst_of_calls_is_made_while_nobody_waits(pool: ProcessPoolExecutor) -> None:
    """Workers that nap between calls get up by themselves."""
    for _ in range(20):
        futures = [pool.submit(pool_calls.identity, n) for n in range(300)]
        while not all(future.done() for future in futures):
            pass
        assert [future.result() for future in futures] == list(range(300))
