"""Deadlocks that must raise `DeadlockError`: each in an interpreter of its own."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

PRELUDE = """\
import os, sys, time
from juggler import queue, threading

def until(condition):
    while not condition():
        time.sleep(0.0005)

def start(function, *args, name=None):
    thread = threading.Thread(target=function, args=args, name=name)
    thread.start()
    return thread

def expect(function, *args):
    "Calls `function`; says whether that was a deadlock."
    try:
        function(*args)
    except threading.DeadlockError as error:
        errors.append(str(error))
        say("DEADLOCK")
    else:
        say("fine")

def say(line):
    "Prints a line in one piece, whoever else does."
    sys.stdout.write(line + "\\n")

errors = []
threading.detect_deadlocks()
"""

Program = Callable[..., str]


@pytest.fixture
def run() -> Program:
    """A function that runs the text of a program after the prelude and returns what it printed."""

    def run(text: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, *options, "-c", PRELUDE + text],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


# Warnings of the locks' order are another test's matter.
QUIET = ("-W", "ignore:::__main__")


def line_of(text: str, mark: str) -> int:
    """The line of the program that has the mark in a comment."""
    lines = (PRELUDE + text).splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith("# " + mark))


AB_BA = """
a, b = threading.{kind}(name="a"), threading.{kind}(name="b")
both_hold = threading.Barrier(2)

def transfer(first, second):
    with first:  # took
        both_hold.wait()
        with second:  # waits
            pass

threads = [
    start(expect, transfer, a, b, name="Alice"),
    start(expect, transfer, b, a, name="Bob"),
]
for thread in threads:
    thread.join()
print(errors[0])
assert a.acquire(timeout=5) and b.acquire(timeout=5)  # both are free again
"""


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_two_locks_in_both_orders(run: Program, kind: str) -> None:
    text = AB_BA.format(kind=kind)
    output = run(text, *QUIET)
    # Exactly one of the two is told; the other goes on.
    assert sorted(output.splitlines()[:2]) == ["DEADLOCK", "fine"]
    for word in ("deadlock: 2 threads wait for each other", "Alice", "Bob", "'a'", "'b'"):
        assert word in output
    # The cycle: who waits where, and where the holder took it.
    assert len(re.findall(rf"waits for .* at <string>:{line_of(text, 'waits')}\b", output)) == 2
    took = line_of(text, "took")
    assert len(re.findall(rf"which (Alice|Bob) took at <string>:{took}\b", output)) == 2
    assert "acquire_all" in output
    # The stack of each.
    for name in ("Alice", "Bob"):
        stack = output[output.index(f"{name} waits (most recent call last)") :].splitlines()[1:]
        waits = next(at for at, line in enumerate(stack) if line.endswith(" in transfer"))
        assert f"<string>:{line_of(text, 'waits')} in" in stack[waits]
        assert stack[waits - 1].endswith(" in expect")
        assert "Thread.run" in stack[waits - 2]


def test_a_cycle_of_many(run: Program) -> None:
    output = run(
        """
locks = [threading.Lock(name=f"fork {n}") for n in range(5)]
all_hold = threading.Barrier(5)

def dine(seat):
    with locks[seat]:
        all_hold.wait()
        with locks[(seat + 1) % 5]:
            pass

threads = [start(expect, dine, seat) for seat in range(5)]
for thread in threads:
    thread.join()
print(errors[0])
""",
        *QUIET,
    )
    assert sorted(output.splitlines()[:5]) == ["DEADLOCK"] + ["fine"] * 4
    assert "5 threads wait for each other" in output


def test_a_lock_that_its_own_thread_holds(run: Program) -> None:
    output = run(
        """
lock = threading.Lock(name="mine")
def twice():
    with lock:
        with lock:
            pass
expect(twice)
print(errors[0])
assert not lock.locked()
"""
    )
    assert output.startswith("DEADLOCK\n")
    assert "a thread waits for a lock that it holds itself" in output
    assert "juggler.threading.RLock" in output


def test_a_lock_that_its_own_thread_acquired(run: Program) -> None:
    # Another thread might release this one; but there is none.
    output = run(
        """
