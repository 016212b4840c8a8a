"""The arithmetic of the choice, and what it is told."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from calls import spin

import juggler
from juggler._map import choosing
from juggler._map.choosing import Facts, choose
from juggler._map.judge import Judge
from juggler._map.measuring import Evidence, Measuring
from juggler._map.travel import Traces, cost, writes_globals

CORES, LIMIT = 4, 32
COMPUTES = Facts(calls=5, seconds=0.01, running=1.0, gil=1.0, pickle=2e-5)
RELEASES = dataclasses.replace(COMPUTES, gil=0.05)
WAITS = dataclasses.replace(COMPUTES, running=0.01, gil=0.0)
WAITS_WITH_GIL = dataclasses.replace(COMPUTES, running=0.01, gil=1.0)
SHORT = dataclasses.replace(COMPUTES, seconds=1e-6, pickle=3e-6)
LIGHT = dataclasses.replace(SHORT, pickle=1e-7)
SHORTER = dataclasses.replace(LIGHT, seconds=3e-8)
HEAVY = dataclasses.replace(COMPUTES, pickle=0.1)
STUCK = dataclasses.replace(COMPUTES, pickle=None, obstacle="it has a lock")
TASKED = dataclasses.replace(RELEASES, busy=4.0)
PAIRED = dataclasses.replace(RELEASES, busy=CORES / 1.6)
CROWDED = dataclasses.replace(RELEASES, busy=CORES / 1.4)
UNKNOWN = dataclasses.replace(COMPUTES, gil=None)


@pytest.mark.parametrize(
    ("facts", "model", "why"),
    [
        (COMPUTES, "processes", "hold the GIL"),
        (RELEASES, "threads", "without the GIL"),
        (WAITS, "threads", "calls wait"),
        (WAITS_WITH_GIL, "processes", "hold the GIL"),
        (SHORT, "serial", "so short"),
        (LIGHT, "processes", "hold the GIL"),
        (SHORTER, "serial", "so short"),
        (HEAVY, "serial", "nothing else promises more"),
        (STUCK, "serial", "it has a lock"),
        (TASKED, "serial", "by itself"),
        (PAIRED, "threads", "without the GIL"),
        (CROWDED, "serial", "by itself"),
        (UNKNOWN, "processes", "calls compute"),
    ],
)
def test_what_is_chosen(facts: Facts, model: str, why: str) -> None:
    choice = choose(facts, CORES, LIMIT)
    assert (choice.model, why in str(choice)) == (model, True), str(choice)
    assert f"{choosing.duration(facts.seconds)}" in str(choice)


def test_processes_must_earn_their_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "START", [0.3])
    assert choose(COMPUTES, CORES, LIMIT, left=0.05).model == "serial"
    assert choose(COMPUTES, CORES, LIMIT, left=60.0).model == "processes"
    choice = choose(LIGHT, CORES, LIMIT, left=0.05)
    assert choice.model == "serial" and "to start processes would take longer" in choice.why


def test_a_loop_s_thread_makes_no_calls() -> None:
    assert choose(SHORT, CORES, LIMIT, may_be_serial=False).model == "threads"


def test_widths() -> None:
    assert choose(WAITS, CORES, LIMIT).workers == LIMIT
    assert choose(COMPUTES, CORES, LIMIT).workers == CORES
    assert choose(COMPUTES, CORES, 2).workers == 2
    assert choose(WAITS_WITH_GIL, CORES, LIMIT).workers == choosing.PER_CORE * CORES
    assert choose(RELEASES, CORES, LIMIT).workers == 2 * CORES


def test_one_core_needs_no_processes() -> None:
    assert choose(COMPUTES, 1, LIMIT).model == "serial"
    assert choose(WAITS, 1, LIMIT).model == "threads"


def test_promises_follow_the_formulas() -> None:
    half = dataclasses.replace(COMPUTES, running=0.5, gil=0.25, pickle=0.0)
    assert choosing.threads_promise(half, 4, 32) == pytest.approx(4.0, rel=0.01)
    assert choosing.processes_promise(half, 4, 32) == pytest.approx(8.0, rel=0.01)
    assert choosing.threads_promise(half, 4, 3) == pytest.approx(3.0, rel=0.01)


def test_processes_of_short_calls_promise_what_all_processors_and_one_feeder_can_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "HANDLING", 1e-7)
    monkeypatch.setitem(choosing.DISPATCH, "processes", 0.0)
    short = dataclasses.replace(COMPUTES, seconds=9e-7, pickle=2e-7)
    # 1 µs of calls and handling, and 0.2 µs of pickling, on two processors.
    assert choosing.processes_promise(short, 2, 32) == pytest.approx(1.0 / 0.6)
    # On many, half of the pickling and the handling of all is done by one thread.
    assert choosing.processes_promise(short, 64, 64) == pytest.approx(1.0 / 0.2)
    # What is handed over costs a chunk, not a call.
    monkeypatch.setitem(choosing.DISPATCH, "processes", 1e-4)
    together = choosing.chunk(short)
    assert together > 1000
    share = 1e-4 / together
    assert choosing.processes_promise(short, 2, 32) == pytest.approx(1e-6 / (6e-7 + share / 2))


class Globals:
    count = 0


def _assigns(_: int) -> None:
    global _state
    _state = 1


_state = 0
_seen: list[int] = []
_thing = Globals()


def test_what_cannot_be_done_elsewhere_is_found() -> None:
    number = 0

    def outer(_: int) -> None:
        nonlocal number
        number += 1

    assert "'_state'" in (writes_globals(_assigns) or "")
    assert "'number'" in (writes_globals(outer) or "")
    assert writes_globals(abs) is None


@pytest.mark.parametrize(
    ("function", "item"),
    [
        (lambda n: _seen.append(n), 1),
        (lambda _: setattr(_thing, "count", object()), 1),
        (_seen.append, 1),
        (lambda row: row.update(x=1), {}),
        (lambda row: row.append(1), []),
        (lambda data: data.__setitem__(0, data[0] ^ 1), bytearray(8)),
    ],
)
def test_visible_changes_are_found(function: Any, item: Any) -> None:
    traces = Traces(function)
    traces.add([item])
    assert traces.changed() is None
    function(item)
    assert traces.changed() is not None


def test_what_travels_has_a_cost_and_what_does_not_a_reason() -> None:
    price = cost(len, [b"x" * 1000], [1000])
    assert isinstance(price, float) and price > 0
    dearer = cost(len, [list(range(100_000))], [1])
    assert isinstance(dearer, float) and dearer > price
    refusal = cost(len, [threading.Lock()], [1])
    assert isinstance(refusal, str) and "lock" in refusal


def test_what_goes_together_is_priced_together() -> None:
    items, results = list(range(256)), [str(number) for number in range(256)]
    apart, together = cost(len, items, results), cost(len, items, results, together=256)
    assert isinstance(apart, float) and isinstance(together, float)
    assert together < apart / 4
    evidence = Evidence(len)
    evidence.add(items, star=False)
    evidence.results += results
    long = evidence.weigh(COMPUTES).pickle
    short = evidence.weigh(SHORT).pickle
    assert long is not None and short is not None and short < long / 4
    refusal = cost(len, [*range(9), threading.Lock()], list(range(10)), together=10)
    assert isinstance(refusal, str) and "lock" in refusal


class Counted:
    """Pickles slowly, and counts that."""

    pickled = 0

    def __reduce__(self) -> Any:
        Counted.pickled += 1
        return spin, (0.02,)


def test_no_more_is_pickled_than_it_takes_to_see_that_it_is_dear() -> None:
    price = cost(len, [Counted() for _ in range(256)], list(range(256)), together=256)
    assert isinstance(price, float) and price > 0.005
    assert Counted.pickled == 3


def measured(function: Any, items: list[Any]) -> Facts:
    """The facts of some calls in this thread; of others if the machine was too busy to see them."""
    for _ in range(50):
        measuring = Measuring(function, None)
        measuring.send(items, star=False)
        for item in items:
            began = time.perf_counter_ns()
            measuring.probe.begin()
            result = function(item)
            measuring.probe.end()
            measuring.came([result], time.perf_counter_ns() - began)
        facts = measuring.facts(pickled=True)
        if facts.gil is not None and facts.queued < 0.2:
            break
    return facts


def test_a_sleep_waits_without_the_gil() -> None:
    facts = measured(time.sleep, [0.01] * 4)
    assert facts.running < 0.3 and facts.seconds >= 0.01
    assert facts.gil is not None and facts.gil < 0.3


def test_python_computes_with_the_gil() -> None:
    facts = measured(spin, [0.02] * 4)
    assert facts.running > 0.8
    assert (facts.gil is not None and facts.gil > 0.6) or not _has_gil()
    assert facts.pickle is not None and facts.obstacle is None


def test_a_large_hash_computes_without_the_gil() -> None:
    import hashlib

    facts = measured(lambda data: hashlib.sha256(data).digest(), [bytes(16 << 20)] * 4)
    assert facts.running > 0.8
    assert facts.gil is not None and facts.gil < 0.3


def test_a_sleep_in_c_holds_the_gil() -> None:
    import ctypes

    facts = measured(ctypes.PyDLL(None).usleep, [10_000] * 4)
    assert facts.running < 0.3
    assert (facts.gil is not None and facts.gil > 0.7) or not _has_gil()


def _has_gil() -> bool:
    import sys

    return getattr(sys, "_is_gil_enabled", lambda: True)()


def test_processes_are_chosen_for_python_and_threads_for_waits() -> None:
    if choosing_cores() > 1:
        with juggler.map(spin, [0.02] * 200, progress=False) as results:
            for _ in results:
                if results.choice is not None:
                    break
        choice = juggler.last_choice()
        assert choice is not None and choice.model == "processes", str(choice)
    list(juggler.map(time.sleep, [0.01] * 50))
    choice = juggler.last_choice()
    assert choice is not None and choice.model == "threads", str(choice)
    assert "calls wait" in str(choice)


def choosing_cores() -> int:
    from juggler._map.workers import cores

    return cores()


def test_globals_that_change_keep_it_in_this_process() -> None:
    total = 0

    def add(seconds: float) -> None:
        nonlocal total
        spin(seconds)
        total += 1

    list(juggler.map(add, [0.005] * 40))
    choice = juggler.last_choice()
    assert total == 40
    assert choice is not None and choice.model == "serial"
    assert "it assigns 'total' of the function around it" in str(choice)


def test_explain_prints_the_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    list(juggler.map(abs, range(10), on="threads", explain=True))
    assert capfd.readouterr().err == "juggler.map(abs): threads, 32 at once: it was asked for\n"


class Clock:
    """Time for the judge."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.computed = 0.0
        monkeypatch.setattr("juggler._map.judge.perf_counter", lambda: self.now)
        monkeypatch.setattr("juggler._map.judge.process_time", lambda: self.computed)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def judged(
    judge: Judge,
    clock: Clock,
    choice: Any,
    rate: float,
    busy: float = 0.0,
    computed: float = 0.0,
) -> Any:
    """The verdict after a second at this rate."""
    judge.completed += 1
    assert not judge.waits()
    clock.now += 1.0
    clock.computed += computed
    judge.completed += int(rate)
    judge.spent = int(busy * choice.workers * 1e9)
    assert judge.waits()
    return judge.verdict(choice, CORES, LIMIT)


