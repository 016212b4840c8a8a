"""`juggler advise` of what a program hands to processes, and to other pools."""

import itertools
import sys
from pathlib import Path

import pytest
from test_advise_command import advise, told

POOLS = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor

import juggler.futures
import juggler.multiprocessing

scale = None

def set_scale(number):
    global scale
    scale = number

def compute(number):
    assert os.getpid() != parent
    return scale * sum(n * n for n in range(number))

def compute_two(number, one):
    return compute(number)

def compute_once(number):
    return compute(number)

def wait(seconds):
    time.sleep(seconds)
    return seconds

def wait_also(seconds):
    time.sleep(seconds)
    return seconds

parent = os.getppid()
if __name__ == "__main__":
    parent = os.getpid()
    method, whose = sys.argv[1:]
    of = juggler.multiprocessing if whose == "juggler" else multiprocessing
    context = of.get_context(method)
    with context.Pool(2, set_scale, (2,)) as pool:
        print(*pool.map(compute, [20_000] * 8, chunksize=3))
        print(*pool.starmap_async(compute_two, iter([(20_000, 1)] * 4)).get())
        print(pool.apply(compute_once, (20_000,)))
        print(*pool.imap_unordered(wait, iter([0.01] * 6)))
    of = juggler.futures.ProcessPoolExecutor if whose == "juggler" else ProcessPoolExecutor
    with of(2, mp_context=context, initializer=set_scale, initargs=(2,)) as pool:
        print(*pool.map(compute, [20_000] * 6, chunksize=2))
        print(pool.submit(wait_also, 0.01).result())
"""
METHODS = list(itertools.product(("fork", "spawn", "forkserver"), ("", "juggler")))


@pytest.mark.parametrize(("method", "whose"), [*METHODS, ("zygote", "juggler")])
def test_calls_in_processes_are_watched_there(method: str, whose: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(POOLS)
    run = advise("--json", str(program), method, whose)
    assert run.returncode == 0, run.stderr
    number = str(2 * sum(n * n for n in range(20_000)))
    assert run.stdout.split() == [number] * 13 + ["0.01"] * 6 + [number] * 6 + ["0.01"], run.stderr
    rows = told(run)
    assert {name: row["calls"] for name, row in rows.items()} == {
        "compute": 14,
        "compute_two": 4,
        "compute_once": 1,
        "wait": 6,
        "wait_also": 1,
    }
    assert {row["handed_to"] for row in rows.values()} == {"process pool"}
    for name in ("compute", "compute_two", "compute_once"):
        assert rows[name]["kind"] == "computes, holding the GIL", rows[name]
        assert rows[name]["facts"]["obstacle"] is None
    assert rows["compute"]["facts"]["calls"] > 1  # not its chunks, and by one of the two workers
    for name in ("wait", "wait_also"):
        assert (rows[name]["kind"], rows[name]["model"]) == ("waits", "threads")


OTHERS = """
import contextvars, multiprocessing, threading, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import ThreadPool

import juggler

def target(seconds):
    time.sleep(seconds)

class Own(multiprocessing.Process):
    def run(self):
        time.sleep(0.01)

def in_thread_pool(seconds):
    time.sleep(seconds)

def in_context(seconds):
    time.sleep(seconds)

def later():
    time.sleep(0.01)

def mapped(seconds):
    time.sleep(seconds)

async def awaited(number):
    return number

seen = []

def remember(number):
    seen.append(number)

def left_open(seconds):
    time.sleep(seconds)

if __name__ == "__main__":
    multiprocessing.Process(target=target, args=(0.01,)).start()
    Own().start()
    with ThreadPool(2) as pool:
        pool.map(in_thread_pool, [0.01] * 4)
    threading.Thread(target=contextvars.copy_context().run, args=(in_context, 0.01)).start()
    threading.Timer(0.01, later).start()
    list(juggler.map(mapped, (0.01 for _ in range(10))))
    list(juggler.map(awaited, range(3)))
    with ProcessPoolExecutor(1) as pool:
        list(pool.map(remember, range(3)))
    pool = ProcessPoolExecutor(1)
    pool.submit(left_open, 0.01)
"""


def test_whatever_takes_it(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(OTHERS)
    run = advise("--json", str(program))
    assert run.returncode == 0, run.stderr
    rows = told(run)
    assert {name: (row["handed_to"], row["calls"]) for name, row in rows.items()} == {
        "target": ("process", 1),
        "Own.run": ("process", 1),
        "in_thread_pool": ("thread pool", 4),
        "in_context": ("thread", 1),
        "later": ("timer", 1),
        "mapped": ("juggler.map", 10),
        "awaited": ("event loop", 3),
        "remember": ("process pool", 3),
        "left_open": ("process pool", 1),
    }
    waits = rows.keys() - {"awaited", "remember"}
    assert {rows[name].get("kind") for name in waits} == {"waits"}, rows
    assert (
        rows["remember"]["stops"]
        == "its calls change the global 'seen', in each process for itself"
    )


@pytest.mark.skipif(sys.version_info < (3, 14), reason="InterpreterPoolExecutor came with 3.14")
def test_other_interpreters_are_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from concurrent.futures import InterpreterPoolExecutor\n"
        "with InterpreterPoolExecutor(1) as pool:\n"
        "    print(pool.submit(divmod, 7, 2).result(), *pool.map(abs, [-1, 2]))\n"
    )
    run = advise("--json", str(program))
    assert (run.returncode, run.stdout) == (0, "(3, 1) 1 2\n"), run.stderr
    rows = told(run)
    assert rows["divmod"]["handed_to"] == "interpreter pool" and "kind" not in rows["divmod"]


def test_a_traceback_has_nothing_but_the_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("def fail():\n    raise KeyError('which')\nfail()\n")
    run = advise(str(program))
    assert run.stderr.startswith(
        f'Traceback (most recent call last):\n  File "{program}", line 3, in <module>\n'
    )


CROWD = """
import threading, time

def compute():
    end = time.thread_time() + 0.2
    while time.thread_time() < end:
        pass

def watch():
    time.sleep(0.3)

threads = [threading.Thread(target=compute) for _ in range(4)]
threads.append(threading.Thread(target=watch))
for thread in threads:
    thread.start()
"""


def test_threads_that_wait_for_each_other_s_gil_do_not_count_as_waiting(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(CROWD)
    rows = told(advise("--json", str(program)))
    assert (rows["compute"]["calls"], rows["watch"]["calls"]) == (4, 1)
    assert "waits" not in rows["compute"].get("kind", "")
