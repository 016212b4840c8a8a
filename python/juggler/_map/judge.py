"""What a map achieves beside what was promised, and what to try instead."""

from __future__ import annotations

from time import perf_counter, process_time

from juggler._map import choosing, measuring
from juggler._map.choosing import Choice, Facts

_SATURATED = 0.9
"""Threads that compute so much, in processors, may be waiting for each other's GIL."""
_COMPUTING = 0.002
"""Seconds that calls must compute each to be worth a process."""


class Judge:
    """Compares what is achieved with what was promised, and has something else tried if need be."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.completed = 0
        self.spent = 0
        self.reason = ""
        self.settled = False
        self._tried: list[tuple[Choice, float]] = []
        self._others: list[Choice] = []
        self._began: float | None = None
        self._serial = False
        self._computed = 0.0
        self._counted = 0
        self._first: tuple[float, int] | None = None

    def pause(self) -> None:
        """Nothing is to be learned from this time."""
        self._began, self._counted = None, self.completed

    def waits(self, serial: bool = False) -> bool:
        """Whether it is time for a verdict; asked when nothing is ready.

        Args:
            serial: whether calls are made where it is asked: then only their own time counts, and
                not that of whoever takes the results.
        """
        now, self._serial = perf_counter(), serial
        if self._began is None:
            if self.completed > self._counted:  # what starts slowly is not judged before
                self._began, self._counted = now, self.completed
                self._computed = process_time()
                self.spent = 0
                self._first = self._first or (now, self.completed)
            return False
        return not self.settled and self._elapsed() > 0.25 and self.completed > self._counted + 8

    def _elapsed(self) -> float:
        assert self._began is not None
        return self.spent / 1e9 if self._serial else perf_counter() - self._began

    @property
    def compared(self) -> bool:
        """Whether more than one choice was tried."""
        return len(self._tried) > 1

    def _rate(self) -> float:
        return (self.completed - self._counted) / self._elapsed()

    def verdict(self, choice: Choice, cores: int, limit: int) -> Choice | None:
        """What to run on instead, if anything."""
        rate = self._rate()
        facts = choice.facts
        assert facts is not None
        elapsed = self._elapsed()
        busy = self.spent / 1e9 / elapsed / choice.workers
        achieved = rate * self.seconds
        computed = process_time() - self._computed
        # What was seen waiting may compute later on.
        misled = (
            choice.model == "threads"
            and facts.running < measuring.WAITS
            and computed > _SATURATED * elapsed
            and computed / (self.completed - self._counted) > _COMPUTING
        )
        promised = choice.predicted.get(choice.model, 1.0)
        self._tried.append((choice, rate))
        self._began, self._counted = None, self.completed
        choice.achieved = achieved
        if self.compared:
            self.reason = f"{choice.model} achieved {achieved:.1f}x"
        else:
            self.settled = achieved >= choosing.DISAPPOINTING * promised and not misled
            if choice.model == "processes" and busy >= choosing.DISAPPOINTING:
                # They compute all the time, and disturb each other in nothing that is ours: the
                # machine has other things to do, for whatever would be chosen.
                self.settled = True
            if self.settled:
                return None
            self.reason = (
                "calls compute after all"
                if misled
                else f"{choice.model} achieved {achieved:.1f}x of {promised:.1f}x promised"
            )
            saturated = (
                computed > _SATURATED * elapsed
                if choice.model == "threads"
                else facts.running > _SATURATED
            )
            # Less than one after the other: they are in each other's way.
            disputed = saturated and achieved < 1
            self._others = _others(choice, facts, cores, limit, misled, disputed)
        if achieved >= 1:
            self._others = [other for other in self._others if other.workers > 1]
        return self._others.pop(0) if self._others else self._best(choice)

    def _best(self, choice: Choice) -> Choice | None:
        """What was the fastest, unless it is at work."""
        self.settled = True
        best, rate = max(reversed(self._tried), key=lambda tried: tried[1])
        why = "it was the fastest"
        if best is not choice:
            self.reason += f", {best.model} {rate * self.seconds:.1f}x"
            return Choice(best.model, best.workers, why, best.facts, best.predicted)
        if self.compared:
            choice.why = why
        return None

    def overall(self, choice: Choice) -> float | None:
        """The factor achieved from the first result to the last."""
        if self._first is None or self._serial or self.completed - self._first[1] < 8:
            return choice.achieved
        began, counted = self._first
        return (self.completed - counted) / (perf_counter() - began) * self.seconds


def _others(
    choice: Choice, facts: Facts, cores: int, limit: int, misled: bool, disputed: bool
) -> list[Choice]:
    """What could be better than a choice that disappoints, in the order in which to try it.

    `misled` says that calls compute which were seen waiting, `disputed` that they are in each
    other's way.
    """
    others = []
    known = facts.obstacle is None and facts.pickle is not None
    computes = misled or facts.running > 0.25 or (facts.gil or 0.0) > 0.25
    why, promises = "to compare", choice.predicted
    if (known or choice.model == "processes") and computes and not choosing.uses_threads(facts):
        if choice.model == "processes":
            model, width = "threads", choosing.threads_width(facts, cores, limit)
        else:
            model, width = "processes", choosing.processes_width(facts, cores, limit)
        others.append(Choice(model, width, why, facts, promises))
    if disputed and choice.workers > 1:
        in_process = choosing.holding(facts) >= 0.5 or choosing.is_bound_by_faults(facts) or misled
        if choice.model == "threads" and not in_process:
            # Processes would dispute the same processors and caches.
            others.clear()
        others.append(Choice("threads", 1, why, facts, promises))
    return others
