"""Every call of a table behaves as on the standard library: same value, or the same exception.

Where juggler answers differently on purpose, the table says with what.
"""

import decimal
import fractions
import math
import queue as stdlib_queue
import re
import sys
import threading as stdlib_threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from juggler import queue as our_queue
from juggler import threading as our_threading

_NAMES = [
    "Lock",
    "RLock",
    "Condition",
    "Semaphore",
    "BoundedSemaphore",
    "Event",
    "Barrier",
    "Timer",
    "Thread",
    "local",
    "Queue",
    "LifoQueue",
    "PriorityQueue",
    "SimpleQueue",
]


def _toolbox(threading: Any, queue: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{name: getattr(queue if "Queue" in name else threading, name) for name in _NAMES}
    )


STDLIB = _toolbox(stdlib_threading, stdlib_queue)
OURS = _toolbox(our_threading, our_queue)

Call = Callable[[SimpleNamespace], object]


class NoTruth:
    def __bool__(self) -> bool:
        raise ZeroDivisionError("no truth here")


class NoSeconds:
    def __float__(self) -> float:
        raise LookupError("no seconds here")


class Half:
    def __float__(self) -> float:
        return 0.001


def held(lock: Any) -> Any:
    lock.acquire()
    return lock


def empty(semaphore: Any) -> Any:
    semaphore.acquire()
    return semaphore


def filled(queue: Any) -> Any:
    queue.put(1)
    return queue


def waiting_with(condition: Any, *args: object, **kwargs: object) -> object:
    with condition:
        return condition.wait(*args, **kwargs)


def waiting_for(condition: Any, *args: Any, **kwargs: Any) -> object:
    with condition:
        return condition.wait_for(*args, **kwargs)


def notifying(condition: Any, *args: Any, **kwargs: Any) -> object:
    with condition:
        return condition.notify(*args, **kwargs)


def refused(kind: type[Exception], call: Callable[..., object], *args: object) -> None:
    with pytest.raises(kind):
        call(*args)