def test_what_keeps_its_promise_stays(clock: Clock) -> None:
    choice = choose(RELEASES, CORES, LIMIT)  # 4x of 100 a second
    judge = Judge(RELEASES.seconds)
    assert judged(judge, clock, choice, 300) is None
    clock.now += 10
    assert not judge.waits()


def test_what_does_not_is_compared_with_the_other_and_the_better_stays(clock: Clock) -> None:
    choice = choose(RELEASES, CORES, LIMIT)
    judge = Judge(RELEASES.seconds)
    other = judged(judge, clock, choice, 150)
    assert other.model == "processes" and "1.5x of 4.0x promised" in judge.reason
    assert judged(judge, clock, other, 350) is None
    judge = Judge(RELEASES.seconds)
    other = judged(judge, clock, choice, 150)
    back = judged(judge, clock, other, 100)
    assert back.model == "threads"
    clock.now += 10
    judge.completed += 100
    assert not judge.waits()


def test_nothing_else_is_tried_that_could_not_help(clock: Clock) -> None:
    for facts in (WAITS, dataclasses.replace(RELEASES, obstacle="it has a lock"), TASKED):
        choice = choosing.Choice("threads", 8, "", facts, {"threads": 8.0})
        assert judged(Judge(facts.seconds), clock, choice, 50) is None


