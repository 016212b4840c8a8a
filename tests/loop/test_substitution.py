"""What a program under `juggler run`, or after `juggler.install`, gets as its event loop."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = {
    "run": "print(type(asyncio.run(main())).__module__)",
    "runner": "with asyncio.Runner() as r: print(type(r.run(main())).__module__)",
    "new": "l = asyncio.new_event_loop(); l.close(); print(type(l).__module__)",
}
MAIN = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
async def main(): return asyncio.get_running_loop()
"""
OURS = "juggler.asyncio._event_loop\n"
STOCK = "asyncio.unix_events\n"


def output(tmp_path: Path, program: str, *command: str) -> str:
    """What a program prints."""
    path = tmp_path / "program.py"
    path.write_text(program)
    whole = [sys.executable, *command, str(path)]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_under_juggler_run_asyncio_has_our_loop(tmp_path: Path, program: str) -> None:
    run = ("-m", "juggler", "run")
    assert output(tmp_path, MAIN + program) == STOCK
    assert output(tmp_path, MAIN + program, *run) == OURS


@pytest.mark.parametrize("order", ["before", "after"])
def test_install_may_come_before_or_after_asyncio_is_imported(tmp_path: Path, order: str) -> None:
    install = "import juggler; juggler.install()\n"
    begin = install + MAIN if order == "before" else MAIN + install
    end = f"\njuggler.uninstall()\n{PROGRAMS['run']}"
    assert output(tmp_path, begin + PROGRAMS["run"] + end) == OURS + STOCK


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio.EventLoop is of 3.13")
def test_the_class_by_name_is_ours(tmp_path: Path) -> None:
    program = "\nloop = asyncio.EventLoop(); loop.close(); print(type(loop).__module__)"
    assert output(tmp_path, MAIN + program, "-m", "juggler", "run") == OURS


def test_a_program_s_own_policy_stays(tmp_path: Path) -> None:
    program = """
class Mine(asyncio.DefaultEventLoopPolicy):
    _loop_factory = asyncio.SelectorEventLoop
asyncio.set_event_loop_policy(Mine())
"""
    run = ("-m", "juggler", "run")
    assert output(tmp_path, MAIN + program + PROGRAMS["run"], *run) == STOCK
    install = "import juggler; juggler.install()\n"
    assert output(tmp_path, MAIN + program + install + PROGRAMS["run"]) == STOCK


def test_a_program_without_asyncio_does_not_import_it(tmp_path: Path) -> None:
    program = "import sys, threading; print('asyncio' in sys.modules)"
    assert output(tmp_path, program, "-m", "juggler", "run") == "False\n"
