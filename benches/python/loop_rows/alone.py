"""The network's rows once more, each server in a process of its own, as its users have it.

What a loop costs depends on what its process did before. asyncio and uvloop receive into new
objects of 256 KiB, which the allocator maps from the system and gives back each time, unless
something as large was freed before: then it keeps such memory. Where all contenders share a
process, one of them always has. A server that has just been started has not.

    python -m loop_rows.alone CONTENDER ROW SHARE

is such a process; it prints the seconds of CPU time that a round trip costs.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness.contenders import Contender
from harness.measure import Bench, Effort, Metric, Turn
from loop_rows import network
from loop_rows.contenders import MAKERS

GROUP = "event loop: network, a process for each server"

_ROWS = {
    row.metrics[0].name: row
    for row in network.ROWS
    if row.metrics[0].name.startswith(("TCP echo", "TLS echo"))
}
_LONGER = 2.5
"""How many times as long as the others these rows run, so that the start does not show."""


def _prepare(name: str) -> Callable[[Contender, Effort], Turn]:
    def prepare(contender: Contender, effort: Effort) -> Turn:
        command = [sys.executable, "-m", "loop_rows.alone"]
        command += [contender.name, name, str(effort.share * _LONGER)]
        folder = Path(__file__).parents[1]

        def turn() -> list[list[float]]:
            done = subprocess.run(
                command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, timeout=60
            )
            return [[float(done.stdout)]]

        return turn

    return prepare


ROWS = [
    Bench(GROUP, (Metric(name),), row.needs, _prepare(name), most_rounds=5)
    for name, row in _ROWS.items()
]


def _main(contender: str, name: str, share: str) -> None:
    turn = _ROWS[name].prepare(MAKERS[contender](), Effort(share=float(share)))
    gc.disable()
    ((seconds,),) = turn()
    print(seconds)


if __name__ == "__main__":
    _main(*sys.argv[1:])