def test_calls_in_each_others_way_are_made_one_at_a_time(clock: Clock) -> None:
    choice = choose(RELEASES, CORES, LIMIT)  # one after the other: 100 a second
    judge = Judge(RELEASES.seconds)
    alone = judged(judge, clock, choice, 50, computed=3.9)
    assert (alone.model, alone.workers) == ("threads", 1)
    assert judged(judge, clock, alone, 100, computed=0.95) is None
    assert alone.why == "it was the fastest"
    clock.now += 10
    judge.completed += 100
    assert not judge.waits()
    # Not faster alone.
    judge = Judge(RELEASES.seconds)
    alone = judged(judge, clock, choice, 50, computed=3.9)
    back = judged(judge, clock, alone, 40, computed=0.95)
    assert (back.model, back.workers) == ("threads", choice.workers)
    assert judge.reason == "threads achieved 0.4x, threads 0.5x"


@pytest.mark.parametrize(
    "facts", [COMPUTES, UNKNOWN, dataclasses.replace(RELEASES, faults=300_000.0)]
)
def test_calls_that_dispute_what_is_of_one_process_go_to_processes_first(
    clock: Clock, facts: Facts
) -> None:
    choice = choosing.Choice("threads", 8, "", facts, {"threads": 4.0})
    judge = Judge(facts.seconds)
    processes = judged(judge, clock, choice, 0.8 / facts.seconds, computed=0.95)
    assert processes.model == "processes"
    # Better than one after the other: to try that, too, would bring nothing.
    assert judged(judge, clock, processes, 2 / facts.seconds) is None
    judge = Judge(facts.seconds)
    processes = judged(judge, clock, choice, 0.8 / facts.seconds, computed=0.95)
    alone = judged(judge, clock, processes, 0.5 / facts.seconds)
    assert (alone.model, alone.workers) == ("threads", 1)
    assert judged(judge, clock, alone, 1 / facts.seconds) is None
    assert alone.why == "it was the fastest"


