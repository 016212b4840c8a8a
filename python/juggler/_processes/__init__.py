"""The process pool's Python side: what travels between processes, the workers, the executor."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing `typing` costs more than this whole module
if TYPE_CHECKING:
    from typing import Any

    from juggler.futures import ProcessPoolExecutor


def processors() -> int:
    """How many processors this process may use; as `os.process_cpu_count`, on every version."""
    if hasattr(os, "process_cpu_count"):  # 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) or 1


def own_pool(workers: int | None = None) -> ProcessPoolExecutor:
    """A pool whose processes are started in juggler's way, under ``juggler run``, too.

    There the default is the interpreter's, for programs that count on it. What is juggler's own, as
    its `map`, needs no ``if __name__ == "__main__"`` anywhere.
    """
    from juggler import multiprocessing
    from juggler.futures import ProcessPoolExecutor

    context: Any = multiprocessing.get_context()
    return ProcessPoolExecutor(workers, mp_context=context)
