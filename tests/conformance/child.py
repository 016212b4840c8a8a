"""The child of run.py: runs one suite in this interpreter and reports each step as a line of JSON.

The lines go to a file, unbuffered, so that after a crash or a hang the parent still knows which
test was in flight.  Events: `unavailable` (a test module is missing), `substituted`, `start`, `end`
(`status` is passed, failed or skipped), `finished`.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import textwrap
import time
import traceback
import unittest
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import overlay
from suites import SUITES, Environment

# These keep the real threading, queue and futures: they are imported before the overlays are laid.
PRELOAD = (
    "asyncio",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "contextlib",
    "doctest",
    "logging.handlers",
    "multiprocessing.managers",
    "multiprocessing.pool",
    "multiprocessing.resource_tracker",
    "multiprocessing.util",
    "random",
    "subprocess",
    "tempfile",
    "test.support",
    "test.support.import_helper",
    "test.support.os_helper",
    "test.support.script_helper",
    "test.support.threading_helper",
    "traceback",
    "unittest.mock",
    "_threading_local",
)

# Tests whose `python -c` child must start bare, because they look at what is imported there.
BARE_CHILD = {
    "test_import_from_another_thread",  # threading must not be imported yet
    "test_lazy_import",  # the same of other modules (3.14)
    "test_finalize_daemon_thread_hang",  # what is imported decides how the interpreter ends (3.14)
}

# Seconds for a test that is known to hang.
HANG = 10


class Report(unittest.TestResult):
    """Writes each test's start and end to the log and ends the process when one takes too long."""

    def __init__(self, log: Any, timeout: float, hanging: Sequence[str]) -> None:
        super().__init__()
        self.log = log
        self.timeout = timeout
        self.hanging = hanging
        self.running = ""
        self.trouble = ""
        self.reason: str | None = None
        self.began = 0.0

    def limit(self, seconds: float) -> None:
        """End the process when it takes longer."""
        faulthandler.dump_traceback_later(seconds, exit=True)

    def emit(self, **event: Any) -> None:
        self.log.write(json.dumps(event) + "\n")

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.trouble, self.reason, self.began = "", None, time.monotonic()
        self.running = test.conformance_id
        self.emit(event="start", id=self.running)
        hangs = any(fnmatchcase(self.running, pattern) for pattern in self.hanging)
        self.limit(HANG if hangs else self.timeout)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        # For what is between the tests.
        self.limit(self.timeout)
        status = "failed" if self.trouble else "passed" if self.reason is None else "skipped"
        self._end(self.running, status, self.trouble or self.reason or "")
        self.running = ""
        if self.trouble:  # its frames may keep what the tests' own cleaning up waits for
            gc.collect()

    def _end(self, ident: str, status: str, message: str) -> None:
        seconds = round(time.monotonic() - self.began, 2) if self.began else 0.0
        self.emit(event="end", id=ident, status=status, message=message[-4000:], seconds=seconds)

    def _failed(self, test: Any, error: Any) -> None:
        text = "".join(traceback.format_exception(*error))
        if self.running:
            self.trouble += text
        else:  # setUpClass or setUpModule: there is no test to charge it to
            self._end(str(test).replace(" ", ""), "failed", text)

    def addFailure(self, test: Any, err: Any) -> None:
        self._failed(test, err)

    def addError(self, test: Any, err: Any) -> None:
        self._failed(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._failed(test, err)

    def addSkip(self, test: Any, reason: str) -> None:
        if self.running:
            self.reason = reason
        else:  # a class skipped as a whole
            self._end(str(test).replace(" ", ""), "skipped", reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.reason = "expected failure"

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.trouble = "unexpected success"


def missing(modules: Sequence[str]) -> str | None:
    """The first of the modules that this interpreter cannot find."""
    for name in modules:
        try:
            if importlib.util.find_spec(name) is None:
                return name
        except ModuleNotFoundError:
            return name
    return None


def lay_over_children(report: Report, prelude: str) -> None:
    """Make the interpreters that the tests start with `-c CODE` install the overlays first."""
    script_helper: Any = importlib.import_module("test.support.script_helper")

    def wrap(start: Any) -> Any:
        def started(*args: Any, **kwargs: Any) -> Any:
            arguments = list(args)
            if report.running.rpartition(".")[2] not in BARE_CHILD and "-c" in arguments[:-1]:
                code = arguments.index("-c") + 1
                arguments[code] = prelude + textwrap.dedent(arguments[code])
            return start(*arguments, **kwargs)

        return started

    for name in ("run_python_until_end", "spawn_python"):
        setattr(script_helper, name, wrap(getattr(script_helper, name)))


def install_package(package: str, paths: Sequence[str], extra_tests: Sequence[str]) -> str:
    """Run the package's `install`, if it has one; returns code that does so elsewhere."""
    if extra_tests:
        overlay.add_tests(extra_tests)
    install = getattr(importlib.import_module(package), "install", None)
    if install is None:
        return ""
    install()
    return f"import sys; sys.path[:0] = {list(paths)!r}; import {package}; {package}.install()\n"


def allow_many_threads() -> None:
    """Let the tests of dozens of threads run; their gigabytes are their stacks' space."""
    support: Any = importlib.import_module("test.support")
    support.set_memlimit("8G")
    with contextlib.suppress(
        ImportError
    ):  # 3.15 runs them in a process apart, without our overlays
        isolation: Any = importlib.import_module("test.support.isolation")
        isolation.runningInSubprocess = True


def load(classes: Sequence[type[unittest.TestCase]], done: set[str], match: str) -> list[Any]:
    """The classes' tests, each with its id, without those that an earlier child already ran."""
    tests: list[Any] = []
    for cls in classes:
        for test in unittest.TestLoader().loadTestsFromTestCase(cls):
            case: Any = test
            module = type(case).__module__.removeprefix("test.")
            case.conformance_id = f"{module}.{type(case).__name__}.{case._testMethodName}"
            if case.conformance_id not in done and match in case.conformance_id:
                tests.append(case)
    return tests


def main() -> None:
    """Run the suite; never returns, see the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--package", required=True)
    parser.add_argument("--path", action="append", default=[])
    parser.add_argument("--extra-tests", action="append", default=[])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--done", type=Path, required=True, help="JSON list of ids to leave out")
    parser.add_argument("--timeout", type=float, required=True)
    parser.add_argument("--hangs", action="append", default=[], help="a pattern of tests' names")
    parser.add_argument("--match", default="")
    options = parser.parse_args()

    faulthandler.enable()
    sys.dont_write_bytecode = True
    # A job started in the background inherits an ignored SIGINT; tests of Ctrl-C need a live one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[:0] = options.path
    suite = SUITES[options.suite]
    prelude = ""
    if suite.layer == "multiprocessing":
        # As a program has it, which has imported nothing yet; the children of every start method
        # must come to juggler by themselves.
        prelude = install_package(options.package, options.path, options.extra_tests)
    for name in PRELOAD:
        with contextlib.suppress(ImportError):  # each version has its own set of them
            importlib.import_module(name)

    log = options.log.open("a", buffering=1)
    report = Report(log, options.timeout, options.hangs)
    if suite.layer == "asyncio-classes":
        overlay.add_tests(options.extra_tests)
    if suite.layer not in overlay.LAYERS:
        environment, needs = Environment({}, {}, options.package), suite.needs
    else:
        layers, overlays = overlay.install(options.package, options.path, options.extra_tests)
        prelude = overlay.prelude(options.package, options.path, options.extra_tests)
        environment = Environment(layers, overlays, options.package)
        needs = (f"{options.package}.{suite.layer}", *suite.needs)
    if module := missing(needs):
        report.emit(event="unavailable", module=module)
    else:
        report.emit(event="substituted", names=environment.substituted(suite.layer))
        if prelude:
            lay_over_children(report, prelude)
        allow_many_threads()
        done = set(json.loads(options.done.read_text()))
        unittest.TestSuite(load(suite.build(environment), done, options.match)).run(report)
        report.emit(event="finished")
    log.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the usual end: it would join threads that a broken implementation left behind.
    os._exit(0)


if __name__ == "__main__":
    main()
