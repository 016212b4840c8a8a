"""Programs that look like deadlocks and are none: no error and no warning."""

import subprocess
import sys
from collections.abc import Callable

import pytest

PRELUDE = """\
import os, random, signal, sys, time
from juggler import queue, threading

def until(condition):
    while not condition():
        time.sleep(0.0005)

def start(function, *args, daemon=None):
    thread = threading.Thread(target=function, args=args, daemon=daemon)
    thread.start()
    return thread

threading.detect_deadlocks()
"""

Check = Callable[[str], None]

# Since 3.12 a fork with threads is warned of, which is what some of these programs do.
_WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


@pytest.fixture
def check() -> Check:
    """A function that runs the text of a program after the prelude; it is to print "done" only."""

    def check(text: str) -> None:
        done = subprocess.run(
            [sys.executable, *_WARNINGS, "-c", PRELUDE + text + "\nprint('done')"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "done\n")

    return check


def test_a_lock_that_another_thread_releases(check: Check) -> None:
    check("""
signal_ = threading.Lock()
signal_.acquire()
thread = start(lambda: [until(lambda: signal_.statistics().waiting), signal_.release()])
signal_.acquire()
thread.join()
""")


def test_locks_as_signals_to_and_fro(check: Check) -> None:
    check("""
ping, pong = threading.Lock(), threading.Lock()
ping.acquire()
pong.acquire()
def answer():
    for _ in range(300):
        ping.acquire()
        pong.release()
thread = start(answer)
for _ in range(300):
    ping.release()
    pong.acquire()
thread.join()
""")


def test_waits_with_a_timeout(check: Check) -> None:
    check("""
a, b = threading.Lock(), threading.Lock()
both_hold = threading.Barrier(2)
def transfer(first, second):
    with first:
        both_hold.wait()
        if second.acquire(timeout=0.05):
            second.release()
        both_hold.wait()
threads = [start(transfer, a, b), start(transfer, b, a)]
for thread in threads:
    thread.join()
lock = threading.Lock()
lock.acquire()
assert not lock.acquire(timeout=0.01)
condition = threading.Condition()
with condition:
    assert not condition.wait(0.01)
""")


def test_one_of_a_cycle_waits_with_a_timeout(check: Check) -> None:
    check("""
a, b = threading.RLock(), threading.RLock()
both_hold = threading.Barrier(2)
def patient():
    with a:
        both_hold.wait()
        b.acquire()
        b.release()
def impatient():
    with b:
        both_hold.wait()
        until(lambda: b.statistics().waiting)
        assert not a.acquire(timeout=0.05)
threads = [start(patient), start(impatient)]
for thread in threads:
    thread.join()
""")


def test_a_handler_that_releases(check: Check) -> None:
    check("""
lock = threading.Lock()
lock.acquire()
signal.signal(signal.SIGALRM, lambda *_: lock.release())
signal.setitimer(signal.ITIMER_REAL, 0.05)
lock.acquire()
""")


def test_a_handler_that_notifies_by_an_event(check: Check) -> None:
    check("""
event = threading.Event()
signal.signal(signal.SIGALRM, lambda *_: event.set())
signal.setitimer(signal.ITIMER_REAL, 0.05)
event.wait()
""")


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
def test_idle_workers(check: Check, kind: str) -> None:
    check(f"""
tasks = queue.{kind}()
def work():
    while True:
        tasks.get()
        tasks.task_done()
workers = [start(work, daemon=True) for _ in range(4)]
until(lambda: tasks.statistics().getters == 4)
for number in range(100):
    tasks.put(number)
tasks.join()
until(lambda: tasks.statistics().getters == 4)
""")


def test_everybody_waits_for_a_queue_until_the_process_is_told(check: Check) -> None:
    # Nobody can end these waits but a signal: a server looks like that when it is idle.
    check("""
tasks, stop = queue.Queue(), threading.Event()
workers = [start(tasks.get, daemon=True) for _ in range(3)]
until(lambda: tasks.statistics().getters == 3)
pid = os.getpid()
if os.fork() == 0:
    # The child has nothing but this thread; it wakes the parent when that sleeps.
    time.sleep(0.1)
    os.kill(pid, signal.SIGINT)
    os._exit(0)
try:
    stop.wait()
except KeyboardInterrupt:
    pass
os.wait()
""")


@pytest.mark.parametrize(
    "wait",
    [
        "threading.Semaphore(0).acquire",
        "threading.Event().wait",
        "queue.Queue().get",
        "threading.Barrier(2).wait",
        "lambda: [q := queue.Queue(), q.put(1), q.join()]",
        "lambda: [lock := threading.ReadWriteLock(), lock.acquire_write(), lock.acquire_read()]",
    ],
)
def test_the_last_thread_waits_for_ctrl_c(check: Check, wait: str) -> None:
    check(f"""
import subprocess
timer = subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -INT {{os.getpid()}}"])
try:
    ({wait})()
except KeyboardInterrupt:
    pass
timer.wait()
""")


def test_a_producer_and_a_consumer_with_conditions(check: Check) -> None:
    check("""
class Buffer:
    def __init__(self):
        self.items = []
        lock = threading.Lock()
        self.not_empty, self.not_full = threading.Condition(lock), threading.Condition(lock)
    def put(self, item):
        with self.not_full:
            while len(self.items) >= 3:
                self.not_full.wait()
            self.items.append(item)
            self.not_empty.notify()
    def get(self):
        with self.not_empty:
            while not self.items:
                self.not_empty.wait()
            self.not_full.notify()
            return self.items.pop(0)
buffer = Buffer()
got = []
threads = [start(lambda: [buffer.put(n) for n in range(300)]) for _ in range(3)]
threads += [start(lambda: got.extend(buffer.get() for _ in range(300))) for _ in range(3)]
for thread in threads:
    thread.join()
assert sorted(got) == sorted(list(range(300)) * 3)
""")


def test_a_notifier_that_still_runs(check: Check) -> None:
    check("""
condition = threading.Condition()
ready = []
def notify():
    until(lambda: condition.statistics().waiting == 3)
    time.sleep(0.02)
    with condition:
        ready.append(True)
        condition.notify_all()
def wait():
    with condition:
        condition.wait_for(lambda: ready)
threads = [start(wait) for _ in range(3)] + [start(notify)]
for thread in threads:
    thread.join()
""")


def test_nested_conditions_and_timers(check: Check) -> None:
    check("""
condition = threading.Condition()
def notify():
    with condition:
        condition.notify()
timer = threading.Timer(0.05, notify)
timer.start()
with condition:
    condition.wait()
timer.join()
""")


def test_a_thread_that_is_being_started(check: Check) -> None:
    check("""
for _ in range(50):
    lock = threading.Lock()
    lock.acquire()
    thread = start(lock.release)
    lock.acquire()
    thread.join()
""")


def test_a_forked_child(check: Check) -> None:
    check("""
a, b = threading.Lock(), threading.Lock()
ready = threading.Event()
stop = threading.Event()
def hold():
    with a:
        ready.set()
        stop.wait()
holder = start(hold)
ready.wait()
waiter = start(lambda: [a.acquire(), a.release()])
until(lambda: a.statistics().waiting)
child = os.fork()
if child == 0:
    # Of the parent's threads none is here: their waits are over.
    status = 1
    try:
        assert not a.acquire(timeout=0.01)
        a._at_fork_reinit()
        with a, b:
            pass
        items = queue.Queue()
        thread = threading.Thread(target=lambda: items.put(1))
        with a:
            thread.start()
            assert items.get() == 1
            thread.join()
        try:
            with b:
                b.acquire()
        except threading.DeadlockError:
            status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0
stop.set()
holder.join()
waiter.join()
""")


def test_idle_pools(check: Check) -> None:
    check("""
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(abs, range(-50, 0)))
    event = threading.Event()
    threading.Timer(0.05, event.set).start()
    event.wait()
    assert pool.submit(pow, 2, 3).result() == 8
""")


def test_handing_a_lock_over_inside_a_with_block(check: Check) -> None:
    # Legal, if odd: the block's lock is released by another thread, and taken again before its end.
    check("""
lock = threading.Lock()
def release():
    until(lambda: lock.statistics().waiting)
    lock.release()
thread = threading.Thread(target=release)
lock.acquire()
thread.start()
lock.acquire()
lock.release()
thread.join()
""")


def test_one_order_under_a_common_gate(check: Check) -> None:
    # Both orders, but never at once: a third lock is always held.
    check("""
gate, a, b = threading.Lock(), threading.Lock(), threading.Lock()
def work(first, second):
    for _ in range(100):
        with gate, first, second:
            pass
threads = [start(work, a, b), start(work, b, a)]
for thread in threads:
    thread.join()
""")


def test_tries_in_the_opposite_order(check: Check) -> None:
    check("""
a, b = threading.Lock(), threading.Lock()
with a, b:
    pass
with b:
    assert a.acquire(False)
    a.release()
    assert a.acquire(timeout=1)
    a.release()
""")


def test_acquire_all_in_any_order(check: Check) -> None:
    check("""
locks = [threading.Lock() for _ in range(4)]
def work(seed):
    rng = random.Random(seed)
    for _ in range(60):
        with threading.acquire_all(*rng.sample(locks, 3)):
            time.sleep(0)
threads = [start(work, seed) for seed in range(4)]
for thread in threads:
    thread.join()
""")


def test_reentrant_locks_taken_again_inside_others(check: Check) -> None:
    check("""
a, b = threading.RLock(), threading.RLock()
def work():
    for _ in range(100):
        with a, b, a, b:
            pass
threads = [start(work) for _ in range(3)]
for thread in threads:
    thread.join()
""")


def test_short_lived_locks_at_the_same_address(check: Check) -> None:
    check("""
keep = threading.Lock()
for turn in range(500):
    other = threading.Lock()
    first, second = (keep, other) if turn % 2 else (other, keep)
    with first, second:
        pass
    del first, second, other
""")


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_with_a_consistent_order(check: Check, seed: int) -> None:
    check(f"""
rng = random.Random({seed})
locks = [rng.choice([threading.Lock, threading.RLock])() for _ in range(8)]
condition = threading.Condition(locks[7])
jobs, results = queue.Queue(3), queue.Queue()
permits = threading.Semaphore(2)

def work(seed):
    rng = random.Random(seed)
    for _ in range(60):
        chosen = sorted(rng.sample(range(7), rng.randint(1, 4)))
        for at in chosen:
            locks[at].acquire()
        if rng.random() < 0.3:
            time.sleep(0)
        for at in rng.sample(chosen, len(chosen)):
            locks[at].release()
        action = rng.randrange(5)
        if action == 0:
            with condition:
                condition.notify_all()
        elif action == 1:
            with condition:
                condition.wait(0.001)
        elif action == 2:
            jobs.put(seed)
            results.put(jobs.get())
        elif action == 3:
            with permits, locks[rng.randrange(7)]:
                time.sleep(0)
        else:
            inner = threading.Thread(target=lambda: locks[0].acquire() and locks[0].release())
            inner.start()
            inner.join()
threads = [start(work, seed) for seed in range({seed} * 10, {seed} * 10 + 5)]
for thread in threads:
    thread.join()
""")
