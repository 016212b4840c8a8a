"""Run CPython's own tests, unmodified, against a replacement package, on this interpreter.

Each suite runs in a child interpreter (child.py).  A test that crashes or hangs it costs one test:
it counts as failed, and a new child goes on after it.  These are failures too: a suite whose
modules cannot be found, a layer in which nothing was substituted, a stale entry of the known lists.

    python tests/conformance/run.py juggler --path python --suite queue --match shutdown -v
    python tests/conformance/run.py baseline --path tests/conformance/baseline --baseline

The second line judges this runner, not us: the stdlib against its own tests.  The last line is
`N passed, N failed, N skipped`; the exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import known
from suites import PROCESSES, SUITES, everyday

# A suite that crashes more often than this is broken as a whole; going on would take hours.
MAX_CRASHES = 10


@dataclass(frozen=True)
class Outcome:
    """How one test ended."""

    status: str
    message: str = ""
    seconds: float = 0.0


@dataclass
class SuiteResult:
    """What the children of one suite reported."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    substituted: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def read(self, log: Path) -> tuple[str | None, bool]:
        """Add one child's log; returns the test in flight at its end and whether it finished."""
        flight: str | None = None
        finished = False
        for line in log.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # cut off by a crash
                continue
            match event["event"]:
                case "unavailable":
                    reason = f"{event['module']} cannot be found"
                    self.tests["(suite)"] = Outcome("failed", reason)
                    finished = True
                case "substituted":
                    self.substituted = event["names"]
                case "start":
                    flight = event["id"]
                case "end":
                    outcome = Outcome(event["status"], event["message"], event["seconds"])
                    self.tests[event["id"]] = outcome
                    flight = None if event["id"] == flight else flight
                case "finished":
                    finished = True
        return flight, finished


