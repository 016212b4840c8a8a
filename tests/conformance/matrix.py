"""Run the conformance suites on every supported CPython and print a table.

    make conformance                       # 3.11 to 3.15
    make conformance PYTHONS="3.13 3.14"   # or python tests/conformance/matrix.py 3.13 3.14
    make conformance ARGS=--baseline       # judge these tools: the stdlib against its own tests

For each interpreter the package is built as a wheel and unpacked into `.cache/conformance/X.Y`, and
run.py judges that copy in a virtual environment of its own, whose `site-packages` is empty: what an
installation loads at start would hide whether a test's child imports something too early.  The full
output is in `.cache/conformance/X.Y/run.log`.  The last line is `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interpreters import ROOT, VERSIONS, Interpreter, find
from suites import SUITES, everyday

HERE = Path(__file__).parent
COUNTS = re.compile(r"^\d+ passed, \d+ failed, \d+ skipped\n", re.MULTILINE)
CACHE = ROOT / ".cache" / "conformance"
building = threading.Lock()


@dataclass
class Row:
    """One interpreter's line of the table."""

    version: str
    trouble: str = ""
    absent: bool = False
    suites: dict[str, dict[str, Any]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    log: Path | None = None

    def count(self) -> Counter[str]:
        """The interpreter's totals; trouble before or outside the suites counts as a failure."""
        total: Counter[str] = Counter()
        for suite in self.suites.values():
            for status in ("passed", "failed", "skipped"):
                total[status] += suite.get(status, 0)
        total["failed"] += len(self.stale) + bool(self.trouble)
        total["skipped"] += self.absent
        return total


def build(interpreter: Interpreter, home: Path) -> None:
    """Build the wheel for the interpreter and unpack it into `home/package`.

    All share the workspace's target directory, for most of what is compiled knows nothing of
    Python; so only one builds at a time, until its wheel is written.  Behaviour is what is judged,
    not speed: the quick profile.
    """
    package, wheels = home / "package", home / "wheels"
    for directory in (package, wheels):
        shutil.rmtree(directory, ignore_errors=True)
    programs = [sys.executable, str(ROOT / "tools" / "build_backend.py")]
    quick = {**os.environ, "MATURIN_PEP517_ARGS": "--profile quick"}
    wheel_of = [sys.executable, "-m", "maturin", "build", "--profile", "quick", "--quiet"]
    wheel_of += ["--interpreter", str(interpreter.executable), "--out", str(wheels)]
    with building, (home / "build.log").open("w") as log:
        for command in (programs, wheel_of):
            subprocess.run(
                command, cwd=ROOT, check=True, stdout=log, stderr=subprocess.STDOUT, env=quick
            )
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(package)
    # What sends functions that plain pickle refuses: pure Python, the same for every version.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "cloudpickle"]
    subprocess.run([*command, "--target", str(package)], check=True)


def environment_of(interpreter: Interpreter, home: Path) -> Path:
    """The interpreter of an empty virtual environment, made when it is new or another one."""
    directory = home / "venv"
    python = directory / "bin" / "python"
    if not python.exists() or python.resolve() != interpreter.executable.resolve():
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run(
            [interpreter.executable, "-m", "venv", "--without-pip", directory], check=True
        )
    return python


def judge(version: str, arguments: list[str], baseline: bool) -> Row:
    """Build for one version (unless it is the baseline) and run the suites on it."""
    row = Row(version)
    home = CACHE / version
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        interpreter = find(version)
        if interpreter is None:
            row.absent = True
            print(f"{version}: INTERPRETER NOT PRESENT, nothing is known about it", flush=True)
            return row
        python = environment_of(interpreter, home)
        if not baseline:
            build(interpreter, home)
    except subprocess.CalledProcessError as error:
        row.trouble = f"could not be set up: {Path(str(error.cmd[0])).name} failed"
        row.log = home / "build.log" if (home / "build.log").exists() else None
        return row
    built = time.monotonic()
    print(f"{version}: ready in {built - began:.0f} s, {interpreter.executable}", flush=True)

    row.log = home / "run.log"
    results = home / "results.json"
    results.unlink(missing_ok=True)
    command: list[str | Path] = [python, HERE / "run.py"]
    if baseline:
        command += ["baseline", "--baseline", "--path", HERE / "baseline"]
    else:
        command += ["juggler", "--path", home / "package"]
    command += ["--json", results, *arguments]
    for directory in interpreter.extra_tests:
        command += ["--extra-tests", directory]
    with row.log.open("w") as log:
        status = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode
    if results.exists():
        report = json.loads(results.read_text())
        row.suites, row.stale = report["suites"], report["stale"]
    if status != (1 if row.count()["failed"] else 0) or not results.exists():
        row.trouble = f"run.py ended with status {status}"
    print(f"{version}: ran in {time.monotonic() - built:.0f} s", flush=True)
    return row


def show(rows: list[Row], names: list[str]) -> None:
    """Print the failures, then the table: passed/failed/skipped by interpreter and suite."""
    for row in rows:
        if row.count()["failed"] and row.log:
            # Without its counts: only the last line of all is to have any.
            text = COUNTS.sub("", row.log.read_text())
            print(f"\n===== {row.version}: {row.log.relative_to(ROOT)}\n{text}")
    print("\npassed/failed/skipped")
    print("CPython " + "".join(f"{name:>15}" for name in names))
    for row in rows:
        if row.absent:
            print(f"{row.version:8}skipped: interpreter not present on this machine")
            continue
        cells = []
        for name in names:
            suite = row.suites.get(name)
            parts = (suite.get(key, 0) for key in ("passed", "failed", "skipped")) if suite else ()
            cells.append(f"{'/'.join(map(str, parts)) or '-':>15}")
        print(f"{row.version:8}{''.join(cells)}  {row.trouble}")
    print("\nskipped or known not to apply")
    for row in rows:
        for name, suite in row.suites.items():
            for ident, reason in suite["reasons"].items():
                print(f"{row.version} {name}::{ident}: {reason}")
    print("\nsubstituted")
    for layer in dict.fromkeys(SUITES[name].layer for name in names):
        versions: dict[str, list[str]] = {}
        for row in rows:
            for name, suite in row.suites.items():
                if SUITES[name].layer == layer:
                    known = versions.setdefault(" ".join(suite["substituted"]) or "nothing", [])
                    known += [row.version] if row.version not in known else []
        for substituted, where in versions.items():
            print(f"{layer} ({', '.join(where)}): {substituted}")


def main() -> int:
    """Judge the versions, some of them at a time, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="X.Y")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one")
    parser.add_argument("--all", action="store_true", help="every suite on every version")
    parser.add_argument("--match", help="only tests whose id contains this")
    parser.add_argument("--baseline", action="store_true", help="judge the stdlib, not juggler")
    # Tests mostly wait: one more than there are processors.
    jobs = (os.cpu_count() or 1) + 1
    parser.add_argument("--jobs", type=int, default=jobs, help="at the same time")
    options = parser.parse_args()
    if unknown := set(options.versions) - set(VERSIONS):
        parser.error(f"not supported: {', '.join(sorted(unknown))}; choose from {VERSIONS}")
    chosen: list[str] = list(SUITES) if options.all else options.suite or []
    arguments = [f"--suite={name}" for name in chosen]
    names = chosen or [
        name for name in SUITES if any(name in everyday(version) for version in options.versions)
    ]
    if options.match:
        arguments.append(f"--match={options.match}")
    # Those with the most suites first, for nobody to wait for them alone.
    longest_first = sorted(options.versions, key=lambda v: len(everyday(v)), reverse=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda v: judge(v, arguments, options.baseline), longest_first))
    rows.sort(key=lambda row: options.versions.index(row.version))
    show(rows, names)
    total: Counter[str] = Counter()
    for row in rows:
        total += row.count()
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
