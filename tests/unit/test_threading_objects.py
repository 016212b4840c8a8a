"""The primitives as objects: attributes, subclasses, references, pickling, reprs, statistics."""

import copy
import gc
import pickle
import queue as stdlib_queue
import re
import threading as stdlib_threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import juggler
from juggler import queue, threading

CLASSES = [
    (threading.Lock, ()),
    (threading.RLock, ()),
    (threading.Condition, ()),
    (threading.Semaphore, (2,)),
    (threading.BoundedSemaphore, (2,)),
    (threading.Event, ()),
    (threading.Barrier, (2,)),
    (queue.Queue, (2,)),
    (queue.LifoQueue, (2,)),
    (queue.PriorityQueue, (2,)),
]
# Those of the standard library that are written in Python, and so have attributes.
OPEN = [(kind, args) for kind, args in CLASSES if kind not in (threading.Lock, threading.RLock)]


def stdlib(kind: Any) -> Any:
    # The name of `threading.Lock` is another one before 3.13.
    name = "Lock" if kind is threading.Lock else kind.__name__
    module = stdlib_queue if name.endswith("Queue") else stdlib_threading
    return getattr(module, name)


def normal(text: str) -> str:
    return re.sub("0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize(("kind", "args"), CLASSES)
def test_weak_references(kind: Any, args: tuple[Any, ...]) -> None:
    made = kind(*args)
    called: list[object] = []
    reference = weakref.ref(made, called.append)
    assert reference() is made
    del made
    gc.collect()
    assert reference() is None
    assert called == [reference]


@pytest.mark.parametrize(("kind", "args"), OPEN)
def test_attributes(kind: Any, args: tuple[Any, ...]) -> None:
    made = kind(*args)
    made.note = "mine"
    assert made.note == "mine"
    assert vars(made)["note"] == "mine"
    del made.note
    with pytest.raises(AttributeError):
        _ = made.note


@pytest.mark.parametrize(("kind", "args"), OPEN)
@pytest.mark.parametrize("by", ["attribute", "subclass"])
def test_cycles_are_collected(kind: Any, args: tuple[Any, ...], by: str) -> None:
    made = type("Sub", (kind,), {})(*args) if by == "subclass" else kind(*args)
    made.myself = made
    reference = weakref.ref(made)
    del made
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("kind", [queue.Queue, queue.LifoQueue, queue.PriorityQueue])
@pytest.mark.parametrize("opened", [False, True])
def test_a_queue_inside_itself_is_collected(kind: Any, opened: bool) -> None:
    items = kind()
    if opened:
        assert not items.queue
    items.put(items)
    reference = weakref.ref(items)
    del items
    gc.collect()
    assert reference() is None


def test_cycles_through_a_condition_and_its_lock_are_collected() -> None:
    class Guard:
        def __init__(self) -> None:
            lock = threading.Lock()
            self.acquire = lock.acquire
            self.release = lock.release
            self.condition = threading.Condition(self)

    guard = Guard()
    reference = weakref.ref(guard)
    condition = weakref.ref(guard.condition)
    del guard
    gc.collect()
    assert reference() is None
    assert condition() is None


def test_cycles_through_a_barrier_and_its_action_are_collected() -> None:
    class Meeting(threading.Barrier):
        def __init__(self) -> None:
            super().__init__(1, self.act)

        def act(self) -> None:
            raise AssertionError

    meeting = Meeting()
    reference = weakref.ref(meeting)
    del meeting
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(("kind", "args"), CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(kind: Any, args: tuple[Any, ...], protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(kind(*args), protocol)
    # The standard library's have the first two protocols fail at what they find inside.
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(stdlib(kind)(*args), protocol)


@pytest.mark.parametrize(("kind", "args"), CLASSES)
def test_copies_are_refused(kind: Any, args: tuple[Any, ...]) -> None:
    for made in (kind(*args), stdlib(kind)(*args)):
        with pytest.raises(TypeError):
            copy.deepcopy(made)


@pytest.mark.parametrize(("kind", "args"), [c for c in CLASSES if c[0] is not threading.Lock])
def test_subclasses_may_take_other_arguments(kind: Any, args: tuple[Any, ...]) -> None:
    class Labelled(kind):  # type: ignore[misc]
        def __init__(self, label: str, *, colour: str = "red") -> None:
            super().__init__(*args)
            self.label = label, colour

    made = Labelled("mine", colour="blue")
    assert made.label == ("mine", "blue")
    assert isinstance(made, kind)
    assert "Labelled" in repr(made) or kind is threading.Condition


def test_methods_may_be_overridden() -> None:
    class Loud(threading.Event):
        def set(self) -> None:
            said.append("set")
            super().set()

    said: list[str] = []
    event = Loud()
    event.set()
    assert event.is_set()
    assert said == ["set"]

    class Permits(threading.Semaphore):
        def release(self, n: int = 1) -> None:
            super().release(n * 2)

    permits = Permits(0)
    permits.release()
    assert [permits.acquire(False) for _ in range(3)] == [True, True, False]


STATES: dict[str, Callable[[Any, Any], object]] = {
    "Lock": lambda threading, _: threading.Lock(),
    "Lock, held": lambda threading, _: _held(threading.Lock()),
    "Condition": lambda threading, _: threading.Condition(threading.Lock()),
    "Semaphore": lambda threading, _: threading.Semaphore(3),
    "BoundedSemaphore": lambda threading, _: _held(threading.BoundedSemaphore(3)),
    "Event": lambda threading, _: threading.Event(),
    "Event, set": lambda threading, _: _set(threading.Event()),
    "Barrier": lambda threading, _: threading.Barrier(3),
    "Barrier, broken": lambda threading, _: _broken(threading.Barrier(3)),
    "Queue": lambda _, queue: queue.Queue(),
    "LifoQueue": lambda _, queue: queue.LifoQueue(),
    "PriorityQueue": lambda _, queue: queue.PriorityQueue(),
    "subclass": lambda threading, _: type("Mine", (threading.Event,), {"__module__": "my"})(),
}


def _held(lock: Any) -> Any:
    lock.acquire()
    return lock


def _set(event: Any) -> Any:
    event.set()
    return event


def _broken(barrier: Any) -> Any:
    barrier.abort()
    return barrier


@pytest.mark.parametrize("name", STATES)
def test_reprs(name: str) -> None:
    ours = normal(repr(STATES[name](threading, queue)))
    theirs = normal(repr(STATES[name](stdlib_threading, stdlib_queue)))
    # What is native there says so by its module.
    assert ours == theirs.replace("_thread.lock", "threading.Lock")


def test_reprs_of_rlocks() -> None:
    pattern = r"<(un)?locked [a-z_]+\.RLock object owner=\d+ count=\d at 0x>"
    for module in (threading, stdlib_threading):
        lock = module.RLock()
        assert re.fullmatch(pattern, normal(repr(lock)))
        with lock, lock:
            held = repr(lock)
        assert re.fullmatch(pattern, normal(held))
        assert held.startswith("<locked")
        assert f"owner={threading.get_ident()} count=2" in held


@pytest.mark.parametrize(("ours", "theirs"), [(threading, stdlib_threading), (queue, stdlib_queue)])
def test_no_name_is_missing(ours: ModuleType, theirs: ModuleType) -> None:
    assert set(theirs.__all__) <= set(ours.__all__)
    assert len(ours.__all__) == len(set(ours.__all__))
    for name in [*ours.__all__, *(name for name in dir(theirs) if not name.startswith("__"))]:
        getattr(ours, name)
    assert set(ours.__all__) <= set(dir(ours))
    with pytest.raises(AttributeError):
        _ = ours.no_such_name


def test_star_import() -> None:
    namespace: dict[str, object] = {}
    exec("from juggler.threading import *\nfrom juggler.queue import *", namespace)
    assert namespace["Lock"] is threading.Lock
    assert namespace["Queue"] is queue.Queue
    assert set(threading.__all__) | set(queue.__all__) <= set(namespace)


def test_exceptions_are_the_standard_librarys() -> None:
    assert queue.Full is stdlib_queue.Full
    assert queue.Empty is stdlib_queue.Empty
    assert queue.SimpleQueue is stdlib_queue.SimpleQueue
    assert queue.ShutDown is getattr(stdlib_queue, "ShutDown", queue.ShutDown)
    assert queue.ShutDown.__module__ == "queue"
    assert threading.BrokenBarrierError is stdlib_threading.BrokenBarrierError
    assert issubclass(threading.DeadlockError, RuntimeError)
    assert issubclass(threading.LockOrderWarning, Warning)


def test_threads_are_the_standard_librarys() -> None:
    for name in ("Thread", "local", "current_thread", "enumerate", "excepthook", "TIMEOUT_MAX"):
        assert getattr(threading, name) is getattr(stdlib_threading, name)


def test_classes_have_the_public_methods_of_the_standard_librarys() -> None:
    for kind, args in CLASSES:
        theirs = stdlib(kind)(*args)
        missing = {name for name in dir(theirs) if not name.startswith("_")} - set(dir(kind(*args)))
        assert not missing, kind


@pytest.mark.parametrize(("kind", "args"), CLASSES)
def test_methods_are_documented(kind: Any, args: tuple[Any, ...]) -> None:
    del args
    assert kind.__doc__
    for name in ("acquire", "release", "wait", "set", "put", "get", "task_done", "notify"):
        method = getattr(kind, name, None)
        assert method is None or method.__doc__


def test_statistics() -> None:
    lock = threading.Lock()
    assert (lock.statistics().locked, lock.statistics().waiting) == (False, 0)
    with lock:
        assert lock.statistics().locked
        assert repr(lock.statistics()) == "LockStatistics(locked=True, waiting=0)"

    rlock = threading.RLock()
    assert rlock.statistics().owner is None
    with rlock, rlock:
        now = rlock.statistics()
        assert (now.locked, now.owner, now.depth, now.waiting) == (
            True,
            threading.get_ident(),
            2,
            0,
        )

    assert threading.Condition().statistics().waiting == 0
    event = threading.Event()
    event.set()
    assert (event.statistics().is_set, event.statistics().waiting) == (True, 0)

    semaphore = threading.Semaphore(3)
    now = semaphore.statistics()
    assert (now.permits, now.bound, now.waiting) == (3, None, 0)
    assert threading.BoundedSemaphore(3).statistics().bound == 3

    barrier = threading.Barrier(2)
    now = barrier.statistics()
    assert (now.parties, now.waiting, now.broken) == (2, 0, False)

    items = queue.Queue(5)
    for number in range(3):
        items.put(number)
    items.get()
    now = items.statistics()
    assert (now.size, now.maxsize, now.unfinished, now.deepest) == (2, 5, 3, 3)
    assert (now.getters, now.putters) == (0, 0)

    both = threading.ReadWriteLock()
    with both.read():
        now = both.statistics()
        assert (now.readers, now.writing, now.waiting) == (1, False, 0)
    with both.write():
        assert both.statistics().writing


def test_statistics_are_a_moments() -> None:
    semaphore = threading.Semaphore(1)
    before = semaphore.statistics()
    semaphore.acquire()
    assert before.permits == 1
    with pytest.raises(AttributeError):
        before.permits = 5


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock, threading.ReadWriteLock])
def test_locks_may_have_a_name(kind: Any) -> None:
    assert kind().name is None
    named = kind(name="accounts")
    assert named.name == "accounts"
    assert "'accounts'" in repr(named)
    with pytest.raises(TypeError):
        kind(name=7)


def test_primitives_are_the_same_by_either_way() -> None:
    assert juggler.threading is threading
    assert juggler.queue is queue


def test_conditions_share_a_lock() -> None:
    lock = threading.Lock()
    one, other = threading.Condition(lock), threading.Condition(lock)
    with one:
        assert lock.locked()
        other.notify()
    with other:
        assert not one.acquire(False)


def test_conditions_take_the_standard_librarys_locks_and_the_reverse() -> None:
    for condition in (
        threading.Condition(stdlib_threading.Lock()),
        threading.Condition(stdlib_threading.RLock()),
        stdlib_threading.Condition(threading.Lock()),
        stdlib_threading.Condition(threading.RLock()),
    ):
        ready: list[str] = []

        def make_ready(condition: Any = condition, ready: list[str] = ready) -> None:
            with condition:
                ready.append("ready")
                condition.notify_all()

        thread = threading.Thread(target=make_ready)
        with condition:
            thread.start()
            assert condition.wait_for(lambda ready=ready: ready)
            assert not condition.wait(0)
        thread.join()


def test_semaphores_value_may_be_set() -> None:
    # Programs do so to resize a limit.
    semaphore = threading.Semaphore(1)
    semaphore._value = 3
    assert [semaphore.acquire(False) for _ in range(4)] == [True, True, True, False]


def test_no_object_waits_for_the_lock_of_its_own_destructor() -> None:
    class Item:
        def __del__(self) -> None:
            with lock:
                freed.append(True)

    lock = threading.Lock()
    freed: list[bool] = []
    items = queue.Queue()
    items.put(Item())
    items.get()
    assert freed == [True]
