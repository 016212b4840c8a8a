"""What a forked child finds, while the parent's threads were blocked in every primitive."""

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

def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def in_child(function):
    "Forks, calls `function` in the child, and expects it to succeed."
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
"""

Check = Callable[[str], None]


@pytest.fixture
def check() -> Check:
    """A function that runs the text of a program after the prelude; it is to print "done" only."""

    def check(text: str) -> None:
        done = subprocess.run(
            # Since 3.12 a fork with threads is warned of, which is what these programs are about.
            [
                sys.executable,
                "-W",
                "error",
                "-W",
                "ignore:This process:DeprecationWarning",
                "-c",
                PRELUDE + text + "\nprint('done')",
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n")

    return check


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_that_another_thread_holds_stays_held(check: Check, kind: str) -> None:
    check(f"""
lock = threading.{kind}()
held, stop = threading.Event(), threading.Event()
def hold():
    with lock:
        held.set()
        stop.wait()
holder = start(hold)
held.wait()
waiter = start(lock.acquire)
until(lambda: lock.statistics().waiting)

def child():
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0.01)
    lock._at_fork_reinit()
    assert lock.acquire(False)
    lock.release()
    thread = start(lambda: [lock.acquire(), lock.release()])
    thread.join()
in_child(child)
stop.set()
holder.join()
waiter.join()
""")


def test_a_lock_of_the_forking_thread_is_the_childs(check: Check) -> None:
    check("""
lock, rlock = threading.Lock(), threading.RLock()
waiting = []
with lock, rlock, rlock:
    waiters = [start(lambda: [lock.acquire(), lock.release()]),
               start(lambda: [rlock.acquire(), rlock.release()])]
    until(lambda: lock.statistics().waiting and rlock.statistics().waiting)
    def child():
        assert lock.locked() and rlock.statistics().depth == 2
        lock.release()
        rlock.release()
        rlock.release()
        # No wake goes to those who are not here: a new waiter gets the lock.
        for each in (lock, rlock):
            each.acquire()
            got = []
            thread = start(lambda: got.append(each.acquire(timeout=20)))
            until(lambda: each.statistics().waiting)
            each.release()
            thread.join()
            assert got == [True]
    in_child(child)
for waiter in waiters:
    waiter.join()
""")


def test_a_semaphores_permit_goes_to_no_ghost(check: Check) -> None:
    check("""
semaphore = threading.Semaphore(0)
waiters = [start(semaphore.acquire) for _ in range(3)]
until(lambda: semaphore.statistics().waiting == 3)
def child():
    semaphore.release()
    assert semaphore.acquire(timeout=20)
    got = []
    thread = start(lambda: got.append(semaphore.acquire(timeout=20)))
    until(lambda: semaphore.statistics().waiting or got)
    semaphore.release()
    thread.join()
    assert got == [True]
in_child(child)
semaphore.release(3)
for waiter in waiters:
    waiter.join()
""")


def test_a_notification_goes_to_no_ghost(check: Check) -> None:
    check("""
condition = threading.Condition()
def wait():
    with condition:
        condition.wait()
waiters = [start(wait) for _ in range(3)]
until(lambda: condition.statistics().waiting == 3)
def child():
    got = []
    def wait():
        with condition:
            got.append("waits")
            got.append(condition.wait(20))
    thread = start(wait)
    until(lambda: got)
    with condition:
        condition.notify()
    thread.join()
    assert got == ["waits", True]
in_child(child)
with condition:
    condition.notify_all()
for waiter in waiters:
    waiter.join()
""")


def test_an_event_wakes_who_is_here(check: Check) -> None:
    check("""
event = threading.Event()
waiters = [start(event.wait) for _ in range(3)]
until(lambda: event.statistics().waiting == 3)
def child():
    thread = start(event.wait)
    event.set()
    thread.join()
    event.clear()
    assert not event.wait(0.01)
    event._at_fork_reinit()
    thread = start(event.wait)
    event.set()
    thread.join()
in_child(child)
assert not event.is_set()
event.set()
for waiter in waiters:
    waiter.join()
""")


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
@pytest.mark.parametrize("opened", [False, True])
def test_queues_go_on_with_their_items(check: Check, kind: str, opened: bool) -> None:
    check(f"""
empty, full = queue.{kind}(), queue.{kind}(2)
if {opened}:
    empty.queue, full.queue
full.put(1)
full.put(2)
getters = [start(empty.get) for _ in range(2)]
putters = [start(full.put, 3) for _ in range(2)]
joiner = start(full.join)
def waiting():
    if {opened}:
        return (empty.not_empty.statistics().waiting, full.not_full.statistics().waiting)
    return (empty.statistics().getters, full.statistics().putters)
