"""`juggler fetch` against the strongest downloaders, from a local nginx, over 16 connections.

Prints ratios of wall-clock and CPU time from one interleaved run, never a bare time and never a
verdict. Every file is compared with the original after each turn. Run `make bench-fetch`, which
brings nginx, wget2 and aria2c. How it measures, and how to read what it prints, is in
`docs/internals/benchmarks.md`.
"""

from __future__ import annotations

import sys

from fetch_rows.clients import contenders
from fetch_rows.rows import ROWS
from harness.command import main

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS, contenders()))
