"""`LockOrderWarning`: locks that are taken in both orders, though the program never hung."""

import re
import subprocess
import sys
from collections.abc import Callable

import pytest

PRELUDE = """\
import sys, threading as stdlib, time
from juggler import threading
threading.detect_deadlocks()
a, b, c = (threading.Lock(name=name) for name in "abc")

def start(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread
"""

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run() -> Run:
    """A function that runs a program after the prelude; what it printed, and its warnings."""

    def run(text: str, *options: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, *options, "-c", PRELUDE + text],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


BOTH_ORDERS = """
def one():
    with a:  # a in one
        with b:  # b in one
            pass
def other():
    with b:  # b in other
        with a:  # a in other
            pass
for _ in range(5):
    one()
    other()
"""


def line_of(text: str, mark: str) -> int:
    lines = (PRELUDE + text).splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.endswith("# " + mark))


def test_is_warned_of_once_with_both_places(run: Run) -> None:
    _, warnings = run(BOTH_ORDERS)
    assert warnings.count("LockOrderWarning") == 1
    assert "Lock 'b' and Lock 'a' are taken in both orders" in warnings or (
        "Lock 'a' and Lock 'b' are taken in both orders" in warnings
    )
    for function in ("one", "other"):
        for name in "ab":
            assert f"<string>:{line_of(BOTH_ORDERS, f'{name} in {function}')}" in warnings
    assert "acquire_all" in warnings
    # The warning's own place is that of the lock which completes the contradiction.
    assert re.match(rf"<string>:{line_of(BOTH_ORDERS, 'a in other')}: ", warnings)


def test_in_different_threads(run: Run) -> None:
    _, warnings = run("""
def take(first, second):
    with first, second:
        pass
start(take, a, b).join()
start(take, b, a).join()
""")
    assert warnings.count("LockOrderWarning") == 1


def test_through_a_third_lock(run: Run) -> None:
    _, warnings = run("""
def take(first, second):
    with first, second:
        pass
take(a, b)
take(b, c)
assert not threading.current_thread().daemon
take(c, a)
""")
    assert warnings.count("LockOrderWarning") == 1
    assert "3 locks are taken in orders that contradict each other" in warnings


def test_each_contradiction_is_its_own(run: Run) -> None:
    _, warnings = run("""
def ab():
    with a, b: pass
def ba():
    with b, a: pass
def ac():
    with a, c: pass
def ca():
    with c, a: pass
for function in (ab, ba, ac, ca, ca, ba):
    function()
""")
    assert warnings.count("LockOrderWarning") == 2


def test_without_a_name_locks_are_told_apart_by_their_places(run: Run) -> None:
    _, warnings = run("""
x, y = threading.RLock(), threading.Lock()
with x:
    with y: pass
with y:
    with x: pass
""")
    assert "RLock" in warnings
    assert warnings.count("LockOrderWarning") == 1


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
@pytest.mark.parametrize("how", ["with", "acquire"])
def test_as_an_error_leaves_the_lock_free(run: Run, kind: str, how: str) -> None:
    take = "with x: pass" if how == "with" else "x.acquire(); x.release()"
    output, warnings = run(
        f"""
x, y = threading.{kind}(name="x"), threading.{kind}(name="y")
with x:
    with y: pass
try:
    with y:
        {take}
except threading.LockOrderWarning as error:
    print("raised")
print([lock.acquire(False) for lock in (x, y)])
free = []
x.release(); y.release()
start(lambda: free.extend([x.acquire(False), y.acquire(False)])).join()
print(free)
""",
        "-W",
        "error",
    )
    assert (output, warnings) == ("raised\n[True, True]\n[True, True]\n", "")


def test_a_condition_counts_as_its_lock(run: Run) -> None:
    _, warnings = run("""
condition = threading.Condition()
with condition:
    with a: pass
with a:
    with condition: pass
""")
    assert warnings.count("LockOrderWarning") == 1


def test_one_order_is_no_contradiction(run: Run) -> None:
    _, warnings = run(
        """
def take(*locks):
    for lock in locks:
        lock.acquire()
    for lock in locks:
        lock.release()
for _ in range(3):
    take(a, b, c)
    take(a, c)
    take(b, c)
    take(a, b)
""",
        "-W",
        "error",
    )
    assert warnings == ""


def test_ignored_it_changes_nothing(run: Run) -> None:
    output, warnings = run(BOTH_ORDERS + "\nprint(a, b)", "-W", "ignore")
    assert warnings == ""
    assert output.count("unlocked") == 2


def test_turned_off_nothing_is_said(run: Run) -> None:
    _, warnings = run("threading.detect_deadlocks(False)" + BOTH_ORDERS)
    assert warnings == ""


def test_turned_on_again_it_begins_anew(run: Run) -> None:
    _, warnings = run("""
with a:
    with b: pass
threading.detect_deadlocks(False)
threading.detect_deadlocks()
with b:
    with a: pass
""")
    assert warnings == ""
