"""The zygote: what a child has, what the zygote survives, and that nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., str]

MAIN_ONLY = """
from juggler import multiprocessing as mp
import sys

print("main", flush=True)
base = 10

def function(x):
    return x + base

class Adder(mp.Process):
    def __init__(self, pipe):
        super().__init__()
        self.pipe = pipe
    def run(self):
        self.pipe.send(("subclass", function(5), type(self).__name__))

def closure(step):
    return lambda pipe: pipe.send(("closure", function(step)))

ours, theirs = mp.Pipe()
targets = [
    (lambda pipe: pipe.send(("lambda", function(1)))),
    closure(2),
    lambda pipe: pipe.send(("main is empty", hasattr(sys.modules["__main__"], "function"))),
]
for target in targets:
    process = mp.Process(target=target, args=(theirs,))
    process.start()
    print(*ours.recv())
    process.join()
process = Adder(theirs)
process.start()
print(*ours.recv())
process.join()
"""
MAIN_ONLY_OUTPUT = "main\nlambda 11\nclosure 12\nmain is empty False\nsubclass 15 Adder\n"


@pytest.mark.parametrize("way", ["file", "-c", "stdin"])
def test_no_guard_is_needed(run_program: Run, way: str) -> None:
    options = {"file": [], "-c": ["-c", MAIN_ONLY], "stdin": ["-"]}[way]
    stdin = MAIN_ONLY if way == "stdin" else ""
    assert run_program(MAIN_ONLY, *options, stdin=stdin) == MAIN_ONLY_OUTPUT


def test_what_cannot_travel_is_an_error(run_program: Run) -> None:
    program = """
from juggler import multiprocessing as mp
import pickle
try:
    mp.Process(target=print, args=((i for i in range(3)),)).start()
except pickle.PicklingError as error:
    print("generator" in str(error))
process = mp.Process(target=print, args=("next",))
process.start()
process.join()
"""
    assert run_program(program).splitlines() == ["True", "next"]


def test_imports_come_with_the_zygote(programs: Any, run_program: Run) -> None:
    (programs.folder / "first.py").write_text("import os; imported_by = os.getpid()")
    (programs.folder / "second.py").write_text("import os; imported_by = os.getpid()")
    program = """
import os
import first
from juggler import multiprocessing as mp

def child(pipe, name):
    import importlib, sys
    known = name in sys.modules
    pipe.send((known, importlib.import_module(name).imported_by == os.getppid()))

ours, theirs = mp.Pipe()
unhurried = mp.Process(target=print, args=("unhurried",))  # the very first doesn't wait for imports
unhurried.start()
unhurried.join()
for name in "first", "second":
    __import__(name)
    process = mp.Process(target=child, args=(theirs, name))
    process.start()
    print(name, *ours.recv())
    process.join()
"""
    assert run_program(program) == "unhurried\nfirst True True\nsecond True True\n"


THREADED = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""


def test_a_module_that_starts_a_thread_is_passed_over(programs: Any, run_program: Run) -> None:
    (programs.folder / "threaded.py").write_text(THREADED)
    (programs.folder / "needs_threaded.py").write_text(
        "try:\n    import threaded\nexcept Exception:\n    pass\n"
    )
    (programs.folder / "broken.py").write_text("broken = 1\n")
    (programs.folder / "innocent.py").write_text("")
    program = """
import sys, time
from juggler import multiprocessing as mp
from juggler.multiprocessing import zygote

def wait(pipe):
    pipe.recv()
    sys.exit(7)

def modules(pipe):
    pipe.send([n in sys.modules for n in ("threaded", "needs_threaded", "broken", "innocent")])
    import threading, needs_threaded
    pipe.send(threading.active_count())

keep, theirs = mp.Pipe()
survivor = mp.Process(target=wait, args=(theirs,))
survivor.start()

import broken, needs_threaded, innocent
open(broken.__file__, "w").write("raise SystemExit('no')")
ours, theirs = mp.Pipe()
process = mp.Process(target=modules, args=(theirs,))
process.start()
print(*ours.recv())
print(ours.recv())
process.join()
print(process.exitcode)

assert survivor.is_alive()
keep.send(None)
survivor.join()
print(survivor.exitcode)
errors = zygote.preload_errors()
print(sorted(n for n in errors if n in ("threaded", "needs_threaded", "broken", "innocent")))
"""
    assert run_program(program).splitlines() == [
        "False False False True",
        "2",
        "0",
        "7",
        "['broken', 'needs_threaded', 'threaded']",
    ]


def test_children_follow_the_program(programs: Any, run_program: Run) -> None:
    program = """
import os, sys
from juggler import multiprocessing as mp

def child(pipe):
    mask = os.umask(0)
    pipe.send((os.environ.get("ADDED"), os.environ.get("HOME"), os.getcwd(), sys.argv, oct(mask),
               "/added" in sys.path, sorted(os.sched_getaffinity(0))))
    print("printed by the child", flush=True)

