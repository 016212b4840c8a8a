"""From facts to a choice: arithmetic only, so that every rule can be tested with numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

ENOUGH = 0.8
"""Threads are taken if they promise this share of what processes do: they share memory, start at
once, and stop at nothing."""
WORTH = 1.15
"""What more than one worker must promise, to be worth it."""
WORTH_BESIDE = 1.5
"""The same for calls that compute in threads of their own, which dispute the processors with those
of other calls: products of matrices that kept 1.7 of two processors busy promised 1.2, and took
1.8 times as long in threads as one after the other."""
DISAPPOINTING = 0.6
"""Below this share of what was promised, another model is tried."""
START = [0.3]
"""Seconds that a pool of processes takes to start; each that was started tells how long it took."""
DISPATCH = {"threads": 8e-6, "processes": 30e-6}
"""Seconds that handing over a part costs, there and back; measured in `benches/python/map.py`."""
HANDLING = 0.15e-6
"""Seconds that taking an item of a chunk and handing out its result cost; this process computed
for 0.12 to 0.18 µs for each of 1,000,000 items that went to processes."""
FAULTS = 200_000
"""From so many page faults in a second on, they are what a function does most of the time."""
CHUNK = 0.004
"""How long a chunk of short calls should take, in seconds."""
PER_CORE = 4
"""How many processes a core gets at most, where calls wait."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen of the first calls.

    Attributes:
        calls: how many were seen to their end.
        seconds: how long a call takes, by itself.
        running: the share of that in which it computes; waits for a processor are left out.
        gil: the share in which it holds the GIL; None if that can't be told.
        busy: how many processors a call keeps busy, with threads of its own.
        faults: page faults in a second.
        queued: how long a thread that wants to compute waits for a processor, as a share: how busy
            the machine is with other things.
        pickle: seconds that arguments and result of a call take to pickle and to unpickle, in a
            chunk as it would travel; None if they were not asked for, or can't.
        obstacle: why it can't go to other processes, if that is so.
        measuring: seconds that were spent on all this.
    """

    calls: int
    seconds: float
    running: float
    gil: float | None
    busy: float = 0.0
    faults: float = 0.0
    queued: float = 0.0
    pickle: float | None = None
    obstacle: str | None = None
    measuring: float = 0.0


@dataclass(slots=True)
class Choice:
    """What a map runs on, and why.

    Attributes:
        model: ``"threads"``, ``"processes"``, ``"loop"`` or ``"serial"``; of an executor that was
            passed, its class.
        workers: how many calls are made at once.
        why: the reason, without numbers.
        facts: what was measured; None if nothing had to be.
        predicted: by which factor it is to be faster than one call after the other, for each model.
        achieved: by which factor it was, as far as that was measured.
        history: what was chosen before, and why no longer.
    """

    model: str
    workers: int
    why: str
    facts: Facts | None = None
    predicted: dict[str, float] = field(default_factory=dict)
    achieved: float | None = None
    history: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The reason in a sentence, with the numbers."""
        text = f"{self.model}, {self.workers} at once: {self.why}"
        if self.facts is not None:
            text += f" ({describe(self.facts)}"
            for model, factor in self.predicted.items():
                text += f"; {model} promise {factor:.1f}x"
            text += ")"
        if self.achieved is not None:
            text += f"; achieved {self.achieved:.1f}x"
        return "; then ".join([*self.history, text])


def describe(facts: Facts) -> str:
    """The facts in words."""
    text = f"a call takes {duration(facts.seconds)}, computes {facts.running:.0%} of it"
    if facts.gil is not None:
        text += f", holds the GIL {facts.gil:.0%}"
    if uses_threads(facts):
        text += f", keeps {facts.busy:.1f} processors busy"
    if facts.pickle is not None:
        text += f", takes {duration(facts.pickle)} to pickle"
    return text


def duration(seconds: float) -> str:
    """A span of time for people."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def uses_threads(facts: Facts) -> bool:
    """Whether calls compute in threads of their own."""
    return facts.busy > 1.5 * facts.running and facts.busy > 0.5


def holding(facts: Facts) -> float:
    """The share in which it holds the GIL; if that can't be told, in which it may."""
    return facts.running if facts.gil is None else facts.gil


def is_bound_by_faults(facts: Facts) -> bool:
    """Whether calls are bound by page faults."""
    return facts.faults > FAULTS


