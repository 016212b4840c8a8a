"""juggler's threads, queues and futures against the standard library's and the strongest peers.

Prints ratios from one interleaved run, never a bare time and never a verdict: what a row must
reach is for its reader to say. Run `make bench-threads`, or this file with any interpreter that
has juggler and `benches/python/requirements.txt` installed. How it measures, and how to read what
it prints, is in `docs/internals/benchmarks.md`.
"""

from __future__ import annotations

import sys

from harness.command import main
from harness.contenders import MAKERS
from harness.measure import Bench
from thread_rows import busy_producer, contended, detection, memory, pool, timers, uncontended


def _benches() -> list[Bench]:
    return [
        *uncontended.ROWS,
        *contended.ROWS,
        *pool.ROWS,
        *timers.ROWS,
        *busy_producer.ROWS,
        *memory.ROWS,
        *detection.rows(),
    ]


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", _benches(), [make() for make in MAKERS.values()]))
