"""juggler's event loop against the standard library's and the strongest peers.

Prints ratios of CPU time from one interleaved run, never a bare time and never a verdict. Run
`make bench-loop`, or this file with any interpreter that has juggler and
`benches/python/requirements.txt` installed. How it measures, and how to read what it prints, is in
`docs/internals/benchmarks.md`.
"""

from __future__ import annotations

import sys

from harness.command import main
from loop_rows import alone, busy, memory, network, primitives, scheduling, tasks
from loop_rows.contenders import contenders

GROUPS = (scheduling, tasks, memory, primitives, network, alone, busy)
ROWS = [row for group in GROUPS for row in group.ROWS]

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, contenders()))
