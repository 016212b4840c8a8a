"""Each example runs on the standard library and on juggler, prints the same, and leaves nothing."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNTIMES = {
    "stdlib": [sys.executable],
    "juggler": [sys.executable, "-m", "juggler", "run"],
}
HANG = 60
"""Seconds after which a program that has not ended is taken to hang."""

SMALL_RUNS = {
    "fetch_pages.py": (["--pages=40", "--workers=8", "--latency=0.005"], "pages   40"),
    "csv_pipeline.py": (["--rows=2000", "--capacity=16"], "invoices  2000"),
    "bounded_buffer.py": (["--items=3000", "--capacity=8"], "exactly once  yes"),
    "bank.py": (["--rounds=4", "--transfers=25"], "money conserved  yes"),
    "primes.py": (["--limit=100000", "--pieces=7"], "primes below 100000  9592"),
    "factorials.py": (["--rows=60"], "sums of digits divisible by nine  yes"),
    "photo_pipeline.py": (["--photos=3", "--height=240", "--width=402"], "photos  3"),
    "async_service.py": (["--letters=60", "--clients=3"], "good stamps  60"),
    "crawler.py": (["--pages=60", "--at-once=7", "--latency=0.002"], "limit kept  yes"),
    "chat_server.py": (
        ["--clients=5", "--lines=20"],
        "everybody heard everything in order  yes",
    ),
    "failing_member.py": (["--orders=300", "--tables=20"], "  given back on the way  20"),
    "graceful_shutdown.py": (
        ["--clients=7", "--jobs=100"],
        "every job begun was answered  yes",
    ),
    "download_files.py": (["--files=30"], "every file whole  yes"),
    "shared_counter.py": (["--rounds=500"], "nothing lost  yes"),
    "process_chain.py": (["--items=300", "--capacity=8"], "every stage ended well  yes"),
    "mixed_pipeline.py": (["--pages=60", "--latency=0.005"], "long pages   20"),
    "rate_limited_client.py": (["--orders=60"], "the careful client got everything  yes"),
    "race.py": (["--rounds=20"], "lost with a lock     none"),
}


def living(group: int) -> list[int]:
    """Return the processes of a process group that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may contain anything; the fields follow its last bracket.
            state, _parent, its_group, *_ = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(status.parent.name))
    return found