lock = threading.Lock()
lock.acquire()
expect(lock.acquire)
lock.release()
print(lock.acquire(False))
"""
    )
    assert output == "DEADLOCK\nTrue\n"


@pytest.mark.parametrize("lock", ["Lock", "RLock"])
def test_a_condition_whose_only_notifier_waits_for_the_waiter(run: Program, lock: str) -> None:
    output = run(
        f"""
other = threading.{lock}(name="other")
condition = threading.Condition()

def wait():
    with other, condition:
        condition.wait()

def notify():
    with other:
        with condition:
            condition.notify()

waiter = start(expect, wait, name="waiter")
until(lambda: condition.statistics().waiting)
expect(notify)
# Whoever came to wait last was told. If that was this thread, the other still waits.
with condition:
    condition.notify()
waiter.join()
print(errors[0])
assert other.acquire(timeout=5) and condition.acquire(timeout=5)
""",
        *QUIET,
    )
    assert sorted(output.splitlines()[:2]) == ["DEADLOCK", "fine"]
    assert "notification of" in output


def test_a_condition_that_nobody_is_left_to_notify(run: Program) -> None:
    output = run(
        """
condition = threading.Condition()
def wait():
    with condition:
        condition.wait()
expect(wait)
print(errors[0])
"""
    )
    assert output.startswith("DEADLOCK\n")
    assert "which no thread is left to end" in output


def test_which_threads_there_are_is_not_asked_while_a_known_one_runs(run: Program) -> None:
    # Asking takes a hundred times as long as the wait: it would slow down whoever waits often.
    output = run(
        """
from juggler import _tracing
asked = 0
def live(ask=_tracing.live):
    global asked
    asked += 1
    return ask()

condition = threading.Condition()
turn, here = 0, set()
def play(me):
    global turn
    with condition:
        here.add(me)
        condition.notify_all()
        condition.wait_for(lambda: turn > 0 and turn % 3 == me)
        for _ in range(300):
            turn += 1
            condition.notify_all()
            condition.wait_for(lambda: turn % 3 == me or turn >= 900)

threads = [start(play, me) for me in range(3)]
with condition:
    condition.wait_for(lambda: len(here) == 3)
    _tracing.live = live
    turn = 3
    condition.notify_all()
for thread in threads:
    thread.join()
say(f"{turn >= 900} {asked}")
until(lambda: len(os.listdir("/proc/self/task")) == 1)
with condition:
    expect(condition.wait)
say(f"{asked > 0}")
"""
    )
    assert output == "True 0\nDEADLOCK\nTrue\n"


def test_a_join_of_a_thread_that_needs_what_the_joiner_holds(run: Program) -> None:
    for kind in ("Lock", "RLock"):
        text = f"""
lock = threading.{kind}(name="guard")
def work():
    with lock:
        say("worked")

def hold_and_join():
    with lock:  # took
        thread = start(work, name="worker")
        threads.append(thread)
        until(lambda: lock.statistics().waiting)
        thread.join()  # joins

threads = []
expect(hold_and_join)
threads[0].join()
print(errors[0])
"""
        output = run(text)
        assert sorted(output.splitlines()[:2]) == ["DEADLOCK", "worked"]
        assert f"the end of worker at <string>:{line_of(text, 'joins')}" in output
        assert f"which MainThread took at <string>:{line_of(text, 'took')}" in output
        assert "release the lock before waiting for a thread" in output


def test_threads_that_join_each_other(run: Program) -> None:
    output = run(
        """
threads = []
all_started = threading.Event()
def join(other):
    all_started.wait()
    threads[other].join()

threads += [threading.Thread(target=expect, args=(join, other)) for other in (1, 2, 0)]
for thread in threads:
    thread.start()
all_started.set()
for thread in threads:
    thread.join()
"""
    )
    assert sorted(output.splitlines()) == ["DEADLOCK", "fine", "fine"]


def test_a_thread_that_joins_the_main_thread_which_joins_it(run: Program) -> None:
    output = run(
        """
def join():
    expect(threading.main_thread().join)
thread = start(join)
expect(thread.join)
"""
    )
    assert sorted(output.splitlines()) == ["DEADLOCK", "fine"]


def test_a_timer_whose_function_wants_what_its_joiner_holds(run: Program) -> None:
    output = run(
        """
