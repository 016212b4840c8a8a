"""Kills workers of a pool at random while calls run, and looks at what becomes of each call.

``python tests/process/kill_at_random.py`` for 1,000 kills during 100,000 calls by each start
method; ``--large`` then sends arguments and results of 5 GB too. A shorter run is among the tests.
"""

import argparse
import faulthandler
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import leftovers
import pool_calls as calls

from juggler import multiprocessing
from juggler.futures import ProcessPoolExecutor, WorkerDied, wait

METHODS = ["fork", "spawn", "forkserver", "zygote"]
WORKERS = 4
# A retried call may be killed again and again: how often a call is tried in all.
RETRIES = 2
# So many calls are not done at a time, so that kills hit calls of all kinds, waiting ones too.
AHEAD = 6000


def call(number: int, generator: random.Random) -> tuple[Any, ...]:
    """A call that `number` can be told from: some with arguments that don't fit their slots."""
    kind = generator.random()
    if kind < 0.02:
        return calls.identity, number.to_bytes(8, "little") * generator.randrange(200, 40_000)
    if kind < 0.1:
        return calls.sleep_then, 0.002, number
    return calls.identity, number


def check(number: int, result: Any) -> None:
    if isinstance(result, bytes):
        assert result == number.to_bytes(8, "little") * (len(result) // 8)
    else:
        assert result == number


def reason(death: WorkerDied) -> str:
    assert death.pid and death.exitcode is not None, death
    return f"lost: {str(death).split(' ', 3)[3]}"


def kill_workers(pool: Any, kills: int, generator: random.Random, submitted: Any) -> None:
    """Kill `kills` workers, spread over the submission, by signals that nobody can catch."""
    done = 0
    while done < kills:
        if done > kills * submitted():
            time.sleep(0.001)
            continue
        # If none lives to take a call, the pool gives up.
        workers = pool.stats().workers
        pids = [worker.pid for worker in workers if worker.pid and (worker.busy or worker.tasks)]
        if pids:
            with suppress(ProcessLookupError):
                pid = generator.choice(pids)
                os.kill(pid, generator.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS]))
                done += 1
        time.sleep(generator.random() * 0.004)


def run(method: str, tasks: int, kills: int, seed: int) -> Counter[str]:
    """How the calls ended. Raises for one that ended otherwise than by its result or a reason."""
    generator = random.Random(seed)
    ends: Counter[str] = Counter()
    context = multiprocessing.get_context(method)
    # A forked worker would have pytest print its stack.
    quiet = faulthandler.disable
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=quiet) as pool:
        pool.submit(calls.identity, 0).result()
        retried = pool.options(retries=RETRIES)
        pending: dict[Any, int] = {}
        at = 0
        arguments = pool, kills, random.Random(seed + 1), lambda: at / tasks
        killer = threading.Thread(target=kill_workers, args=arguments)
        killer.start()

        def settle(futures: Any) -> None:
            for future in futures:
                number = pending.pop(future)
                try:
                    check(number, future.result())
                    ends["completed"] += 1
                except WorkerDied as died:
                    ends[reason(died)] += 1

        while at < tasks:
            view = retried if at % 2 else pool
            pending[view.submit(*call(at, generator))] = at
            at += 1
            if len(pending) >= AHEAD:
                settle(wait(list(pending)[: AHEAD // 2]).done & pending.keys())
        settle(wait(pending).done)
        killer.join()
        assert not pending
        assert pool.submit(calls.identity, "on").result() == "on"
    assert sum(ends.values()) == tasks
    # One call is lost with a death at most.
    assert tasks - ends["completed"] <= kills
    return ends


def remains() -> tuple[Counter[str], Counter[str], int, Counter[str]]:
    """What a run could leave: open files, threads, processes, named memory."""
    kinds = Counter(name.split(":")[0] for name in leftovers.open_files().elements())
    threads, children = leftovers.threads(), leftovers.children()
    return kinds, threads, len(children), leftovers.shared_memory()


def send_large(method: str, size: int) -> None:
    """An argument and a result beyond what 32 bits can count."""
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(len, bytearray(size)).result() == size
        result = pool.submit(bytearray, size).result()
        assert len(result) == size and not any(result[:: 1 << 20])
        del result
        assert pool.submit(calls.identity, "on").result() == "on"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--method", choices=METHODS, action="append")
    parser.add_argument("--large", action="store_true", help="send 5 GB, which takes 20 GB")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    for method in options.method or METHODS:
        run(method, 100, 1, options.seed)  # what is started once and stays
        before = remains()
        begin = time.monotonic()
        ends = run(method, options.tasks, options.kills, options.seed)
        seconds = time.monotonic() - begin
        print(f"{method}: {dict(ends)}, {seconds:.0f} s", flush=True)
        while (after := remains()) != before:
            if time.monotonic() - begin > seconds + 30:
                sys.exit(f"{method}: left behind: {before} became {after}")
            time.sleep(0.1)
        if options.large:
            send_large(method, 5 * 10**9)
            print(f"{method}: 5 GB there and back", flush=True)


if __name__ == "__main__":
    main()