class Program:
    """An example in a process group of its own."""

    def __init__(self, runtime: str, file: str, arguments: Sequence[str], cache: Path) -> None:
        self.process = subprocess.Popen(
            [*RUNTIMES[runtime], str(EXAMPLES / file), *arguments],
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; return status, standard output and standard error."""
        try:
            stdout, stderr = self.process.communicate(timeout=HANG)
        finally:
            # multiprocessing's helpers end by themselves when they see that the program has.
            give_up = time.monotonic() + HANG
            while (left := living(self.process.pid)) and time.monotonic() < give_up:
                time.sleep(0.01)
            if left:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.communicate()
        assert left == [], "processes outlived the program"
        return self.process.returncode, stdout, stderr

    def wait_for_child(self) -> None:
        """Return once the program has started a process of its own."""
        give_up = time.monotonic() + HANG
        while len(living(self.process.pid)) < 2:
            if self.process.poll() is not None:
                pytest.fail(f"ended before it had a child: {self.finish()}")
            assert time.monotonic() < give_up, "started no child"
            time.sleep(0.01)


@pytest.mark.parametrize("file", SMALL_RUNS)
def test_prints_the_same_on_both_runtimes(file: str, tmp_path: Path) -> None:
    arguments, expected = SMALL_RUNS[file]
    if file == "photo_pipeline.py":
        pytest.importorskip("numpy", reason="numpy has no release for this Python")
    outputs = []
    for runtime in RUNTIMES:
        status, stdout, stderr = Program(runtime, file, arguments, tmp_path).finish()
        assert status == 0, stderr
        assert expected in stdout.splitlines()
        outputs.append(stdout)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_csv_output_depends_on_neither_threads_nor_batches(runtime: str, tmp_path: Path) -> None:
    outputs = set()
    for arguments in (["--transformers=1"], ["--transformers=4", "--capacity=2"], ["--batch=7"]):
        run = Program(runtime, "csv_pipeline.py", ["--rows=1000", *arguments], tmp_path).finish()
        assert run[0] == 0, run[2]
        outputs.add(run[1])
    assert len(outputs) == 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_csv_error_in_the_middle_ends_the_program(runtime: str, tmp_path: Path) -> None:
    # The queues hold far less than what follows the bad row: a stage that stopped would block all.
    arguments = ["--rows=2000", "--capacity=4", "--transformers=1", "--corrupt-row=50"]
    status, stdout, stderr = Program(runtime, "csv_pipeline.py", arguments, tmp_path).finish()
    assert status == 1
    assert stdout == ""
    assert "csv_pipeline.py: BadRowError: 50," in stderr


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_csv_reads_and_writes_the_files_that_it_is_given(runtime: str, tmp_path: Path) -> None:
    orders, invoices = tmp_path / "orders.csv", tmp_path / "invoices.csv"
    orders.write_text(
        "order_id,date,customer,country,product,quantity,unit_price\n"
        "1,2025-03-01,customer-1,DE,lamp,2,49.90\n"
        "2,2025-03-02,customer-2,AT,rug,10,100.00\n"
    )
    arguments = [f"--input={orders}", f"--output={invoices}"]
    status, _, stderr = Program(runtime, "csv_pipeline.py", arguments, tmp_path).finish()
    assert status == 0, stderr
    assert invoices.read_text().splitlines() == [
        "order_id,date,customer,country,net,vat,total",
        "1,2025-03-01,customer-1,DE,99.80,18.96,118.76",
        "2,2025-03-02,customer-2,AT,950.00,190.00,1140.00",
    ]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ctrl_c_ends_the_download_and_its_server(runtime: str, tmp_path: Path) -> None:
    arguments = ["--pages=5000", "--workers=4", "--latency=0.2"]
    program = Program(runtime, "fetch_pages.py", arguments, tmp_path)
    program.wait_for_child()
    program.process.send_signal(signal.SIGINT)
    status, stdout, stderr = program.finish()
    assert status == -signal.SIGINT, stderr
    assert stdout == ""
    assert "KeyboardInterrupt" in stderr


def test_a_killed_download_takes_its_server_with_it(tmp_path: Path) -> None:
    arguments = ["--pages=5000", "--workers=4", "--latency=0.2"]
    program = Program("stdlib", "fetch_pages.py", arguments, tmp_path)
    program.wait_for_child()
    program.process.kill()
    program.process.wait()
    give_up = time.monotonic() + HANG
    while living(program.process.pid) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert program.finish()[0] == -signal.SIGKILL


def test_page_server_answers_keeps_the_connection_and_ends_with_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from page_server import page_body

    command = [sys.executable, str(EXAMPLES / "page_server.py"), "--latency=0", "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(server.stdout.readline()))
        connection.connect()
        socket = connection.sock
        wanted = [("/page/7", 200, page_body(7)), ("/page/8", 200, page_body(8))]
        wanted += [("/page/x", 404, b"no such page\n"), ("/", 404, b"no such page\n")]
        for path, status, body in wanted:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, body)
            assert connection.sock is socket, "the server closed a connection that it should keep"
        connection.request("POST", "/page/7", b"body")
        assert connection.getresponse().status == 400
        connection.close()
        server.stdin.close()
        assert server.wait(HANG) == 0
    assert page_body(7) != page_body(8)


def test_the_deadlock_hangs_on_the_standard_library(tmp_path: Path) -> None:
    status, stdout, stderr = Program("stdlib", "deadlock.py", ["--timeout=1"], tmp_path).finish()
    assert status == 1
    assert stdout == ""
    assert stderr.startswith("Timeout (0:00:01)!")


def test_the_deadlock_is_an_exception_on_juggler(tmp_path: Path) -> None:
    status, stdout, stderr = Program("juggler", "deadlock.py", ["--timeout=60"], tmp_path).finish()
    assert status == 1
    assert stdout == ""
    assert "DeadlockError: " in stderr
    message = stderr.rpartition("DeadlockError: ")[2]
    for teller in ("teller_0", "teller_1"):
        assert teller in message, "both threads of the cycle are named"
