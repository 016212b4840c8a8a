"""Where the system gives no more: descriptors, processes, memory files, address space.

Each program makes everything that can be made of processes, again and again, with a little more of
what is scarce each time: every place that may fail fails once. What is asked for is a result or an
error that says why; never a hang, and nothing left behind.
"""

import ctypes
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

METHODS = ["fork", "spawn", "forkserver", "zygote"]

PROGRAM = """
import contextlib, faulthandler, gc, os, resource, sys, threading, time, warnings
from concurrent.futures.process import BrokenProcessPool

from juggler import multiprocessing
from juggler.futures import ProcessPoolExecutor

warnings.simplefilter("ignore")
PATIENCE = 30
ERRORS = (OSError, BrokenProcessPool, multiprocessing.ProcessError, EOFError, MemoryError)

def with_executor():
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(20)]
        large = pool.submit(bytes, 300_000)
        assert [future.result() for future in futures] == [2**n for n in range(20)]
        assert len(large.result()) == 300_000

def with_pool():
    with context.Pool(2) as pool:
        assert pool.map(abs, range(-20, 0)) == [*range(20, 0, -1)]
        assert pool.apply(len, (b"x" * 300_000,)) == 300_000
        pool.close()
        pool.join()

def with_process():
    process = context.Process(target=abs, args=(1,))
    process.start()
    process.join()
    exitcode = process.exitcode
    process.close()
    if exitcode:
        raise OSError(f"the child told why, and exited with {exitcode}")

def with_queues():
    for make in context.Queue, context.JoinableQueue, context.SimpleQueue:
        queue = make()
        queue.put(b"x" * 300_000)
        assert len(queue.get()) == 300_000
    ours, theirs = context.Pipe()
    with ours, theirs:
        theirs.send("text")
        assert ours.recv() == "text"

def with_locks():
    for make in context.Lock, context.RLock, context.Semaphore, context.Condition:
        with make():
            pass
    event = context.Event()
    event.set()
    assert event.wait()
    assert context.Value("i", 3).value == 3
    assert context.Array("i", 30_000)[29_999] == 0
    context.Barrier(1).wait()

def with_manager():
    with context.Manager() as manager:
        shared = manager.dict()
        shared["key"] = 1
        assert shared.copy() == {"key": 1}

def remains():
    gc.collect()
    entries = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    # The heap of what processes share, a server and its tracker are made once, and stay.
    kept = "/memfd:juggler (", "socket:", "pipe:", "anon_inode:[pidfd]"
    opened = []
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):  # a thread of a pool closes what it had
            opened.append(os.readlink(entry))
    return [name for name in opened if not name.startswith(kept)], len(opened)

def attempt(action):
    "Whether it succeeds; otherwise it raises what says why."
    try:
        action()
    except ERRORS as error:
        assert str(error) or isinstance(error, (MemoryError, EOFError)), repr(error)
        return False
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        return False
    return True

def sweep(action, limits, limited):
    limits = [*limits]
    action()
    before, count = remains()
    failures, successes, most = 0, 0, count
    for limit in limits:
        old = resource.getrlimit(limited)
        resource.setrlimit(limited, (limit(), old[1]))
        try:
            succeeded = attempt(action)
        finally:
            resource.setrlimit(limited, old)
        failures += not succeeded
        successes = successes + 1 if succeeded else 0
        end = time.monotonic() + PATIENCE
        while (now := remains())[0] != before or now[1] > most + 4:
            assert time.monotonic() < end, (limits.index(limit), before, count, now)
            time.sleep(0.01)
        if successes == 3:
            break
    action()
    print(action.__name__, failures > 0, successes > 0)

def descriptors(free):
    "The limit that leaves so many."
    def limit():
        used = {int(name) for name in os.listdir("/proc/self/fd")}
        numbers = (number for number in range(1 << 16) if number not in used)
        for _ in range(free):
            next(numbers)
        return next(numbers)
    return limit

def processes(free):
    def limit():
        used = 0
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                lines = open(f"/proc/{name}/status").read().splitlines()
            except (OSError, ValueError):
                continue
            fields = dict(line.split(":", 1) for line in lines)
            used += (int(fields["Uid"].split()[0]) == os.getuid()) * int(fields["Threads"])
        return used + free
    return limit

def address_space(free):
    def limit():
        pages = int(open("/proc/self/statm").read().split()[0])
        return pages * resource.getpagesize() + free
    return limit

if __name__ == "__main__":
    faulthandler.dump_traceback_later(100, exit=True)
    context = multiprocessing.get_context(sys.argv[1])
    for name in sys.argv[3].split(","):
        action = globals()["with_" + name]
        if sys.argv[2] == "descriptors":
            sweep(action, [descriptors(n) for n in range(0, 60, int(sys.argv[4]))],
                  resource.RLIMIT_NOFILE)
        elif sys.argv[2] == "processes":
            sweep(action, [processes(n) for n in range(16)], resource.RLIMIT_NPROC)
        elif sys.argv[2] == "files":
            sizes = [0, 1 << 12, 1 << 20, 1 << 26, 1 << 30, 1 << 34, 1 << 35, 1 << 36]
            sweep(action, [lambda size=size: size for size in sizes], resource.RLIMIT_FSIZE)
        elif sys.argv[2] == "memory":
            sizes = [0, 1 << 20, 1 << 24, 1 << 27, 1 << 30, 1 << 34, 1 << 35, 1 << 36, 1 << 37]
            sweep(action, map(address_space, sizes), resource.RLIMIT_AS)
        else:
            action()
            print(name)
    faulthandler.cancel_dump_traceback_later()
"""

