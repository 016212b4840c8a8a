"""The command line of juggler itself: help, errors, options, and what a start loads."""

import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
JUGGLER = [sys.executable, "-m", "juggler"]

WAITS = """\
import atexit, queue, sys, threading, time
atexit.register(print, "at exit")
channel = queue.Queue()


def end():
    threading.main_thread().join()
    print("thread ends")


threading.Thread(target=lambda: (time.sleep(0.05), channel.put(1), end())).start()
channel.get()
print("program ends", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--help"], ["usage: juggler <command>", "run ", "examples:", "exit status:"]),
        (["-h"], ["usage: juggler <command>"]),
        (["run", "--help"], ["usage: juggler run", "--report", "examples:", "exit status:"]),
        (["run", "-h"], ["usage: juggler run"]),
        (["--version"], [f"juggler {version('juggler')}\n"]),
        (["-V"], [f"juggler {version('juggler')}\n"]),
    ],
)
def test_help_and_version(run: Run, words: list[str], expected: list[str]) -> None:
    done = run([*JUGGLER, *words])
    assert (done.returncode, done.stderr) == (0, "")
    for text in expected:
        assert text in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "which command?"),
        (["rnu", "x.py"], "no such command: rnu\ndid you mean `juggler run`?"),
        (["--x"], "no such option: --x"),
        (["here.py"], "no such command: here.py\nto run a program: juggler run here.py"),
        (["gone.py"], "no such command: gone.py\nto run a program: juggler run gone.py"),
        (["run"], "which program?"),
        (["run", "--report"], "which program?"),
        (["run", "--reprot", "here.py"], "no such option: --reprot; did you mean --report?"),
        (["run", "--no-detect=1", "here.py"], "no such option: --no-detect=1"),
        (["run", "--report=xml", "here.py"], "--report=xml: there is --report=table"),
        (["run", "--report=", "here.py"], "--report=: there is --report=table"),
        (["run", "--report-file"], "--report-file: which file?"),
        (["run", "--report-file=", "here.py"], "--report-file: which file?"),
        (["run", "--report-file", "no/x", "here.py"], "no/x: No such file or directory"),
        (["run", "-I", "here.py"], "-E, -I and -S keep juggler out"),
        (["run", "-W", "error", "-uE", "here.py"], "-E, -I and -S keep juggler out"),
    ],
)
def test_wrong_command_lines(run: Run, tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "here.py").write_text("print('ran')")
    done = run([*JUGGLER, *words])
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "--help" in done.stderr


@pytest.mark.parametrize("options", [["-E"], ["-I"]])
def test_interpreter_that_keeps_juggler_out(run: Run, options: list[str]) -> None:
    done = run([sys.executable, *options, "-m", "juggler", "run", "-c", "print('ran')"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "juggler.install()" in done.stderr


def test_values_are_not_taken_for_options(run: Run) -> None:
    code = "import sys, queue, juggler; print(queue.Queue is juggler.queue.Queue, sys.argv)"
    words = ["-W", "ignore::SyntaxWarning", "-X", "dev", "-c", code, "-I"]
    done = run([*JUGGLER, "run", *words])
    assert (done.stdout, done.stderr) == ("True ['-c', '-I']\n", "")


def test_installed_script(run: Run) -> None:
    script = str(Path(sysconfig.get_path("scripts"), "juggler"))
    done = run([script, "run", "-c", "import sys; sys.exit(len(sys.argv))", "a"])
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_runs_without_being_installed_where_it_is_imported_from(run: Run, tmp_path: Path) -> None:
    # As from a checkout: the package is found through the current folder only.
    import juggler

    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/juggler").symlink_to(Path(juggler.__file__).parent)
    code = "import juggler._substitution as s, sys; print(s.__file__); print(sys.path)"
    start = f"import sys; sys.path.insert(0, 'copy'); sys.argv = ['juggler', 'run', '-c', {code!r}]"
    done = run([sys.executable, "-c", f"{start}; from juggler.cli import main; main()"])
    place, path = done.stdout.splitlines()
    assert place == str(tmp_path / "copy/juggler/_substitution.py")
    assert str(tmp_path / "copy") not in path


def test_import_loads_nothing(run: Run) -> None:
    code = """
