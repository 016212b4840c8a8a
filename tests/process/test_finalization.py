"""The end of the interpreter while threads are blocked: no hang, no crash, status 0."""

import subprocess
import sys

import pytest

PRELUDE = """\
import atexit, gc, sys, time
from juggler import queue, threading

def start(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def until(condition):
    while not condition():
        time.sleep(0.0005)
"""


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "error", "-c", PRELUDE + text],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


BLOCKED = {
    "lock": "lock = threading.Lock(); lock.acquire(); wait = lock.acquire",
    "lock, timed": "l = threading.Lock(); l.acquire(); wait = lambda: l.acquire(timeout=99)",
    "rlock": "lock = threading.RLock(); lock.acquire(); wait = lock.acquire",
    "semaphore": "wait = threading.Semaphore(0).acquire",
    "event": "wait = threading.Event().wait",
    "condition": "c = threading.Condition()\ndef wait():\n    with c: c.wait()",
    "condition, timed": "c = threading.Condition()\ndef wait():\n    with c: c.wait(99)",
    "barrier": "wait = threading.Barrier(2).wait",
    "reader": "rw = threading.ReadWriteLock(); rw.acquire_write(); wait = rw.acquire_read",
    "writer": "rw = threading.ReadWriteLock(); rw.acquire_read(); wait = rw.acquire_write",
    "get": "wait = queue.Queue().get",
    "get of a heap": "wait = queue.PriorityQueue().get",
    "put": "full = queue.Queue(1); full.put(1); wait = lambda: full.put(object())",
    "join": "busy = queue.Queue(); busy.put(1); wait = busy.join",
    "open get": "opened = queue.Queue(); opened.queue; wait = opened.get",
}


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("traced", [False, True])
def test_daemon_threads_that_are_blocked(name: str, traced: bool) -> None:
    done = run(f"""
threading.detect_deadlocks({traced})
{BLOCKED[name]}
begun = []
for _ in range(3):
    start(lambda: [begun.append(True), wait()])
until(lambda: len(begun) == 3)
time.sleep(0.01)  # they block now, or they don't: the end must be the same
print("end")
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "end\n")


def test_daemon_threads_that_are_busy() -> None:
    done = run("""
items, lock, condition = queue.Queue(4), threading.Lock(), threading.Condition()
heap = queue.PriorityQueue(4)
def work():
    while True:
        items.put([])
        items.get()
        with lock:
            heap.put(1)
        with condition:
            condition.notify()
            condition.wait(0.0001)
        heap.get()
for _ in range(4):
    start(work)
time.sleep(0.05)
print("end")
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "end\n")


# What each daemon thread does over and over: Python code that is called from the native side.
CALLED_BACK = {
    "comparison": """
class Item:
    def __lt__(self, other): return bool(spin())
heap = queue.PriorityQueue()
def step(): heap.put(Item()); heap.get()
""",
    "hook": """
class Hooked(queue.Queue):
    def _put(self, item): spin(); super()._put(item)
items = Hooked()
def step(): items.put(1); items.get()
""",
    "predicate": """
condition = threading.Condition()
def step():
    with condition: condition.wait_for(spin)
""",
    "foreign lock": """
class Foreign:
    def __init__(self): self.lock = threading.Lock()
    def acquire(self, *args): spin(); return self.lock.acquire(*args)
    def release(self): spin(); self.lock.release()
    def __enter__(self): return self.acquire()
    def __exit__(self, *args): self.release()
condition = threading.Condition(Foreign())
def step():
    with condition: condition.notify()
""",
    "barrier's action": """
def step(): threading.Barrier(1, action=spin).wait()
""",
    "callback": """
def step():
    future = futures.Future()
    future.add_done_callback(lambda future: spin())
    future.set_result(1)
""",
    "task": """
pool = futures.ThreadPoolExecutor(2)
def step():
    try:
        pool.submit(spin).result()
    except RuntimeError:  # the pool was closed
        spin()
""",
    "destructor": """
class Item:
    def __del__(self): spin()
def step():
    items = queue.Queue()
    items.put(Item())
""",
    "hash": """
class Hashed(futures.Future):
    def __hash__(self): spin(); return 1
def step():
    future = Hashed()
    future.set_result(1)
    futures.wait([future])
""",
}


