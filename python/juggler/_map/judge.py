"""What a map achieves beside what was promised, and what to try instead."""

from __future__ import annotations

from time import perf_counter, process_time

from juggler._map import choosing, measuring
from juggler._map.choosing import Choice

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
        self._tried: list[tuple[str, float]] = []
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
        """Whether both models were tried."""
        return len(self._tried) == 2

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
        self._tried.append((choice.model, rate))
        self._began, self._counted = None, self.completed
        choice.achieved = achieved
        if self.compared:
            # Both were tried: the better one stays.
            self.settled = True
            (before, was), _ = self._tried
            if was <= rate:
                choice.why = "it was the faster one"
                return None
            self.reason = (
                f"{choice.model} achieved {achieved:.1f}x, {before} {was * self.seconds:.1f}x"
            )
            return self._other(choice, before, cores, limit)
        self.settled = achieved >= choosing.DISAPPOINTING * promised and not misled
        if choice.model == "processes" and busy >= choosing.DISAPPOINTING:
            # They compute all the time, and disturb each other in nothing that is ours: the machine
            # has other things to do, for whatever would be chosen.
            self.settled = True
        if self.settled:
            return None
        other = "threads" if choice.model == "processes" else "processes"
        known = facts.obstacle is None and facts.pickle is not None
        could = (known or choice.model == "processes") and (
            misled or facts.running > 0.25 or (facts.gil or 0.0) > 0.25
        )
        if not could or choosing.uses_threads(facts):
            self.settled = True
            return None
        self.reason = (
            "calls compute after all"
            if misled
            else f"{choice.model} achieved {achieved:.1f}x of {promised:.1f}x promised"
        )
        return self._other(choice, other, cores, limit)

    def _other(self, choice: Choice, model: str, cores: int, limit: int) -> Choice:
        facts = choice.facts
        assert facts is not None
        width = choosing.processes_width if model == "processes" else choosing.threads_width
        why = "it was the faster one" if self.compared else "to compare"
        return Choice(model, width(facts, cores, limit), why, facts, choice.predicted)

    def overall(self, choice: Choice) -> float | None:
        """The factor achieved from the first result to the last."""
        if self._first is None or self._serial or self.completed - self._first[1] < 8:
            return choice.achieved
        began, counted = self._first
        return (self.completed - counted) / (perf_counter() - began) * self.seconds