import sys
before = set(sys.modules)
import juggler
print(sorted(set(sys.modules) - before))
print({*juggler.__all__} <= {*dir(juggler)}, sorted(set(sys.modules) - before))
juggler.install()
print(sorted(set(sys.modules) - before))
juggler.threading
assert "concurrent.futures" not in sys.modules and "queue" not in sys.modules
juggler.queue
assert "concurrent.futures" not in sys.modules and "logging" not in sys.modules
from juggler import futures, queue, threading
assert juggler.futures is futures is sys.modules["juggler.futures"]
try:
    juggler.nothing
except AttributeError as error:
    print(error)
"""
    done = run([sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "['juggler']",
        "True ['juggler']",
        "['juggler', 'juggler._import_hooks', 'juggler._substitution']",
        "module 'juggler' has no attribute 'nothing'",
    ]


@pytest.mark.parametrize("options", [[], ["--no-detect"], ["--report", "--report-file", "r"]])
def test_run_loads_nothing(run: Run, options: list[str]) -> None:
    code = "import sys; print(*sorted(name for name in sys.modules))"
    plain = run([sys.executable, "-c", code])
    done = run([*JUGGLER, "run", *options, "-c", code])
    ours = ["_import_hooks", "_program", "_substitution"]
    # `atexit` is a part of the interpreter that is not set up until it is asked for.
    added = {
        "juggler",
        *({"atexit"} if "--report" in options else ()),
        *(f"juggler.{name}" for name in ours),
    }
    assert {*done.stdout.split()} - {*plain.stdout.split()} == added


_THREADING = {"_juggler", "_tracing", "threading"}
_ASYNCIO = {
    *_THREADING,
    "futures",
    "asyncio",
    *("_checks", "_event_loop", "_handles", "_named_loops", "_primitives"),
    *("streams", "subprocess", "taskgroups", "tasks", "timeouts"),
}
_MULTIPROCESSING = {*_THREADING, "multiprocessing", "context"}
_PROCESS_POOL = {
    *_MULTIPROCESSING,
    *("connection", "queues", "queue", "futures", "_processes", "executor"),
}
_COROUTINE = """
import asyncio
async def main():
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0))
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import threading", _THREADING),
        (_COROUTINE, _ASYNCIO),
        ("import multiprocessing", _MULTIPROCESSING),
        ("from concurrent.futures import ProcessPoolExecutor", _PROCESS_POOL),
        (
            f"import threading, queue, multiprocessing\n"
            f"from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor\n{_COROUTINE}",
            {*_ASYNCIO, *_PROCESS_POOL, "_thread_pool"},
        ),
    ],
    ids=["threading", "asyncio", "multiprocessing", "process pool", "everything"],
)
def test_run_loads_what_a_program_uses(run: Run, program: str, expected: set[str]) -> None:
    code = f"{program}\nimport sys; print(*sys.modules)"
    ours = {name for name in run([*JUGGLER, "run", "-c", code]).stdout.split() if "juggler" in name}
    at_start = {
        "juggler",
        *(f"juggler.{name}" for name in ("_import_hooks", "_program", "_substitution")),
    }
    assert {name.rpartition(".")[2] for name in ours - at_start} == expected


@pytest.mark.parametrize(
    "module",
    ["asyncio", "concurrent.futures.process", "concurrent.futures.thread", "queue", "threading"]
    + [f"multiprocessing.{name}" for name in ("queues", "sharedctypes", "spawn", "synchronize")],
)
def test_run_adds_no_module_but_our_own(run: Run, module: str) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    plain = {*run([sys.executable, "-c", code]).stdout.split()}
    added = {*run([*JUGGLER, "run", "-c", code]).stdout.split()} - plain
    assert {name for name in added if not name.startswith("juggler")} <= {"__future__"}


