"""What a process pool says to arguments that make no sense, before anything is started."""

from __future__ import annotations

import math
from typing import Any

import pytest

from juggler import futures, multiprocessing


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"initializer": 3}, TypeError, "initializer must be a callable"),
        ({"mp_context": "fork"}, TypeError, r"as get_context\('fork'\) returns, not text"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be >= 1"),
        ({"max_tasks_per_child": "3"}, TypeError, "max_tasks_per_child must be an integer"),
        ({"memory_limit": 0}, ValueError, "memory_limit must be greater than 0"),
        ({"memory_limit": "1G"}, TypeError, "must be an integer, of bytes, not '1G'"),
    ],
)
def test_executor(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        futures.ProcessPoolExecutor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"timeout": 0}, ValueError, "timeout must be greater than 0"),
        ({"timeout": math.nan}, ValueError, "timeout must be greater than 0"),
        ({"timeout": "3"}, TypeError, "must be a number, of seconds, or None, not '3'"),
        ({"retries": -1}, ValueError, "retries must be 0 or more"),
        ({"retries": 1.5}, TypeError, "retries must be an integer, not 1.5"),
        ({"priority": "high"}, TypeError, "priority must be an integer, not 'high'"),
    ],
)
def test_options(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with futures.ProcessPoolExecutor(1) as pool, pytest.raises(error, match=message):
        pool.options(**arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"processes": 0}, ValueError, "Number of processes must be at least 1"),
        ({"initializer": 3}, TypeError, "initializer must be a callable"),
        ({"maxtasksperchild": 0}, ValueError, "maxtasksperchild must be a positive int or None"),
    ],
)
def test_pool(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        multiprocessing.Pool(**arguments)


def test_chunks_and_buffers() -> None:
    with futures.ProcessPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            pool.map(abs, [1], chunksize=0)
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            pool.map(abs, [1], buffersize=0)
