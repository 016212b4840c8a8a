"""The process pool's Python side: what travels between processes, the workers, the executor."""

from __future__ import annotations

import os


def processors() -> int:
    """How many processors this process may use; as `os.process_cpu_count`, on every version."""
    if hasattr(os, "process_cpu_count"):  # 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) or 1