def test_what_comes_late_is_ours_all_the_same(run: Run) -> None:
    code = """
import asyncio, concurrent.futures, sys, threading
from inspect import iscoroutinefunction
assert "juggler._thread_pool" not in sys.modules
assert "juggler._timer" not in sys.modules
assert "juggler.asyncio._transports" not in sys.modules
assert "juggler.asyncio.locks" not in sys.modules

from juggler import asyncio as ours, futures, threading as native
assert {*ours.__all__} <= {*dir(ours)}
for name in ours.__all__:
    getattr(ours, name)
assert ours.locks.Lock is ours.Lock is asyncio.Lock is asyncio.locks.Lock
assert ours.queues.Queue is ours.Queue is asyncio.Queue is asyncio.queues.Queue
assert ours.futures.Future is ours.Future is asyncio.Future is asyncio.futures.Future
assert ours.subprocess.__name__ == "juggler.asyncio.subprocess"

import pickle
assert {*futures.__all__} <= {*dir(futures)}
pool = concurrent.futures.ThreadPoolExecutor
assert pickle.loads(pickle.dumps(pool)) is pool
assert pickle.loads(pickle.dumps(asyncio.Future)) is asyncio.Future
assert pool is concurrent.futures.thread.ThreadPoolExecutor is futures.ThreadPoolExecutor
assert threading.Timer is native.Timer
fired = threading.Event()
timer = threading.Timer(0.01, fired.set)
timer.start()
assert fired.wait(30) and "juggler._timer" in sys.modules

class Mine(asyncio.new_event_loop().__class__):
    def _make_socket_transport(self, *args, **kwargs):
        made.append(args)
        return super()._make_socket_transport(*args, **kwargs)
made = []
assert iscoroutinefunction(Mine._make_subprocess_transport)
async def main():
    served = asyncio.Event()
    async def serve(reader, writer):
        writer.write(await reader.readline())
        writer.close()
        served.set()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\\n")
    assert await reader.read() == b"hello\\n"
    writer.close()
    await served.wait()
    server.close()
with asyncio.Runner(loop_factory=Mine) as runner:
    runner.run(main())
assert len(made) == 2
print("done")
"""
    done = run([*JUGGLER, "run", "-c", code])
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("when", ["atexit.register(make)", "threading._register_atexit(make)"])
def test_a_first_timer_at_the_end(run: Run, when: str) -> None:
    code = f"""
import atexit, threading
def make():
    timer = threading.Timer(0.01, print, ("called",))
    assert not timer.is_alive()
    timer.cancel()
    print("made")
{when}
"""
    done = run([*JUGGLER, "run", "-c", code])
    assert (done.stdout, done.stderr) == ("made\n", "")


def test_run_starts_without_argparse(run: Run) -> None:
    done = run([sys.executable, "-X", "importtime", "-m", "juggler", "run", "-c", ""])
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"juggler.cli.run", "juggler._program"} <= loaded
    assert not loaded & {"argparse", "logging", "re", "rich", "threading", "typing", "json"}


@pytest.mark.parametrize(
    ("options", "detect", "report"),
    [
        ([], True, False),
        (["--no-detect"], False, False),
        (["--no-detect", "--report"], False, True),
        (["--report=json"], True, True),
    ],
)
def test_tracing_is_started_once(
    run: Run, tmp_path: Path, options: list[str], detect: bool, report: bool
) -> None:
    # The program spies on the native function before anything loads the modules that call it.
    program = """
import importlib.machinery, sys
calls = []
hooks = sys.modules["juggler._import_hooks"]._hooks
hook = hooks.get("juggler._juggler")
if hook is not None:
    def spy(execute):
        def executed():
            execute()
            native = sys.modules["juggler._juggler"]
            start = native.trace_start
            native.trace_start = lambda **options: (calls.append(options), start(**options))
        hook(executed)
    hooks["juggler._juggler"] = spy
import threading, queue
print(calls)
"""
    (tmp_path / "program.py").write_text(program)
    done = run([*JUGGLER, "run", *options, "program.py"])
    assert done.returncode == 0
    calls = [{"report": report, "detect": detect}] if detect or report else []
    assert done.stdout == f"{calls}\n"


