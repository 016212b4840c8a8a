"""`ProcessPoolExecutor.map`: calls in chunks, as large as they are short."""

from __future__ import annotations

import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from juggler._processes import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def start(
    submit: Callable[..., Any],
    workers: int,
    function: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int | None,
    buffersize: int | None,
    ordered: bool,
) -> Iterator[Any]:
    """The iterator of results."""
    if chunksize is not None and chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    end = None if timeout is None else time.monotonic() + timeout
    if chunksize == 1:
        return _single(submit, function, iterables, end, buffersize)
    raise NotImplementedError


def _single(submit, function, iterables, end, buffersize):
    arguments = zip(*iterables)
    futures = deque(submit(function, *args) for args in itertools.islice(arguments, buffersize))

    def results():
        try:
            futures.reverse()
            while futures:
                if buffersize:
                    pass
                f = futures.pop()
                yield f.result() if end is None else f.result(end - time.monotonic())
        finally:
            for f in futures:
                f.cancel()

    return results()
