"""Interleaved rounds: in every round each contender has one turn, and the order rotates.

A machine drifts: its clock frequency, its caches, its neighbours. Runs made one after the other
put that drift into the ratio; contenders that take turns every few milliseconds all meet the same
machine. The value of a row is the median over the rounds, which one disturbed turn does not move.
"""

from __future__ import annotations

import faulthandler
import gc
import statistics
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from harness.contenders import Contender

# A turn takes a fraction of a second; a contender that needs this long hangs.
_HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Effort:
    """How hard to measure.

    Attributes:
        rounds: Turns that each contender has in a row.
        seconds: Aim for the length of a turn of an uncontended row.
        share: Of the operations of a row with a fixed workload.
    """

    rounds: int = 9
    seconds: float = 0.02
    share: float = 1.0

    def count(self, full: int) -> int:
        """The fixed workload `full`, scaled; always a multiple of four threads."""
        return max(4, int(full * self.share) // 4 * 4)


@dataclass(frozen=True)
class Metric:
    """One line of a table.

    Attributes:
        name: The line's label.
        unit: `s` for seconds, `B` for bytes.
        quantile: Which quantile of the samples is the line's value.
        control: Shows what another line is to be read against; nobody is ahead in it.
    """

    name: str
    unit: str = "s"
    quantile: float = 0.5
    control: bool = False


Turn = Callable[[], Sequence[Sequence[float]]]
"""One contender's turn in a round: for each metric, the samples that the turn gave."""


@dataclass(frozen=True)
class Bench:
    """One measurement, of one metric or of several that the same run gives.

    Attributes:
        group: The table that it belongs to.
        metrics: Its lines.
        needs: The classes that a contender must have to take part.
        prepare: Makes a contender's turn, ready to be called once a round.
        entrants: Contenders that replace the usual ones; the first is the baseline.
        most_rounds: A cap for what is slow and steady.
    """

    group: str
    metrics: tuple[Metric, ...]
    needs: tuple[str, ...]
    prepare: Callable[[Contender, Effort], Turn]
    entrants: tuple[Contender, ...] = ()
    most_rounds: int | None = None


def bench(
    group: str,
    name: str,
    needs: Iterable[str],
    prepare: Callable[[Contender, Effort], Callable[[], float]],
) -> Bench:
    """A bench of one metric, whose turn gives one sample: seconds per operation."""

    def wrapped(contender: Contender, effort: Effort) -> Turn:
        sample = prepare(contender, effort)
        return lambda: [[sample()]]

    return Bench(group, (Metric(name),), tuple(needs), wrapped)


@dataclass
class Line:
    """What a metric gave: samples by contender, and the errors of those that failed."""

    group: str
    metric: Metric
    entrants: tuple[Contender, ...]
    rounds: int
    samples: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def baseline(self) -> str:
        """The contender that every ratio of the line refers to."""
        return self.entrants[0].name

    def value(self, name: str) -> float | None:
        """A contender's value, or None where it did not take part."""
        samples = self.samples.get(name)
        return quantile(samples, self.metric.quantile) if samples else None

    def spread(self, name: str) -> float:
        """Half the interquartile range of a contender's samples, over their median."""
        samples = self.samples[name]
        middle = statistics.median(samples)
        width = quantile(samples, 0.75) - quantile(samples, 0.25)
        return width / 2 / middle if middle else 0.0

    def ratio(self, name: str) -> float | None:
        """Baseline over contender: above one, the contender is ahead."""
        value, baseline = self.value(name), self.value(self.baseline)
        return baseline / value if value and baseline else None

    def ahead_of_juggler(self) -> list[str]:
        """The rivals that juggler is not ahead of; none where it did not take part."""
        ours = self.value("juggler")
        if ours is None or self.metric.control:
            return []
        rivals = [
            contender.name
            for contender in self.entrants
            if contender.name != "juggler" and not contender.informative
        ]
        values = {name: self.value(name) for name in rivals}
        return [name for name, value in values.items() if value is not None and value <= ours]


def quantile(samples: Sequence[float], q: float) -> float:
    """A quantile by linear interpolation between the two nearest samples."""
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def order(names: Sequence[str], turn: int) -> list[str]:
    """Who follows whom in a round: everybody goes first once, then again in reverse."""
    lap, start = divmod(turn, len(names))
    rotated = [*names[start:], *names[:start]]
    return rotated[::-1] if lap % 2 else rotated


def run(bench: Bench, usual: Sequence[Contender], effort: Effort) -> list[Line]:
    """Measures one bench, all of its contenders in one interleaved run."""
    taking_part = bench.entrants or tuple(usual)
    rounds = min(effort.rounds, bench.most_rounds or effort.rounds)
    lines = [Line(bench.group, metric, taking_part, rounds) for metric in bench.metrics]
    turns: dict[str, Turn] = {}

    def attempt(name: str, step: Callable[[], None]) -> None:
        # A contender that fails loses its line with its error shown; the others go on.
        faulthandler.dump_traceback_later(_HANG_SECONDS, exit=True)
        gc.collect()
        gc.disable()
        try:
            step()
        except Exception:
            turns.pop(name, None)
            for line in lines:
                line.samples.pop(name, None)
                line.errors[name] = traceback.format_exc()
        finally:
            gc.enable()
            faulthandler.cancel_dump_traceback_later()

    for contender in taking_part:
        if contender.has(bench.needs):
            attempt(contender.name, partial(_warm, bench, contender, effort, turns))
    for turn in range(rounds):
        for name in order(list(turns), turn) if turns else ():
            attempt(name, partial(_take, turns[name], name, lines))
    return lines


def _warm(bench: Bench, contender: Contender, effort: Effort, turns: dict[str, Turn]) -> None:
    # The first turn pays for imports, specialisation and caches: it is thrown away.
    turn = bench.prepare(contender, effort)
    turn()
    turns[contender.name] = turn


def _take(turn: Turn, name: str, lines: Sequence[Line]) -> None:
    for line, samples in zip(lines, turn(), strict=True):
        line.samples.setdefault(name, []).extend(samples)


def select(benches: Iterable[Bench], match: str) -> list[Bench]:
    """The benches whose `group: name` contains `match`, whatever the case."""
    wanted = match.casefold()
    return [
        bench
        for bench in benches
        if any(wanted in f"{bench.group}: {m.name}".casefold() for m in bench.metrics)
    ]


def among(contenders: Iterable[Contender], only: str) -> tuple[Contender, ...]:
    """The contenders whose name contains `only`."""
    return tuple(contender for contender in contenders if only in contender.name)


def narrowed(bench: Bench, only: str) -> Bench | None:
    """The bench without the entrants of its own whose name lacks `only`; None if none is left."""
    entrants = among(bench.entrants, only)
    return None if bench.entrants and not entrants else replace(bench, entrants=entrants)


def as_json(line: Line) -> Mapping[str, object]:
    """A line for machines: every sample, and what the tables make of them."""
    return {
        "group": line.group,
        "name": line.metric.name,
        "unit": line.metric.unit,
        "quantile": line.metric.quantile,
        "rounds": line.rounds,
        "baseline": line.baseline,
        "not_ahead_of": line.ahead_of_juggler(),
        "contenders": {
            contender.name: _contender_json(line, contender.name) for contender in line.entrants
        },
    }


def _contender_json(line: Line, name: str) -> Mapping[str, object]:
    if name in line.errors:
        return {"status": "error", "error": line.errors[name]}
    if name not in line.samples:
        return {"status": "absent"}
    samples = line.samples[name]
    return {
        "status": "measured",
        "value": line.value(name),
        "ratio": line.ratio(name),
        "min": min(samples),
        "q1": quantile(samples, 0.25),
        "median": quantile(samples, 0.5),
        "q3": quantile(samples, 0.75),
        "max": max(samples),
        "samples": samples,
    }