# What is equal in every respect: the value, or the exception's type and text.
SAME: dict[str, Call] = {
    # lock
    "lock: release unheld": lambda m: m.Lock().release(),
    "lock: nan": lambda m: m.Lock().acquire(timeout=math.nan),
    "lock: timeout without blocking": lambda m: m.Lock().acquire(False, 1),
    "lock: negative without blocking": lambda m: m.Lock().acquire(False, -2),
    "lock: -1 without blocking": lambda m: held(m.Lock()).acquire(False, -1),
    "lock: zero": lambda m: held(m.Lock()).acquire(timeout=0),
    "lock: zero point": lambda m: held(m.Lock()).acquire(True, 0.0),
    "lock: False as timeout": lambda m: held(m.Lock()).acquire(timeout=False),
    "lock: longest": lambda m: m.Lock().acquire(timeout=stdlib_threading.TIMEOUT_MAX),
    "lock: blocking=0": lambda m: held(m.Lock()).acquire(blocking=0),
    "lock: blocking=1": lambda m: m.Lock().acquire(1),
    "lock: locked": lambda m: (m.Lock().locked(), held(m.Lock()).locked()),
    "lock: exit unheld": lambda m: m.Lock().__exit__(None, None, None),
    "lock: enter's value": lambda m: m.Lock().__enter__(),
    # rlock
    "rlock: release unheld": lambda m: m.RLock().release(),
    "rlock: released once too often": lambda m: [
        (lock := held(m.RLock())).release(),
        lock.release(),
    ],
    "rlock: nan": lambda m: m.RLock().acquire(timeout=math.nan),
    "rlock: timeout without blocking": lambda m: m.RLock().acquire(False, 1),
    "rlock: own with zero": lambda m: held(m.RLock()).acquire(timeout=0),
    "rlock: exit unheld": lambda m: m.RLock().__exit__(None, None, None),
    "rlock: is owned": lambda m: (m.RLock()._is_owned(), held(m.RLock())._is_owned()),
    # condition
    "condition: wait unheld": lambda m: m.Condition().wait(),
    "condition: wait unheld, with a time": lambda m: m.Condition().wait(0),
    "condition: notify unheld": lambda m: m.Condition().notify(),
    "condition: notify_all unheld": lambda m: m.Condition().notify_all(),
    "condition: release unheld": lambda m: m.Condition().release(),
    "condition: wait_for unheld": lambda m: m.Condition().wait_for(lambda: False),
    "condition: lock wait unheld": lambda m: m.Condition(m.Lock()).wait(),
    "condition: zero": lambda m: waiting_with(m.Condition(), 0),
    "condition: negative": lambda m: waiting_with(m.Condition(), -1),
    "condition: False as timeout": lambda m: waiting_with(m.Condition(), False),
    "condition: predicate's value": lambda m: waiting_for(m.Condition(), lambda: "yes"),
    "condition: predicate's last value": lambda m: waiting_for(m.Condition(), list, 0),
    "condition: predicate raises": lambda m: waiting_for(m.Condition(), lambda: 1 // 0),
    "condition: notify none": lambda m: notifying(m.Condition(), 0),
    "condition: notify negative": lambda m: notifying(m.Condition(), -1),
    "condition: notify by name": lambda m: notifying(m.Condition(), n=3),
    # semaphore
    "semaphore: negative value": lambda m: m.Semaphore(-1),
    "semaphore: release 0": lambda m: m.Semaphore().release(0),
    "semaphore: release -1": lambda m: m.Semaphore().release(-1),
    "semaphore: release n": lambda m: [(s := m.Semaphore(0)).release(2), s._value],
    "semaphore: timeout without blocking": lambda m: m.Semaphore().acquire(False, 1),
    "semaphore: None without blocking": lambda m: m.Semaphore().acquire(False, None),
    "semaphore: zero": lambda m: m.Semaphore(0).acquire(timeout=0),
    "semaphore: negative": lambda m: m.Semaphore(0).acquire(timeout=-1),
    "semaphore: blocking=0": lambda m: m.Semaphore(0).acquire(blocking=0),
    "semaphore: blocking=[]": lambda m: m.Semaphore(0).acquire([]),
    "semaphore: value by name": lambda m: m.Semaphore(value=7)._value,
    "semaphore: True as value": lambda m: m.Semaphore(True).acquire(False),
    "bounded: released too often": lambda m: m.BoundedSemaphore(1).release(),
    "bounded: n too many": lambda m: empty(m.BoundedSemaphore(2)).release(2),
    "bounded: refused release changes nothing": lambda m: (
        s := empty(m.BoundedSemaphore(2)),
        refused(ValueError, s.release, 2),
        s._value,
    )[-1],
    "bounded: negative value": lambda m: m.BoundedSemaphore(-1),
    # event
    "event: zero": lambda m: m.Event().wait(0),
    "event: negative": lambda m: m.Event().wait(-5),
    "event: False as timeout": lambda m: m.Event().wait(False),
    "event: set, infinite": lambda m: [(e := m.Event()).set(), e.wait(30)],
    # barrier
    "barrier: one party": lambda m: m.Barrier(1).wait(),
    "barrier: zero parties": lambda m: m.Barrier(2).wait(0),
    "barrier: after abort": lambda m: [(b := m.Barrier(1)).abort(), b.wait()],
    "barrier: abort, reset, wait": lambda m: [(b := m.Barrier(1)).abort(), b.reset(), b.wait()],
    "barrier: action raises": lambda m: m.Barrier(1, lambda: 1 // 0).wait(),
    "barrier: broken by its action": lambda m: (
        b := m.Barrier(1, lambda: 1 // 0),
        refused(ZeroDivisionError, b.wait),
        b.broken,
        b.n_waiting,
    )[2:],
    "barrier: own timeout": lambda m: m.Barrier(2, timeout=0).wait(),
    "barrier: parties": lambda m: m.Barrier(3).parties,
    # queue
    "queue: get_nowait": lambda m: m.Queue().get_nowait(),
    "queue: get(False)": lambda m: m.Queue().get(False),
    "queue: get(block=0)": lambda m: m.Queue().get(block=0),
    "queue: get(block=None)": lambda m: m.Queue().get(block=None),
    "queue: get zero": lambda m: m.Queue().get(timeout=0),
    "queue: get negative": lambda m: m.Queue().get(timeout=-1),
    "queue: get negative, unblocked": lambda m: m.Queue().get(False, -1),
    "queue: put negative, full": lambda m: filled(m.Queue(1)).put(2, timeout=-1),
    "queue: put(block=0)": lambda m: filled(m.Queue(1)).put(2, block=0),
    "queue: put_nowait": lambda m: filled(m.Queue(1)).put_nowait(2),
    "queue: put zero": lambda m: filled(m.Queue(1)).put(2, True, 0),
    "queue: get True as timeout": lambda m: filled(m.Queue()).get(timeout=True),
    "queue: get False as timeout": lambda m: m.Queue().get(timeout=False),
    "queue: item by name": lambda m: [(q := m.Queue()).put(item=3), q.get()],
    "queue: too many done": lambda m: m.Queue().task_done(),
    "queue: too many done after one": lambda m: [
        (q := filled(m.Queue())).task_done(),
        q.task_done(),
    ],
    "queue: negative maxsize": lambda m: [
        (q := m.Queue(-1)).put(1),
        q.put(2),
        q.full(),
        q.maxsize,
    ],
    "queue: False as maxsize": lambda m: filled(m.Queue(False)).full(),
    "queue: maxsize by name": lambda m: m.LifoQueue(maxsize=3).maxsize,
    "queue: maxsize may change": lambda m: [
        q := filled(m.Queue(1)),
        setattr(q, "maxsize", 2),
        q.full(),
        q.put(5),
        q.full(),
    ][2:],
    "queue: unordered items": lambda m: [(q := m.PriorityQueue()).put(1), q.put("a")],
    "queue: complex items": lambda m: [filled(m.PriorityQueue()).put(1j)],
    "queue: unfinished": lambda m: (
        q := filled(m.Queue()),
        q.unfinished_tasks,
        q.get(),
        q.unfinished_tasks,
        q.task_done(),
        q.unfinished_tasks,
    )[1:],
    "queue: join at once": lambda m: m.Queue().join(),
}

# The same class of exception; the text is clearer, or only the version's own.
SAME_CLASS: dict[str, Call] = {
    "lock: negative": lambda m: m.Lock().acquire(timeout=-2),
    "lock: huge": lambda m: m.Lock().acquire(timeout=1e300),
    "lock: infinite": lambda m: m.Lock().acquire(timeout=math.inf),
    "lock: huge integer": lambda m: m.Lock().acquire(timeout=1 << 63),
    "rlock: negative": lambda m: m.RLock().acquire(timeout=-2),
    "rlock: huge": lambda m: m.RLock().acquire(timeout=1e300),
    "condition: infinite": lambda m: waiting_with(m.Condition(), math.inf),
    "event: infinite": lambda m: m.Event().wait(math.inf),
    "barrier: n_waiting is read only": lambda m: setattr(m.Barrier(3), "n_waiting", 4),
    "lock: timeout of the wrong type": lambda m: m.Lock().acquire(timeout="1"),
    "lock: None as timeout": lambda m: m.Lock().acquire(timeout=None),
    "lock: too many": lambda m: m.Lock().acquire(True, 1, 2),
    "lock: unknown keyword": lambda m: m.Lock().acquire(foo=1),
    "lock: doubled": lambda m: m.Lock().acquire(True, blocking=True),
    "lock: argument to release": lambda m: m.Lock().release(1),
    "lock: argument to the class": lambda m: m.Lock(1),
    "lock: attribute": lambda m: setattr(m.Lock(), "x", 1),
    "rlock: timeout of the wrong type": lambda m: m.RLock().acquire(timeout=[]),
    "rlock: attribute": lambda m: setattr(m.RLock(), "x", 1),
    "condition: timeout of the wrong type": lambda m: waiting_with(m.Condition(), "1"),
    "condition: huge": lambda m: waiting_with(m.Condition(), 1e300),
    "condition: not a lock": lambda m: m.Condition(5).acquire(),
    "condition: not a lock, with": lambda m: m.Condition(5).__enter__(),
    "condition: predicate not callable": lambda m: waiting_for(m.Condition(), 5),
    "condition: too many": lambda m: m.Condition(None, None),
    "semaphore: value of the wrong type": lambda m: m.Semaphore("1"),
    "semaphore: timeout of the wrong type": lambda m: m.Semaphore(0).acquire(timeout="1"),
    "semaphore: huge": lambda m: m.Semaphore(0).acquire(timeout=1e300),
    "semaphore: truth raises": lambda m: m.Semaphore(0).acquire(NoTruth()),
    "semaphore: release of the wrong type": lambda m: m.Semaphore().release("1"),
    "semaphore: too many": lambda m: m.Semaphore(1, 2),
    "event: timeout of the wrong type": lambda m: m.Event().wait("1"),
    "event: huge": lambda m: m.Event().wait(1e300),
    "event: argument to the class": lambda m: m.Event(1),
    "event: argument to set": lambda m: m.Event().set(1),
    "barrier: no parties": lambda m: m.Barrier(),
    "barrier: timeout of the wrong type": lambda m: m.Barrier(2).wait("1"),
    "queue: put nothing": lambda m: m.Queue().put(),
    "queue: put too much": lambda m: m.Queue().put(1, True, None, 4),
    "queue: put unknown keyword": lambda m: m.Queue().put(1, blocking=False),
    "queue: get too much": lambda m: m.Queue().get(True, None, 3),
    "queue: get timeout of the wrong type": lambda m: m.Queue().get(timeout="1"),
    "queue: get truth raises": lambda m: m.Queue().get(NoTruth()),
    "queue: too many": lambda m: m.Queue(1, 2),
    "queue: unknown keyword": lambda m: m.Queue(size=1),
    "queue: parts can't be had by the class": lambda m: m.Queue.nothing,
}

# Refused where the standard library is only wrong later, or not at all.
CLEARER: dict[str, tuple[Call, type[BaseException], str]] = {
    "barrier: 0 parties": (lambda m: m.Barrier(0), ValueError, "parties must be >= 1"),
    "queue: maxsize of the wrong type": (
        lambda m: m.Queue("3"),
        TypeError,
        "maxsize must be an integer",
    ),
    "queue: nan as maxsize": (lambda m: m.Queue(math.nan), ValueError, "maxsize must not be NaN"),
    "queue: get nan": (lambda m: m.Queue().get(timeout=math.nan), ValueError, "NaN"),
    "barrier: parties of the wrong type": (lambda m: m.Barrier("1"), TypeError, "'str' and 'int'"),
    "condition: nan": (lambda m: waiting_with(m.Condition(), math.nan), ValueError, "NaN"),
    "event: nan": (lambda m: m.Event().wait(math.nan), ValueError, "NaN"),
    "event: seconds raise": (lambda m: m.Event().wait(NoSeconds()), LookupError, "no seconds here"),
    "lock: truth raises": (
        lambda m: m.Lock().acquire(NoTruth()),
        ZeroDivisionError,
        "no truth here",
    ),
    "lock: name of the wrong type": (lambda m: m.Lock(name=5), TypeError, "str"),
}


def outcome(call: Call, toolbox: SimpleNamespace) -> tuple[type[BaseException] | None, str]:
    try:
        value = call(toolbox)
    except Exception as error:
        return type(error), re.sub("0x[0-9a-f]+", "0x", str(error))
    return None, repr(value)


@pytest.mark.parametrize("name", SAME)
def test_same(name: str) -> None:
    assert outcome(SAME[name], OURS) == outcome(SAME[name], STDLIB)


@pytest.mark.parametrize("name", SAME_CLASS)
def test_same_class(name: str) -> None:
    ours, _ = outcome(SAME_CLASS[name], OURS)
    stdlib, _ = outcome(SAME_CLASS[name], STDLIB)
    assert ours is not None
    assert ours is stdlib


@pytest.mark.parametrize("name", CLEARER)
def test_clearer(name: str) -> None:
    call, kind, text = CLEARER[name]
    ours, message = outcome(call, OURS)
    assert ours is kind
    assert text in message


@pytest.mark.parametrize(
    "seconds", [fractions.Fraction(1, 1000), decimal.Decimal("0.001"), Half(), False, 0, -0.0]
)
def test_a_timeout_is_any_number(seconds: Any) -> None:
    # The standard library takes some of these in some places.
    assert held(OURS.Lock()).acquire(timeout=seconds) is False
    assert empty(OURS.Semaphore()).acquire(timeout=seconds) is False
    assert OURS.Event().wait(seconds) is False
    assert waiting_with(OURS.Condition(), seconds) is False
    assert waiting_for(OURS.Condition(), lambda: False, seconds) is False
    with pytest.raises(stdlib_threading.BrokenBarrierError):
        OURS.Barrier(2).wait(seconds)
    with pytest.raises(stdlib_queue.Empty):
        OURS.Queue().get(timeout=seconds)
    with pytest.raises(stdlib_queue.Full):
        filled(OURS.Queue(1)).put(2, timeout=seconds)
    assert OURS.Semaphore().acquire(timeout=seconds) is True


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 1 << 70, None])
def test_a_queue_waits_as_long_as_it_takes(seconds: Any) -> None:
    queue = OURS.Queue()
    thread = stdlib_threading.Thread(target=queue.put, args=("item",))
    thread.start()
    assert queue.get(timeout=seconds) == "item"
    thread.join()


def test_arguments_to_rlock() -> None:
    if sys.version_info >= (3, 15):
        with pytest.raises(TypeError):
            our_threading.RLock(1)
    elif sys.version_info >= (3, 13):
        with pytest.warns(DeprecationWarning, match="RLock"):
            our_threading.RLock(1)
    else:
        assert our_threading.RLock(1).acquire() is True