lock = threading.Lock()
def take():
    with lock:
        pass
def hold_and_join():
    with lock:
        timer = threading.Timer(0.01, expect, (take,))
        timer.start()
        threads.append(timer)
        timer.join()
threads = []
expect(hold_and_join)
threads[0].join()
""",
        *QUIET,
    )
    assert sorted(output.splitlines()) == ["DEADLOCK", "fine"]


def test_a_reentrant_lock_whose_holder_has_ended(run: Program) -> None:
    output = run(
        """
lock = threading.RLock(name="orphan")
start(lock.acquire).join()
expect(lock.acquire)
print(errors[0])
"""
    )
    assert output.startswith("DEADLOCK\n")
    assert "never released: it has ended" in output


def test_a_thread_that_waits_for_two_that_wait_for_each_other(run: Program) -> None:
    output = run(
        """
a, b = threading.Lock(), threading.Lock()
both_hold = threading.Barrier(2)
def transfer(first, second):
    with first:
        both_hold.wait()
        with second:
            pass
threads = [start(expect, transfer, *pair) for pair in ((a, b), (b, a))]
expect(threads[0].join)
threads[1].join()
""",
        *QUIET,
    )
    # One of the two is told, or this thread before them, which may then try again.
    assert output.count("DEADLOCK") in (1, 2)


def test_the_error_leaves_every_lock_as_it_was(run: Program) -> None:
    output = run(
        """
a, b = threading.RLock(), threading.RLock()
both_hold = threading.Barrier(2)
depths = []

def transfer(first, second):
    with first, first:
        both_hold.wait()
        try:
            with second:
                pass
        except threading.DeadlockError:
            depths.append(first.statistics().depth)
            depths.append(second.statistics().owner != threading.get_ident())
    depths.append(first.statistics().owner)

threads = [start(transfer, *pair) for pair in ((a, b), (b, a))]
for thread in threads:
    thread.join()
print(depths[:2], a, b)
""",
        *QUIET,
    )
    assert output.startswith("[2, True] <unlocked")
    assert output.count("<unlocked") == 2


def test_a_deadlock_again_and_again(run: Program) -> None:
    output = run(
        """
a, b = threading.Lock(), threading.Lock()
def transfer(first, second, barrier):
    with first:
        barrier.wait()
        with second:
            pass
for _ in range(30):
    barrier = threading.Barrier(2)
    threads = [start(expect, transfer, *pair, barrier) for pair in ((a, b), (b, a))]
    for thread in threads:
        thread.join()
""",
        *QUIET,
    )
    assert output.count("DEADLOCK") == 30
    assert output.count("fine") == 30


def test_turned_off_nothing_is_raised(run: Program) -> None:
    output = run(
        """
threading.detect_deadlocks(False)
lock = threading.Lock()
def twice():
    with lock:
        with lock:
            print("never")
start(twice)
until(lambda: lock.statistics().waiting)
print("hangs as it does everywhere", flush=True)
os._exit(0)
"""
    )
    assert output == "hangs as it does everywhere\n"


def test_turned_off_join_is_the_standard_librarys_again(run: Program) -> None:
    output = run(
        """
watched = threading.Thread.join
threading.detect_deadlocks(False)
plain = threading.Thread.join
threading.detect_deadlocks()
print(watched is plain, threading.Thread.join is watched, watched.__name__, watched.__qualname__)
"""
    )
    assert output == "False True join Thread.join\n"


def test_a_lock_of_a_condition_with_a_deadlock_of_its_own(run: Program) -> None:
    # `with condition` takes its lock as the lock itself does.
    output = run(
        """
a, b = threading.Condition(threading.Lock()), threading.Condition()
both_hold = threading.Barrier(2)
def transfer(first, second):
    with first:
        both_hold.wait()
        with second:
            pass
threads = [start(expect, transfer, *pair) for pair in ((a, b), (b, a))]
for thread in threads:
    thread.join()
""",
        *QUIET,
    )
    assert sorted(output.splitlines()) == ["DEADLOCK", "fine"]