def test_report_comes_last(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(WAITS)
    done = subprocess.run(
        [*JUGGLER, "run", "--report", "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        check=True,
    )
    lines = done.stdout.splitlines()
    order = [lines.index(text) for text in ("program ends", "thread ends", "at exit")]
    summary = next(n for n, line in enumerate(lines) if line.startswith("juggler: ran "))
    assert summary > max(order)
    assert "primitive" in lines[summary + 2]


@pytest.mark.parametrize(
    ("end", "status"), [("", 0), ("1 / 0", 1), ("sys.exit(4)", 4), ("raise KeyboardInterrupt", -2)]
)
def test_report_as_json_after_every_end(run: Run, tmp_path: Path, end: str, status: int) -> None:
    (tmp_path / "program.py").write_text(WAITS + end)
    done = run([*JUGGLER, "run", "--report=json", "program.py", "a"])
    assert done.returncode == status
    assert done.stdout == "thread ends\nat exit\n"
    own, brace, text = done.stderr.partition("{\n")
    assert own.startswith("program ends\n")
    report = json.loads(brace + text)
    assert report["program"] == [sys.executable, "program.py", "a"]
    assert report["wall_seconds"] > 0
    assert isinstance(report["primitives"], list)


def test_report_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"import os\nos.chdir('/')\n{WAITS}")
    words = ["--report-file", "waits.txt", "program.py"]
    done = run([*JUGGLER, "run", *words])
    assert (done.returncode, done.stderr) == (0, "program ends\n")
    assert (tmp_path / "waits.txt").read_text("utf-8").startswith("juggler: ran ")
    done = run([*JUGGLER, "run", "--report=json", *words])
    assert json.loads((tmp_path / "waits.txt").read_text("utf-8"))["wall_seconds"] > 0


def test_forked_child_does_not_report(run: Run) -> None:
    code = "import os, sys; os.fork() and os.wait(); sys.exit(0)"
    done = run([*JUGGLER, "run", "--report", "-c", code])
    assert len(re.findall("juggler: ran", done.stderr)) == 1


def test_report_of_a_program_that_uses_nothing(run: Run) -> None:
    done = run([*JUGGLER, "run", "--report", "-c", "print('x')"])
    assert done.stdout == "x\n"
    assert re.fullmatch(r"juggler: ran [\d.]+ [mµ]?s; no primitives used\n", done.stderr)


def test_report_without_stderr(run: Run, tmp_path: Path) -> None:
    done = run(["sh", "-c", f"{' '.join(JUGGLER)} run --report -c 'print(1)' 2>&-"])
    assert (done.returncode, done.stdout) == (0, "1\n")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], []),
        (["program.py", "-O"], []),
        (["-"], []),
        (["-O", "-u", "-", "-x"], ["-O", "-u"]),
        (["-OW", "error", "-Wdefault", "x.py"], ["-OW", "error", "-Wdefault"]),
        (["-X", "-m", "-m", "x", "-O"], ["-X", "-m"]),
        (["-Om", "juggler"], ["-O"]),
        (["-uOcprint()", "-b"], ["-uO"]),
        (["-O", "-mjuggler"], ["-O"]),
        (["--check-hash-based-pycs", "never", "-b", "--", "-O"],
         ["--check-hash-based-pycs", "never", "-b"]),
        (["-W"], ["-W"]),
    ],
)  # fmt: skip
def test_interpreter_options(words: list[str], options: list[str]) -> None:
    from juggler.cli.run import interpreter_options

    assert interpreter_options(words) == options