@pytest.mark.parametrize("name", CALLED_BACK)
def test_daemon_threads_that_were_called_back(name: str) -> None:
    done = run(f"""
from juggler import futures
def spin():
    for _ in range(50): pass
    return True
{CALLED_BACK[name]}
def work():
    while True:
        step()
sys.setswitchinterval(1e-5)
for _ in range(3):
    start(work)
time.sleep(0.03)
print("end")
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "end\n")


# Destructors of what lives until the very end run when no other thread can run any more.
AT_THE_END = """
class Last:
    def __del__(self, wait=wait, print=print):
        try:
            print("returned", wait())
        except RuntimeError as error:
            print(type(error).__mro__[-4].__name__, error)
import builtins
builtins.last = Last()
"""


@pytest.mark.parametrize(
    "name", ["lock", "semaphore", "event", "condition", "reader", "get", "put", "join", "barrier"]
)
def test_a_wait_at_finalization_raises(name: str) -> None:
    done = run(BLOCKED[name] + AT_THE_END)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("RuntimeError cannot wait at interpreter finalization")


@pytest.mark.parametrize(
    ("wait", "result"),
    [
        ("wait = threading.Lock().acquire", "True"),
        ("e = threading.Event(); e.set(); wait = e.wait", "True"),
        ("q = queue.Queue(); q.put('item'); wait = q.get", "item"),
        ("l = threading.Lock(); l.acquire(); wait = lambda: l.acquire(timeout=0.01)", "False"),
        ("e = threading.Event(); wait = lambda: e.wait(0.01)", "False"),
    ],
)
def test_what_need_not_wait_for_ever_works_at_finalization(wait: str, result: str) -> None:
    done = run(wait + AT_THE_END)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"returned {result}\n")


def test_queues_and_cycles_that_live_to_the_end() -> None:
    done = run("""
class Item:
    def __del__(self):
        deaths.put(1)
deaths = queue.Queue()
for kind in (queue.Queue, queue.LifoQueue):
    items = kind()
    items.put(items)
    items.put(Item())
    items.mine = items
sys.modules["keeps"] = items
print("end")
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "end\n")


def test_exit_handlers_may_wait() -> None:
    done = run("""
event, items = threading.Event(), queue.Queue()
def at_exit():
    threading.Lock().acquire()
    print(event.wait(0.01), items.get())
items.put("item")
atexit.register(at_exit)
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "False item\n")


def test_threads_that_are_not_daemons_are_waited_for() -> None:
    done = run("""
items = queue.Queue()
def work():
    while (item := items.get()) is not None:
        print(item)
threading.Thread(target=work).start()
threading.main_thread()
items.put("one")
items.put(None)
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "one\n")


@pytest.mark.parametrize("module", ["juggler.threading", "threading"])
def test_exit_waits_for_timers_that_are_no_daemons(module: str) -> None:
    done = run(f"""
from {module} import Timer
daemon = Timer(60, print, ("never",))
daemon.daemon = True
daemon.start()
cancelled = Timer(60, print, ("never",))
cancelled.start()
cancelled.cancel()
Timer(0.1, print, ("second",)).start()
Timer(0.05, print, ("first",)).start()
print("end", flush=True)
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "end\nfirst\nsecond\n")


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 starts no thread at exit")
@pytest.mark.parametrize("module", ["juggler.threading", "threading"])
def test_timers_that_are_started_while_the_interpreter_waits(module: str) -> None:
    done = run(f"""
from {module} import Timer
def again(left):
    print(left, flush=True)
    if left:
        Timer(0.01, again, (left - 1,)).start()
Timer(0.01, again, (2,)).start()
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "2\n1\n0\n")


def test_a_timer_that_fails_while_the_interpreter_waits() -> None:
    done = run("""
threading.Timer(0.02, lambda: 1 / 0).start()
threading.Timer(0.05, print, ("second",)).start()
""")
    assert done.returncode == 0
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout == "second\n"


def test_a_timer_cancelled_while_the_interpreter_waits_for_it() -> None:
    done = run("""
late = threading.Timer(600, print, ("never",))
late.start()
threading.Timer(0.05, late.cancel).start()
""")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_exit_waits_for_timers_that_are_just_becoming_due() -> None:
    done = run("""
# In one piece, unlike print.
write = sys.stdout.write
timers = [threading.Timer(0.05, write, (f"{number}\\n",)) for number in range(200)]
for timer in timers:
    timer.start()
until(lambda: timers[0].finished.is_set())
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(int, done.stdout.split())) == list(range(200))