def test_processes_that_get_less_done_are_compared_with_threads(clock: Clock) -> None:
    choice = choosing.Choice("processes", 4, "", RELEASES, {"processes": 4.0})
    judge = Judge(RELEASES.seconds)
    threads = judged(judge, clock, choice, 50)
    assert threads.model == "threads" and threads.workers > 1
    assert judged(judge, clock, threads, 150) is None


def test_calls_that_wait_are_never_made_one_at_a_time(clock: Clock) -> None:
    choice = choose(RELEASES, CORES, LIMIT)
    other = judged(Judge(RELEASES.seconds), clock, choice, 50, computed=0.5)
    assert other.model == "processes"


def test_processes_that_compute_all_the_time_stay(clock: Clock) -> None:
    choice = choose(COMPUTES, CORES, LIMIT)
    assert judged(Judge(COMPUTES.seconds), clock, choice, 50, busy=0.9) is None
    judge = Judge(COMPUTES.seconds)
    assert judged(judge, clock, choice, 50, busy=0.3).model == "threads"


def wait_and_compute(_: object) -> int:
    time.sleep(0.02)
    return spin(0.02)


def test_calls_that_wait_first_and_compute_then_are_found_out(clock: Clock) -> None:
    choice = choose(WAITS, CORES, LIMIT)
    judge = Judge(WAITS.seconds)
    assert judged(judge, clock, choice, 50, computed=0.95).model == "processes"
    assert judge.reason == "calls compute after all"
    # As much, but in so many calls that a process for each would not be worth it.
    judge = Judge(WAITS.seconds)
    assert judged(judge, clock, choice, 3000, computed=0.95) is None
    # Not much.
    judge = Judge(WAITS.seconds)
    assert judged(judge, clock, choice, 2000, computed=0.5) is None


def test_what_leaves_traces_never_goes_to_processes_not_even_to_compare() -> None:
    seen = []

    def call(_: object) -> None:
        wait_and_compute(None)
        seen.append(1)

    results = juggler.map(call, range(60))
    assert len(list(results)) == len(seen) == 60
    assert results.choice is not None and results.choice.model == "threads"


def test_a_call_that_goes_on_counts_in_the_limit() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def call(_: object) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.1)
        with lock:
            now -= 1

    assert len(list(juggler.map(call, range(20), limit=3))) == 20
    assert most == 3


@pytest.mark.parametrize("on", ["input", "user"])
def test_short_calls_are_not_judged_by_who_feeds_them_or_takes_their_results(on: str) -> None:
    def numbers() -> Iterator[int]:
        for number in range(200):
            if on == "input":
                time.sleep(0.002)
            yield number

    results = juggler.map(abs, numbers())
    for _ in results:
        if on == "user":
            time.sleep(0.002)
    assert results.choice is not None
    assert (results.choice.model, results.choice.history) == ("serial", [])


def test_where_there_are_no_items_nothing_is_claimed_of_calls() -> None:
    results = juggler.map(abs, iter(()))
    assert list(results) == []
    assert str(results.choice) == "serial, 1 at once: there were no items"