ACTIONS = ["executor", "pool", "process", "queues", "locks", "manager"]


def _be_limited() -> None:
    """Have the kernel count this user's processes, which it does not for root."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    drop, admin, resources = 24, 21, 24
    for capability in (admin, resources):
        if libc.prctl(drop, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot give up a capability")
    # A number of its own, so that nobody else's processes count.
    os.setresuid(random.randrange(1 << 20, 1 << 21), 0, 0)


def run(programs: Any, *arguments: str, before: Callable[[], None] | None = None) -> str:
    path: Path = programs.folder / "program.py"
    path.write_text(PROGRAM)
    process = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=programs.folder,
        env={**os.environ, "JUGGLER_TEST_MARK": programs.mark},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=before,
        timeout=110,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-6000:]
    programs.expect_none_left()
    return process.stdout


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("action", ACTIONS)
def test_no_more_descriptors(programs: Any, method: str, action: str) -> None:
    # Where a server serves others, or children begin from nothing, some of the limits must do.
    step = "1" if method in ("fork", "zygote") or action in ("queues", "locks") else "4"
    output = run(programs, method, "descriptors", action, step)
    # Locks have their heap already, and need no more.
    assert output == f"with_{action} {action != 'locks'} True\n"


@pytest.mark.parametrize("method", METHODS)
def test_no_more_processes(programs: Any, method: str) -> None:
    actions = ["executor", "pool", "process", "manager"]
    output = run(programs, method, "processes", ",".join(actions), before=_be_limited)
    # A server keeps the limit that it began with.
    fails = method in ("fork", "spawn")
    own = f"with_process {fails} True\nwith_manager {fails} True\n"
    assert output == f"with_executor True True\nwith_pool True True\n{own}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["files", "memory"])
def test_no_more_shared_memory(programs: Any, method: str, what: str) -> None:
    # A server starts threads by `Thread.start`, which waits for ever for one that dies of too
    # little memory before it runs.
    actions = ACTIONS if what == "files" else ACTIONS[:-1]
    output = run(programs, method, what, ",".join(actions))
    assert [line.split()[0] for line in output.splitlines()] == [f"with_{a}" for a in actions]
    assert "with_executor True True" in output


def test_a_full_dev_shm_is_not_even_noticed(programs: Any) -> None:
    path = programs.folder / "program.py"
    path.write_text(PROGRAM)
    full = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4k /dev/zero > /dev/shm/full"
    isolated = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else []), "sh", "-c"]
    if subprocess.run([*isolated, full], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    for method in METHODS:
        command = f'{full} && exec "$0" program.py {method} nothing {",".join(ACTIONS)}'
        process = subprocess.run(
            [*isolated, command, sys.executable],
            cwd=programs.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (process.returncode, process.stderr) == (0, "")
        assert process.stdout.split() == ACTIONS