ours, theirs = mp.Pipe()

def start():
    process = mp.Process(target=child, args=(theirs,))
    process.start()
    process.join()
    return ours.recv()

start()
os.environ["ADDED"] = "yes"
del os.environ["HOME"]
os.mkdir("inner")
os.chdir("inner")
sys.argv[1:] = ["changed"]
os.umask(0o027)
sys.path.append("/added")
cpu = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, [cpu])
sys.stdout.flush()
file = os.open("output", os.O_CREAT | os.O_WRONLY)
saved = os.dup(1)
os.dup2(file, 1)
result = start()
os.dup2(saved, 1)
print(open("output").read(), end="")
assert result == ("yes", None, os.getcwd(), sys.argv, "0o27", True, [cpu]), result
"""
    assert run_program(program) == "printed by the child\n" * 2


def test_a_program_on_other_threads(run_program: Run) -> None:
    # Locks that other threads hold all the time would be held for ever in a forked child.
    program = """
import logging, threading
from juggler import multiprocessing as mp

lock = threading.Lock()
stop = threading.Event()
handler = logging.StreamHandler(open("/dev/null", "w"))
logging.getLogger("noise").addHandler(handler)

def noise():
    while not stop.is_set():
        with lock:
            logging.getLogger("noise").warning("x")

def child():
    logging.getLogger("noise").warning("from the child")

def start():
    for _ in range(5):
        process = mp.Process(target=logging.getLogger("noise").getChild, args=("x",))
        process.start()
        process.join()
        codes.append(process.exitcode)

codes = []
noisy = [threading.Thread(target=noise) for _ in range(3)]
starters = [threading.Thread(target=start) for _ in range(4)]
for thread in noisy + starters:
    thread.start()
for thread in starters:
    thread.join()
# The thread that started the zygote has ended; the zygote has not.
start()
stop.set()
print(codes == [0] * 25)
"""
    assert run_program(program) == "True\n"


def test_everybody_who_waits_gets_the_status(run_program: Run) -> None:
    program = """
import sys, threading
from juggler import multiprocessing as mp
process = mp.Process(target=sys.exit, args=(9,))
process.start()
codes = []
def wait():
    process.join()
    codes.append(process.exitcode)
threads = [threading.Thread(target=wait) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(codes)
"""
    assert run_program(program) == f"{[9] * 8}\n"


def test_no_descriptor_is_lost(run_program: Run) -> None:
    program = """
import os
from juggler import multiprocessing as mp
from juggler.multiprocessing import zygote

def links(pid):
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}").partition(":")[0])
        except FileNotFoundError:
            pass
    return tuple(sorted(found))

def child(pipe):
    pipe.send(links("self"))

def start():
    ours, theirs = mp.Pipe()
    process = mp.Process(target=child, args=(theirs,))
    process.start()
    in_child = ours.recv()
    process.join()
    process.close()
    ours.close()
    theirs.close()
    return in_child, links("self")

start()
counts = {start() for _ in range(20)}
assert len(counts) == 1, counts
# The zygote sends a child's status before it closes what it held for it.
while len(links(zygote._zygote._pid)) > len(("streams", 1, 2, "control", "parent", "tracker")):
    pass
"""
    assert run_program(program) == ""


def test_a_zygote_that_died_is_replaced(run_program: Run) -> None:
    program = """
import os, signal, time
from juggler import multiprocessing as mp
from juggler.multiprocessing import zygote

process = mp.Process(target=time.sleep, args=(1000,))
process.start()
first = zygote._zygote._pid
os.kill(first, signal.SIGKILL)
process.join()
print(process.exitcode)
process = mp.Process(target=print, args=("again",))
process.start()
process.join()
assert zygote._zygote._pid != first

os.kill(zygote._zygote._pid, signal.SIGSTOP)
import threading
process = mp.Process(target=print, args=("never",))
def kill():
    time.sleep(0.1)
    os.kill(zygote._zygote._pid, signal.SIGKILL)
threading.Thread(target=kill).start()
try:
    process.start()
except mp.ProcessError as error:
    print("died" in str(error))
process = mp.Process(target=print, args=("once more",))
process.start()
process.join()
"""
    assert run_program(program) == "-9\nagain\nTrue\nonce more\n"


def test_a_fork_has_a_zygote_of_its_own(run_program: Run) -> None:
    program = """
import os, sys
from juggler import multiprocessing as mp
from juggler.multiprocessing import zygote

def child(pipe):
    pipe.send(os.getppid())

def start():
    ours, theirs = mp.Pipe()
    process = mp.Process(target=child, args=(theirs,))
    process.start()
    mother = ours.recv()
    process.join()
    assert process.exitcode == 0 and mother == zygote._zygote._pid
    return mother

first = start()
pid = os.fork()
if pid == 0:
    os._exit(0 if start() != first else 1)
assert os.waitpid(pid, 0)[1] == 0
assert start() == first

