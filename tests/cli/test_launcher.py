"""The command ``juggler``: a small program that becomes Python, or ``juggler-cli`` beside it."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
JUGGLER = Path(sysconfig.get_path("scripts"), "juggler")
SCRIPT = JUGGLER.with_name("juggler-cli")

# What a process inherits, and what the interpreter makes of it.
INHERITED = """
import os, signal, sys
with open("/proc/self/status") as status:
    kept = [line for line in status if line.startswith(("SigBlk", "SigIgn", "Umask", "Groups"))]
print(kept, file=report)
print(sorted(os.listdir("/proc/self/fd"), key=int), file=report)
print(sys.stdin, sys.stderr, file=report)
print(os.environ, os.getpid() == os.getsid(0), file=report)
print([signal.getsignal(number) for number in signal.valid_signals()], file=report)
"""


@pytest.fixture
def counting(tmp_path: Path) -> dict[str, str]:
    """An environment in which each start of Python leaves a line in the file ``starts``."""
    site = tmp_path / "site"
    site.mkdir()
    code = "import os\nwith open('starts', 'a') as file: file.write(f'{os.getpid()}\\n')\n"
    (site / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    "words", [["program.py"], ["-c", "pass"], ["-m", "program"], ["-"], ["folder"]], ids=" ".join
)
def test_one_start_of_python(
    run: Run, tmp_path: Path, counting: dict[str, str], words: list[str]
) -> None:
    (tmp_path / "program.py").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/__main__.py").write_text("", encoding="utf-8")
    done = run([str(JUGGLER), "run", *words], env=counting)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len((tmp_path / "starts").read_text().splitlines()) == 1


@pytest.mark.parametrize("options", [["--no-detect"], ["-W", "ignore"], ["--report"]], ids=" ".join)
def test_python_reads_options(
    run: Run, tmp_path: Path, counting: dict[str, str], options: list[str]
) -> None:
    code = "import queue, juggler; print(queue.Queue is juggler.queue.Queue)"
    done = run([str(JUGGLER), "run", *options, "-c", code], env=counting)
    assert (done.returncode, done.stdout) == (0, "True\n")
    first, second = (tmp_path / "starts").read_text().splitlines()
    assert first == second  # one process, which became another program


def test_other_commands_are_those_of_the_script(run: Run) -> None:
    for words in ([], ["--version"], ["--help"], ["run"], ["run", "--help"], ["fetch", "--help"]):
        ours, script = (run([str(path), *words]) for path in (JUGGLER, SCRIPT))
        assert (ours.returncode, ours.stdout, ours.stderr) == (
            script.returncode,
            script.stdout,
            script.stderr,
        )
        assert ours.stdout or ours.stderr


def test_fetching_needs_no_python(run: Run, tmp_path: Path, counting: dict[str, str]) -> None:
    done = run([str(JUGGLER), "fetch", "nonsense"], env=counting)
    assert done.returncode == 1 and "0 of 1 files whole" in done.stderr
    assert not (tmp_path / "starts").exists()


def test_found_through_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(JUGGLER)
    for words in (["--version"], ["run", "-c", "import juggler; print(juggler.__version__)"]):
        done = run(["./link", *words])
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()


def test_without_its_script(run: Run, tmp_path: Path) -> None:
    shutil.copy2(JUGGLER, tmp_path / "alone")
    done = run(["./alone", "run", "-c", "pass"])
    assert (done.returncode, done.stdout) == (127, "")
    assert f"juggler: {tmp_path}/juggler-cli can't be started: No such file" in done.stderr
    assert done.stderr.endswith("install juggler again, or use: python -m juggler\n")


def test_interpreter_that_is_gone_is_told_by_the_kernel(run: Run, tmp_path: Path) -> None:
    shutil.copy2(JUGGLER, tmp_path / "juggler")
    (tmp_path / "juggler-cli").write_text("#!/nowhere/python\n", encoding="utf-8")
    (tmp_path / "juggler-cli").chmod(0o755)
    done = run(["./juggler", "run", "-c", "pass"])
    assert done.returncode == 127
    assert "juggler-cli can't be started" in done.stderr


def test_process_is_left_as_it_was(tmp_path: Path) -> None:
    python = SCRIPT.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    environment = {**os.environ, "with.dots": "1", "EMPTY": "", "BASH_FUNC_f%%": "() {  :\n}"}
    environment.pop("PYTHONPATH", None)
    pictures: list[str] = []
    for start in ([python], [str(JUGGLER), "run"]):
        report = tmp_path / f"report{len(pictures)}"

        def disturb() -> None:
            os.close(0)  # no standard input
            os.close(2)
            os.umask(0o27)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)

        code = f"report = open({str(report)!r}, 'w')\n{INHERITED}"
        done = subprocess.run(
            [*start, "-c", code],
            stdout=subprocess.DEVNULL,
            env=environment,
            preexec_fn=disturb,
            restore_signals=False,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0
        pictures.append(report.read_text(encoding="utf-8").replace(str(report), ""))
    assert "with.dots" in pictures[0]
    assert pictures[0].splitlines()[2] == "None None"
    assert pictures[1] == pictures[0]


def test_status_of_a_program_killed_by_a_signal() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([JUGGLER, "run", "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM


def test_module_and_command_agree_on_the_interpreter(run: Run) -> None:
    code = "import sys; print(sys.prefix, sys.version)"
    done = run([str(JUGGLER), "run", "-c", code])
    assert done.stdout == f"{sys.prefix} {sys.version}\n"
