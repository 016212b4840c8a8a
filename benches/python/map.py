"""`juggler.map(on="auto")` against every fixed model, and what `map` costs beside a bare executor.

Prints ratios of wall time from one interleaved run. Run `make bench-map`, or this file with any
interpreter that has juggler and `benches/python/requirements.txt` installed. How to read what it
prints is in `docs/internals/benchmarks.md`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import juggler
from harness.machine import machine
from juggler import futures

FIXED = ("serial", "threads", "processes")
NAMES = (*FIXED, "auto")


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _consume(results: Any) -> None:
    for _ in results:
        pass


def measure(kind: Any, rounds: int) -> dict[str, Any]:
    """The medians of each model's turns at a kind of work, and what was chosen."""
    samples: dict[str, list[float]] = {name: [] for name in NAMES}
    chosen = []
    for turn in range(rounds + 1):
        for place in range(len(NAMES)):
            name: Any = NAMES[(place + turn) % len(NAMES)]
            if name == "serial" and turn == 0:
                continue
            taken = _timed(lambda: _consume(juggler.map(kind.function, kind.items, on=name)))  # noqa: B023
            if turn:  # the first turn pays for imports and caches
                samples[name].append(taken)
                if name == "auto":
                    chosen.append(str(juggler.last_choice()))
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    best = min(FIXED, key=medians.__getitem__)
    # Rounds are close in time, so their ratios say more than the ratio of medians.
    ratios = [auto / taken for auto, taken in zip(samples["auto"], samples[best], strict=True)]
    return {
        "kind": kind.name,
        "medians": medians,
        "best": best,
        "ratio": statistics.median(ratios),
        "samples": samples,
        "chosen": chosen,
    }


def overhead(rounds: int) -> dict[str, float]:
    """Seconds for an item whose call does nothing."""
    items = range(100_000)

    def bare(pool: Any) -> None:
        _consume(pool.map(abs, items))

    ways: dict[str, Callable[[], Any]] = {
        "builtin map": lambda: _consume(map(abs, items)),
        "juggler.map, serial": lambda: _consume(juggler.map(abs, items, on="serial")),
        "juggler.map, auto": lambda: _consume(juggler.map(abs, items)),
        "juggler.map, threads": lambda: _consume(juggler.map(abs, items, on="threads", limit=4)),
        "juggler.map, threads, chunk=1": lambda: _consume(
            juggler.map(abs, items, on="threads", limit=4, chunk=1)
        ),
    }
    with futures.ThreadPoolExecutor(4) as ours, ThreadPoolExecutor(4) as stock:
        ways["juggler.futures threads"] = lambda: bare(ours)
        ways["stdlib threads"] = lambda: bare(stock)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                samples[name].append(_timed(way) / len(items))
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _line(row: dict[str, Any]) -> str:
    cells = [f"{row['medians'][name]:.2f} s" for name in NAMES]
    return f"| {row['kind']} | {' | '.join(cells)} | {row['best']} | {row['ratio']:.2f} |"


def main() -> int:
    """Run what was asked for; 1 if some row is off by more than 15 %."""
    from map_rows.kinds import kinds

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the items, 2 rounds")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each model (5)")
    parser.add_argument("--match", default="", metavar="SUBSTRING", help="kinds that contain it")
    parser.add_argument("--explain", action="store_true", help="print what was chosen, and why")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every sample")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    rows = []
    print("| | |\n|---|---|")
    for fact in machine(juggler.__version__).items():
        print(f"| {' | '.join(fact)} |")
    print(f"| rounds | {rounds}, interleaved, order rotating; medians over the rounds |\n")
    print(f"| kind of work | {' | '.join(NAMES)} | best fixed | auto / best |")
    print("|---|---:|---:|---:|---:|---|---:|", flush=True)
    for kind in kinds(0.25 if options.quick else 1.0):
        if options.match in kind.name:
            rows.append(measure(kind, rounds))
            print(_line(rows[-1]), flush=True)
    costs = {} if options.match else overhead(rounds)
    if options.explain:
        print("\n| kind of work | what was chosen in each round |\n|---|---|")
        for row in rows:
            print(f"| {row['kind']} | {'<br>'.join(row['chosen'])} |")
    if costs:
        print("\n| a call that does nothing | an item |\n|---|---:|")
    for name, seconds in costs.items():
        print(f"| {name} | {seconds * 1e9:.0f} ns |")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "overhead": costs}, indent=1))
    return 1 if any(row["ratio"] > 1.15 for row in rows) else 0


# Workers that import the program anew must not run it.
if __name__ == "__main__":
    sys.exit(main())