def nested(pipe):
    process = mp.Process(target=child, args=(pipe,))
    process.start()
    process.join()
    sys.exit(process.exitcode)

ours, theirs = mp.Pipe()
process = mp.Process(target=nested, args=(theirs,))
process.start()
assert ours.recv() != first
process.join()
assert process.exitcode == 0
"""
    assert run_program(program) == ""


def test_limits_are_errors(run_program: Run) -> None:
    program = """
import os
from juggler.multiprocessing import zygote
file = os.open("/dev/null", os.O_RDONLY)
try:
    zygote.fork(b"", [file] * 300)
except ValueError as error:
    print(error)
before = len(os.listdir("/proc/self/fd"))
child = zygote.fork(b"", [file] * 247)
assert child.status.recv(4) == b"\\1\\0\\0\\0"
"""
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert process.stdout == "300 descriptors: no more than 247 travel\n"
    assert "EOFError" in process.stderr  # the child, which got no payload


def test_the_tracker_starts_when_there_is_something_to_track(run_program: Run) -> None:
    program = """
import os
from juggler import multiprocessing as mp
from multiprocessing import resource_tracker

def children(pid):
    return [int(n) for n in open(f"/proc/{pid}/task/{pid}/children").read().split()]

def quiet():
    pass

def share(pipe):
    from multiprocessing.shared_memory import SharedMemory
    memory = SharedMemory(create=True, size=10)
    memory.buf[0] = 7
    pipe.send(memory.name)
    memory.close()

process = mp.Process(target=quiet)
process.start()
process.join()
(mother,) = children(os.getpid())
assert children(mother) == []
ours, theirs = mp.Pipe()
process = mp.Process(target=share, args=(theirs,))
process.start()
name = ours.recv()
process.join()
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(name)
print(memory.buf[0], len(children(mother)))
memory.close()
memory.unlink()
"""
    assert run_program(program) == "7 1\n"


@pytest.mark.parametrize("target", ["time.sleep(1000)", "busy()", "nest()"])
@pytest.mark.parametrize("starter", ["main", "thread"])
def test_nothing_outlives_a_killed_parent(programs: Any, target: str, starter: str) -> None:
    program = f"""
import threading, time
from juggler import multiprocessing as mp

def busy():
    while True:
        pass

def nest():
    process = mp.Process(target=time.sleep, args=(1000,))
    process.start()
    process.join()

def child(pipe):
    pipe.send(1)
    {target}

def start():
    ours, theirs = mp.Pipe()
    for _ in range(2):
        mp.Process(target=child, args=(theirs,)).start()
        ours.recv()

if {starter == "thread"}:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
else:
    start()
print("ready", flush=True)
time.sleep(1000)
"""
    process = programs.start(program)
    assert process.stdout.readline() == "ready\n"
    assert len(programs.alive()) >= 4
    process.kill()
    programs.expect_none_left()


def test_ctrl_c_ends_everything(programs: Any) -> None:
    program = """
import time
from juggler import multiprocessing as mp

def child(pipe):
    pipe.send(1)
    time.sleep(1000)

ours, theirs = mp.Pipe()
processes = [mp.Process(target=child, args=(theirs,)) for _ in range(3)]
for process in processes:
    process.start()
    ours.recv()
print("ready", flush=True)
for process in processes:
    process.join()
"""
    process = programs.start(program)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, errors = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGINT
    # Of the program and its children; the zygote says nothing.
    assert errors.count("KeyboardInterrupt") == 4
    assert ", in _receive" not in errors
    programs.expect_none_left()


def test_ctrl_c_while_the_zygote_starts(programs: Any) -> None:
    (programs.folder / "slow.py").write_text(
        "import sys, time\nif 'juggler.multiprocessing._template' in sys.modules:\n"
        "    print('slow', flush=True)\n    time.sleep(0.5)\n"
    )
    program = """
from juggler import multiprocessing as mp
process = mp.Process(target=int)
process.start()
process.join()
import slow
mp.Process(target=int).start()
"""
    process = programs.start(program)
    assert process.stdout.readline() == "slow\n"
    time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    programs.expect_none_left()


INTERRUPTED = """
import os, signal, time
from juggler import multiprocessing as mp

def child(pipe):
    caught = []
    signal.signal(signal.SIGINT, lambda *_: caught.append("caught"))
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    while before and not caught:
        time.sleep(0.01)
    pipe.send((*(signal.Signals(number).name for number in before), *caught))

for blocked in ((signal.SIGINT,), (signal.SIGINT, signal.SIGUSR1), ()):
    ours, theirs = mp.Pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    process = mp.Process(target=child, args=(theirs,))
    process.start()
    if blocked:
        os.kill(process.pid, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    print(*ours.recv())
    process.join()
"""


def test_a_child_that_is_not_ready_keeps_its_interrupt(run_program: Run) -> None:
    expected = "SIGINT caught\nSIGINT SIGUSR1 caught\n\n"
    assert run_program(INTERRUPTED) == expected