until(lambda: waiting() == (2, 2))
def child():
    # What was put for the getters that are not here stays for those that are.
    empty.put("x")
    assert empty.get(timeout=20) == "x"
    got = []
    thread = start(lambda: got.append(empty.get(timeout=20)))
    empty.put("y")
    thread.join()
    assert got == ["y"]
    assert sorted([full.get(timeout=20), full.get(timeout=20)]) == [1, 2]
    full.put(4, timeout=20)
    full.put(5, timeout=20)
    thread = start(full.put, 6)
    assert full.get(timeout=20) in (4, 5)
    thread.join()
    for _ in range(5):
        full.task_done()
    full.join()
in_child(child)
empty.put(1), empty.put(2)
for _ in range(4):
    full.get()
    full.task_done()
for thread in getters + putters + [joiner]:
    thread.join()
""")


def test_read_write_locks(check: Check) -> None:
    check("""
lock = threading.ReadWriteLock()
lock.acquire_read()
writer = start(lock.acquire_write)
until(lambda: lock.statistics().waiting)
def child():
    # The parent's writer is not here, so it keeps no readers out.
    assert lock.acquire_read(20)
    lock.release_read()
    lock.release_read()
    assert lock.acquire_write(20)
    reader = start(lock.acquire_read)
    until(lambda: lock.statistics().waiting)
    lock.release_write()
    reader.join()
in_child(child)
lock.release_read()
writer.join()
""")


def test_fork_during_traffic(check: Check) -> None:
    # Whatever the other threads are in the middle of, a child can use all that it finds.
    check("""
items, lock, semaphore = queue.Queue(2), threading.Lock(), threading.Semaphore(2)
priority = queue.PriorityQueue()
stop = threading.Event()
def work():
    while not stop.is_set():
        items.put(1)
        with semaphore:
            items.get()
        with lock:
            pass
        priority.put(1)
        priority.get()
threads = [start(work) for _ in range(4)]
def child():
    lock._at_fork_reinit()
    with lock:
        pass
    while not items.full():
        items.put(1, timeout=20)
    while not items.empty():
        items.get(timeout=20)
    thread = start(lambda: items.put("last"))
    assert items.get(timeout=20) == "last"
    thread.join()
    priority.put(0)
    assert priority.get(timeout=20) == 0
for _ in range(30):
    in_child(child)
stop.set()
for thread in threads:
    thread.join()
""")


def test_children_of_children(check: Check) -> None:
    check("""
items = queue.Queue()
start(items.get)
until(lambda: items.statistics().getters)
def grandchild():
    items.put(2)
    assert items.get(timeout=20) == 2
def child():
    thread = start(items.get)
    in_child(grandchild)
    items.put(1)
    thread.join()
in_child(child)
""")


def test_a_barrier_forgets_who_stayed_in_the_parent(check: Check) -> None:
    check("""
barrier = threading.Barrier(2)
waiter = start(barrier.wait)
until(lambda: barrier.n_waiting)
def child():
    assert barrier.n_waiting == 0
    for _ in range(3):
        thread = start(barrier.wait)
        barrier.wait(20)
        thread.join()
in_child(child)
assert barrier.n_waiting == 1
barrier.wait(20)
waiter.join()
""")


def test_the_action_of_a_barrier_forks(check: Check) -> None:
    check("""
def child():
    assert barrier.n_waiting == 0
barrier = threading.Barrier(2, lambda: in_child(child))
waiter = start(barrier.wait)
barrier.wait(20)
waiter.join()

def go_on_in_the_child():
    global pid
    pid = os.fork()
    if pid == 0:
        barrier.reset()
barrier = threading.Barrier(2, go_on_in_the_child)
waiter = start(barrier.wait, 20)
try:
    barrier.wait(20)
    broken = False
except threading.BrokenBarrierError:
    broken = True
if pid == 0:
    # The round that it was forked in is over, without the other one.
    status = 0 if broken and barrier.n_waiting == 0 else 1
    barrier = threading.Barrier(1)
    os._exit(status + barrier.wait(20))
assert os.waitpid(pid, 0)[1] == 0
assert not broken
waiter.join()
""")


def test_no_timer_of_the_parent_is_alive(check: Check) -> None:
    check("""
called = []
pending = threading.Timer(0.2, called.append, ("parent's",))
looked_at = threading.Timer(0.2, called.append, ("parent's",))
cancelled = threading.Timer(0.2, called.append, ("cancelled",))
for timer in (pending, looked_at, cancelled):
    timer.start()
looked_at.ident
cancelled.cancel()
def child():
    assert threading.enumerate() == [threading.current_thread()]
    for timer in (pending, looked_at, cancelled):
        assert not timer.is_alive()
        timer.join()
        timer.cancel()
    mine = threading.Timer(0.3, called.append, ("child's",))
    mine.start()
    assert threading.active_count() == 2
    mine.join()
    assert called == ["child's"]
in_child(child)
pending.join()
looked_at.join()
assert called == ["parent's", "parent's"]
""")