def _run(command: list[str], directory: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit status of `command` and what it printed; nothing that it started is left behind.

    Its output goes to a file: a pipe would stay open as long as any process that a test has lost.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            status = process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return status, output.read()


def run_suite(
    name: str, options: argparse.Namespace, directory: Path, excused: dict[str, str]
) -> SuiteResult:
    """Run one suite to its end, through as many children as its crashes need."""
    result = SuiteResult()
    hanging = [
        key.partition("::")[2]
        for key, reason in excused.items()
        if reason.startswith("hangs:") and fnmatchcase(name, key.partition("::")[0])
    ]
    began = time.monotonic()
    log, done = directory / f"{name}.log", directory / f"{name}.done"
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore"]
    command += [str(Path(__file__).with_name("child.py")), name, "--package", options.package]
    command += ["--log", str(log), "--done", str(done)]
    command += ["--timeout", str(options.timeout), "--match", options.match]
    for path in options.path:
        command += ["--path", path]
    for path in options.extra_tests:
        command += ["--extra-tests", path]
    for pattern in hanging:
        command += ["--hangs", pattern]
    environment = {}
    if options.extra_tests and name in PROCESSES:
        environment["PYTHONPATH"] = str(Path(__file__).parent)  # for sitecustomize.py
        environment["CONFORMANCE_TESTS"] = os.pathsep.join(options.extra_tests)
    crashes = 0
    while crashes < MAX_CRASHES:
        before = len(result.tests)
        log.write_text("")
        done.write_text(json.dumps(list(result.tests)))
        status, output = _run(command, directory, environment)
        flight, finished = result.read(log)
        if finished:
            break
        message = f"crash or hang (exit {status})\n{output[-4000:]}"
        stuck = flight is None and len(result.tests) == before  # so would the next child be
        ident = flight or f"(between tests, after {len(result.tests)})"
        result.tests[ident] = Outcome("failed", message)
        if stuck:
            break
        crashes += not any(fnmatchcase(ident, pattern) for pattern in hanging)
    else:
        result.tests["(suite)"] = Outcome("failed", f"given up after {MAX_CRASHES} crashes")
    if not result.tests:
        result.tests["(suite)"] = Outcome("failed", "no test was found")
    result.seconds = time.monotonic() - began
    return result


def judge(result: SuiteResult, name: str, excused: dict[str, str], baseline: bool) -> None:
    """Apply the rules that go beyond a test's own outcome."""
    for ident, outcome in result.tests.items():
        reason = known.reason(excused, f"{name}::{ident}")
        if outcome.status == "failed" and reason:
            result.tests[ident] = Outcome("skipped", f"known: {reason}", outcome.seconds)
    if not baseline and not result.substituted:
        result.tests["(substitution)"] = Outcome("failed", "nothing was substituted")


def show(name: str, result: SuiteResult, verbose: bool) -> None:
    """Print a suite's line, the tests it skipped, and with `verbose` every test."""
    count = Counter(outcome.status for outcome in result.tests.values())
    print(
        f"{name:14} {count['passed']:4} passed {count['failed']:3} failed"
        f" {count['skipped']:3} skipped {result.seconds:6.1f} s"
        f"  substituted: {' '.join(result.substituted) or 'nothing'}"
    )
    for ident, outcome in result.tests.items():
        if verbose or outcome.status == "skipped":
            first = outcome.message.strip().partition("\n")[0]
            reason = f" ({first})" if outcome.status == "skipped" else ""
            print(f"    {outcome.status} {ident} {outcome.seconds:.2f} s{reason}")
    sys.stdout.flush()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", help="a package with submodules threading, queue and futures")
    parser.add_argument(
        "--path", action="append", default=[], type=os.path.abspath, help="put before sys.path"
    )
    parser.add_argument(
        "--suite", action="append", choices=SUITES, help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--extra-tests",
        action="append",
        default=[],
        type=os.path.abspath,
        help="a directory with what this interpreter's `test` package lacks",
    )
    parser.add_argument("--timeout", type=float, default=90, help="seconds for one test")
    parser.add_argument("--match", default="", help="only tests whose id contains this")
    parser.add_argument("--baseline", action="store_true", help="nothing is to be substituted")
    parser.add_argument("--json", type=Path, help="write the counts here")
    parser.add_argument("-v", "--verbose", action="store_true", help="every test, whole tracebacks")
    return parser.parse_args()


def main() -> int:
    """Run the suites, print the results and return the exit status."""
    options = parse()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names: list[str] = options.suite or everyday(version)
    excused = {} if options.baseline else {**known.read("all"), **known.read(version)}
    print(f"CPython {sys.version.split()[0]}, {options.package}, {sys.executable}", flush=True)
    results: dict[str, SuiteResult] = {}
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        for name in names:
            results[name] = run_suite(name, options, Path(directory), excused)
            judge(results[name], name, excused, options.baseline)
            show(name, results[name], options.verbose)

    status = {
        f"{name}::{ident}": outcome.status
        for name, result in results.items()
        for ident, outcome in result.tests.items()
    }
    problems: list[str] = []
    if not (options.baseline or options.match):
        problems = known.stale(version, status, names)
    for name, result in results.items():
        for ident, outcome in result.tests.items():
            if outcome.status == "failed":
                lines = outcome.message.strip().splitlines()
                print(f"\nFAILED {name}::{ident}")
                print("\n".join(f"    {line}" for line in lines[0 if options.verbose else -8 :]))
    for problem in problems:
        print(f"\nSTALE {problem}")

    total = Counter(status.values())
    total["failed"] += len(problems)
    if options.json:
        suites = {
            name: {
                **Counter(outcome.status for outcome in result.tests.values()),
                "reasons": {
                    ident: outcome.message.strip().partition("\n")[0]
                    for ident, outcome in result.tests.items()
                    if outcome.status == "skipped"
                },
                "substituted": result.substituted,
                "seconds": round(result.seconds, 1),
            }
            for name, result in results.items()
        }
        options.json.write_text(json.dumps({"suites": suites, "stale": problems}, indent=1))
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