def most(facts: Facts, cores: int, limit: int) -> float:
    """The factor that the processors allow: all of them compute, or all calls are under way."""
    busy = facts.busy if uses_threads(facts) else facts.running
    return max(1.0, min(float(limit), cores / max(busy, 1e-9)))


def threads_promise(facts: Facts, cores: int, limit: int) -> float:
    """By which factor threads are faster than one call after the other."""
    ideal = min(most(facts, cores, limit), 1 / max(holding(facts), 1e-9))
    each = DISPATCH["threads"] / chunk(facts)
    return max(0.0, ideal * facts.seconds / (facts.seconds + each))


def processes_promise(facts: Facts, cores: int, limit: int) -> float:
    """By which factor processes are faster than one call after the other."""
    workers = min(most(facts, cores, limit), processes_width(facts, cores, limit))
    # Each side does half of this; here one thread does it for all of them.
    travel = (facts.pickle or 0.0) + DISPATCH["processes"] / chunk(facts)
    there, here = facts.seconds + travel / 2, HANDLING + travel / 2
    computed = facts.running * facts.seconds + travel + HANDLING
    return serially(facts) / max(there / workers, here, computed / cores)


def serially(facts: Facts) -> float:
    """Seconds that an item takes where one call is made after the other."""
    return facts.seconds + HANDLING


def processes_width(facts: Facts, cores: int, limit: int) -> int:
    """How many processes are of use."""
    return min(limit, PER_CORE * cores, max(cores, _up(most(facts, cores, limit))))


def threads_width(facts: Facts, cores: int, limit: int) -> int:
    """How many threads are of use."""
    return min(limit, 2 * _up(most(facts, cores, limit)))


def chunk(facts: Facts) -> int:
    """How many calls go together."""
    return max(1, min(16_384, int(CHUNK / 4 / max(facts.seconds, 1e-9))))


def needs_pickling(facts: Facts, cores: int, limit: int) -> bool:
    """Whether processes could be better, so that it is worth to measure what they cost."""
    return threads_promise(facts, cores, limit) < ENOUGH * most(facts, cores, limit)


def choose(
    facts: Facts, cores: int, limit: int, left: float | None = None, may_be_serial: bool = True
) -> Choice:
    """The choice for these facts.

    Args:
        facts: what was measured.
        cores: how many processors there are.
        limit: how many calls may be under way at once.
        left: how many seconds of calls are left, one after the other, if that is known.
        may_be_serial: whether calls may be made in the thread that iterates.
    """
    promises = {"threads": threads_promise(facts, cores, limit)}
    wide = threads_width(facts, cores, limit)
    best, width, why = "threads", wide, _why_threads(facts)
    if facts.obstacle is None and needs_pickling(facts, cores, limit):
        promises["processes"] = processes_promise(facts, cores, limit)
        total = {model: 1 / max(factor, 1e-9) for model, factor in promises.items()}
        if left is not None:
            total["processes"] += START[0] / max(left, 1e-9)
            # One after the other is there, too.
            total["threads"] = min(total["threads"], 1.0)
        if total["processes"] < ENOUGH * min(total["threads"], 1.0):
            best, width = "processes", processes_width(facts, cores, limit)
            why = "calls hold the GIL" if facts.gil is not None else "calls compute"
        elif promises["processes"] > promises["threads"] and promises["processes"] > WORTH:
            why += "; to start processes would take longer than they save"
    worth = WORTH_BESIDE if uses_threads(facts) else WORTH
    if best == "threads" and promises["threads"] < worth:
        why = _why_serial(facts, promises)
        if may_be_serial:
            best, width = "serial", 1
        else:
            width = 1
    return Choice(best, width, why, facts, promises)


def _why_threads(facts: Facts) -> str:
    if facts.running < 0.5:
        return "calls wait" if (facts.gil or 0.0) < 0.5 else "calls wait and hold the GIL"
    return "calls compute without the GIL" if (facts.gil or 0.0) < 0.7 else "calls hold the GIL"


def _why_serial(facts: Facts, promises: dict[str, float]) -> str:
    if facts.obstacle is not None:
        return f"calls hold the GIL, and processes are out of the question: {facts.obstacle}"
    if ENOUGH * promises.get("processes", 0.0) > 1:
        return "calls hold the GIL, and to start processes would take longer than they save"
    if facts.seconds < 10 * DISPATCH["threads"]:
        return "calls are so short that handing them over costs as much"
    if uses_threads(facts):
        return "a call uses the processors by itself"
    return "nothing else promises more"


def _up(number: float) -> int:
    return int(number) + (number > int(number) + 0.05)
