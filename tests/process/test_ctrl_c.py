"""One real Ctrl-C ends a program that is blocked, as it ends one of the standard library's."""

import signal
import subprocess
import sys
import time

import pytest

WAITS = {
    "lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "rlock": (
        "lock = threading.RLock(); t = threading.Thread(target=lock.acquire); t.start(); t.join();"
        " lock.acquire()"
    ),
    "semaphore": "threading.Semaphore(0).acquire()",
    "event": "threading.Event().wait()",
    "condition": "c = threading.Condition(); c.acquire(); c.wait()",
    "barrier": "threading.Barrier(2).wait()",
    "reader": "lock = threading.ReadWriteLock(); lock.acquire_write(); lock.acquire_read()",
    "get": "queue.Queue().get()",
    "put": "q = queue.Queue(1); q.put(1); q.put(2)",
    "join": "q = queue.Queue(); q.put(1); q.join()",
    "long": "threading.Event().wait(10 ** 6)",
}


def sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c(name: str) -> None:
    program = f"from juggler import queue, threading\nprint('ready', flush=True)\n{WAITS[name]}"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # Asleep several times in a row: it waits, and not only for a page of its program.
        for _ in range(5):
            while not sleeps(process.pid):
                time.sleep(0.001)
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().splitlines()[-1].startswith("KeyboardInterrupt")
