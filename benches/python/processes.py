"""juggler's process pool and channels against the standard library's and the strongest peers.

Prints ratios from one interleaved run, never a bare time and never a verdict. Run
`make bench-processes`, or this file with any interpreter that has juggler and
`benches/python/requirements.txt` installed. How it measures, and how to read what it prints, is in
`docs/internals/benchmarks.md`.
"""

from __future__ import annotations

import sys

from harness.command import main
from process_rows import channels, pools, shared

# Workers that import the program anew must not run it.
if __name__ == "__main__":
    rows = [*pools.ROWS, *channels.ROWS, *shared.ROWS]
    sys.exit(main(__doc__ or "", rows, pools.contenders()))
