"""What a process has that it could leave behind; other threads may be at work meanwhile."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path


def _read(what: Callable[[str], str], names: Iterable[str]) -> Counter[str]:
    """What `what` reads of each name that is still there."""
    found: Counter[str] = Counter()
    for name in names:
        try:
            found[what(name)] += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def open_files() -> Counter[str]:
    """What the descriptors of this process lead to."""
    gc.collect()
    return _read(lambda name: os.readlink(f"/proc/self/fd/{name}"), os.listdir("/proc/self/fd"))


def threads() -> Counter[str]:
    """The names that the system has for the threads of this process."""
    tasks = os.listdir("/proc/self/task")
    return _read(lambda task: Path(f"/proc/self/task/{task}/comm").read_text().strip(), tasks)


def children() -> set[int]:
    """The processes that this process has, dead ones that nobody has reaped too."""
    tasks = os.listdir("/proc/self/task")
    lists = _read(lambda task: Path(f"/proc/self/task/{task}/children").read_text(), tasks)
    return {int(pid) for line in lists for pid in line.split()}


def shared_memory() -> Counter[str]:
    """The memory that has a name."""
    return Counter(os.listdir("/dev/shm"))
