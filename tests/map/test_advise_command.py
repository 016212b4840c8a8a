"""`juggler advise program.py`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def advise(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "juggler", "advise", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def told(run: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    return {row["function"]: row for row in rows}


def test_a_program_that_chose_wrongly_is_told() -> None:
    run = advise("--json", str(ROOT / "examples/wrong_choice.py"), "--rounds=20")
    assert (run.returncode, run.stdout) == (0, "1709 primes\n20 answers\n"), run.stderr
    rows = told(run)
    assert rows["count_primes"]["kind"] == "computes, holding the GIL"
    assert rows["count_primes"]["handed_to"] == "thread pool"
    assert rows["count_primes"]["gains"]["4"] > 2
    assert (rows["wait"]["kind"], rows["wait"]["model"]) == ("waits", "threads")
    assert rows["wait"]["handed_to"] == "process pool"


PROGRAM = """
import asyncio, sys, threading, time
from juggler import futures

def watch(seconds):
    time.sleep(seconds)

def fail(number):
    raise ValueError(number)

async def answer():
    await asyncio.sleep(0.01)

async def main():
    await asyncio.gather(answer(), answer())

threads = [threading.Thread(target=watch, args=(0.02,)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with futures.ThreadPoolExecutor(2) as pool:
    print(type(pool.submit(fail, 1).exception()).__name__)
    print(*pool.map(len, ["a", "bc"]))
asyncio.run(main())
print(sys.argv[1:])
sys.exit(3)
"""


def test_everything_that_is_handed_over_is_seen(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = advise("--json", str(program), "--its", "own")
    assert run.returncode == 3, run.stderr
    assert run.stdout == "ValueError\n1 2\n['--its', 'own']\n"
    rows = told(run)
    assert {name: row["handed_to"] for name, row in rows.items()} == {
        "watch": "thread",
        "fail": "thread pool",
        "len": "thread pool",
        "main": "event loop",
        "answer": "event loop",
    }
    assert (rows["watch"]["kind"], rows["watch"]["calls"]) == ("waits", 3)
    assert rows["answer"]["model"] == "loop"
    assert "kind" not in rows["fail"]


OWN_RUN = """\
import asyncio, threading, time

class Watcher(threading.Thread):
    def run(self):
        time.sleep(0.02)
        print(self.name)

def load(seconds):
    time.sleep(seconds)

watcher = Watcher(name="its own")
watcher.start()
watcher.join()
asyncio.run(asyncio.to_thread(load, 0.02))
"""


def test_what_a_thread_of_an_own_class_runs_is_seen_and_what_a_loop_gives_to_a_thread(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(OWN_RUN)
    run = advise("--json", str(program))
    assert run.stdout == "its own\n", run.stderr
    rows = told(run)
    assert rows["Watcher.run"]["handed_to"] == "thread"
    assert rows["load"]["handed_to"] == "thread pool"
    assert {rows[name]["kind"] for name in ("Watcher.run", "load")} == {"waits"}


def test_the_table(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=[0.01]).start()"
    )
    run = advise(str(program))
    assert run.returncode == 0
    assert "sleep" in run.stderr and "should run" in run.stderr and "waits" in run.stderr
    program.write_text("")
    assert "handed no function to anything" in advise(str(program)).stderr


def test_a_program_that_fails_fails(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise KeyError('which')")
    run = advise(str(program))
    assert run.returncode == 1
    assert "KeyError: 'which'" in run.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which program?"),
        (["--jsn", "x.py"], "no such option: --jsn"),
        (["missing.py"], "missing.py: No such file"),
    ],
)
def test_a_wrong_command_line(words: list[str], says: str) -> None:
    run = advise(*words)
    assert run.returncode == 2
    assert says in run.stderr


LOOPS = """\
import sys, time
import joblib, juggler.joblib

def count(limit):
    return sum(range(limit))

def wait(seconds):
    time.sleep(seconds)

if __name__ == "__main__":
    with joblib.parallel_config(backend=sys.argv[1], n_jobs=2):
        print(sum(joblib.Parallel()(joblib.delayed(count)(100_000) for _ in range(8))))
        joblib.Parallel()(joblib.delayed(wait)(seconds=0.01) for _ in range(8))
    print(joblib.Parallel(n_jobs=1)(joblib.delayed(abs)(-number) for number in range(3)))
"""


@pytest.mark.parametrize(
    ("backend", "handed_to"),
    [
        ("loky", "process pool"),
        ("multiprocessing", "process pool"),
        ("juggler", "process pool"),
        ("threading", "thread pool"),
    ],
)
def test_the_functions_of_joblib_s_loops_are_seen_and_not_its_batches(
    backend: str, handed_to: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(LOOPS)
    run = advise("--json", str(program), backend)
    assert (run.returncode, run.stdout) == (0, "39999600000\n[0, 1, 2]\n"), run.stderr
    rows = told(run)
    assert {name: (row["handed_to"], row["calls"]) for name, row in rows.items()} == {
        "count": (handed_to, 8),
        "wait": (handed_to, 8),
    }
    assert rows["count"]["kind"].startswith("computes")
    assert rows["wait"]["kind"] == "waits"
