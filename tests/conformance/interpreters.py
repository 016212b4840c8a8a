"""Where the matrix finds a CPython of each version, and the tests that an installation lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from suites import SUITES

ROOT = Path(__file__).parents[2]
GET_PYTHON = ROOT / "tools" / "get-python"
VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
# What tools/get-python can bring; the others must be on the machine to be judged.
BROUGHT = ("3.13", "3.14", "3.15")

PROBE = """
import importlib.util, sys, sysconfig
assert sys.implementation.name == 'cpython' and not sysconfig.get_config_var('Py_GIL_DISABLED')
print('%d.%d' % sys.version_info[:2])
for name in sys.argv[1:]:
    if importlib.util.find_spec(name) is None:
        print(name)
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython and the directories that complete its `test` package."""

    version: str
    executable: Path
    extra_tests: tuple[Path, ...] = ()


def candidates(version: str) -> Iterator[Path]:
    """The machine's own interpreters of a version, pyenv's newest first, then what is on PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = [path for path in pyenv.glob(f"{version}.*") if re.fullmatch(r"[\d.]+", path.name)]
    for path in sorted(installed, key=lambda path: int(path.name.split(".")[2]), reverse=True):
        yield path / "bin" / "python"
    found = shutil.which(f"python{version}")
    if found:
        yield Path(found)


def lacking(executable: Path, version: str) -> list[str] | None:
    """The test modules it lacks; None when it is not a usable CPython of the version."""
    needs = sorted({name for suite in SUITES.values() for name in suite.needs})
    try:
        process = subprocess.run(
            [executable, "-c", PROBE, *needs], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    first, *missing = process.stdout.split() or [""]
    return missing if process.returncode == 0 and first == version else None


def find(version: str) -> Interpreter | None:
    """The interpreter to judge a version with, or None when there is none to be had.

    The machine's own come first; tools/get-python brings what Debian has of the rest, and the
    tests that an own one lacks.

    Raises:
        subprocess.CalledProcessError: tools/get-python failed; it has said why.
    """
    for executable in candidates(version):
        missing = lacking(executable, version)
        if missing is None:
            continue
        if not missing:
            return Interpreter(version, executable)
        tests = ROOT / ".cache" / "python" / f"tests-{version}"
        subprocess.run([GET_PYTHON, "--tests", version, tests], check=True)
        return Interpreter(version, executable, (tests,))
    if version not in BROUGHT:
        return None
    directory = ROOT / ".cache" / "python" / version
    subprocess.run([GET_PYTHON, version, directory], check=True)
    return Interpreter(version, directory / "usr" / "bin" / f"python{version}")
