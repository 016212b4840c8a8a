"""Memory of idle primitives: what the process grows by, not what Python's allocator knows of.

tracemalloc does not see what Rust or the C library allocates, so a child process makes many
instances and looks at its resident set. A fresh process a sample: freed memory would be reused.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

from harness.contenders import MAKERS, Contender
from harness.measure import Bench, Effort, Metric
from thread_rows.child import ask

GROUP = "memory"

_INSTANCES = 100_000
# Enough for the type, its caches and the allocators' first arenas to be there already.
_WARM_UP = 1_000


def resident() -> int:
    """The resident set of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def bytes_each(contender: Contender, name: str, count: int) -> float:
    """Resident bytes per instance in this process, which should be a fresh one."""
    keep = [contender.make(name) for _ in repeat(None, _WARM_UP)]
    slots: list[object] = [0] * count  # touched now, so that the list's pages do not count
    gc.collect()
    gc.disable()
    before = resident()
    for number in range(count):
        slots[number] = contender.make(name)
    grown = resident() - before
    del keep
    return grown / count


def _bench(name: str) -> Bench:
    def prepare(contender: Contender, effort: Effort) -> Callable[[], list[list[float]]]:
        count = effort.count(_INSTANCES)
        arguments = ("thread_rows.memory", contender.name, name, str(count))
        return lambda: [[ask(*arguments)]]

    return Bench(GROUP, (Metric(f"{name}, one idle", unit="B"),), (name,), prepare, most_rounds=3)


ROWS = tuple(
    _bench(name) for name in ("Lock", "RLock", "Semaphore", "Event", "Condition", "Queue", "Future")
)


if __name__ == "__main__":
    chosen, class_name, instances = sys.argv[1:]
    print(bytes_each(MAKERS[chosen](), class_name, int(instances)))
