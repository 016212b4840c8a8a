"""The lists of tests that are known not to apply, `known/*.txt`.

A line is `SUITE::TEST_ID reason`; `*` in the name stands for anything, `#` starts a comment.
`all.txt` counts for every interpreter, `3.13.txt` for that one.  The lists cannot rot: a test that
passes in spite of its entry is an error, unless the reason begins with `may pass:`, and so is an
entry of a version's own list that names no test.  What `hangs:` is not waited for long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from suites import SUITES

LISTS = Path(__file__).parent / "known"


def read(name: str) -> dict[str, str]:
    """The reasons in `known/NAME.txt` by the tests' names; empty when there is no such file."""
    path = LISTS / f"{name}.txt"
    if not path.exists():
        return {}
    entries: dict[str, str] = {}
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        line = text.partition("#")[0].strip()
        if not line:
            continue
        key, _, reason = line.partition(" ")
        if "::" not in key or not reason.strip():
            raise SystemExit(f"{path}:{number}: expected `SUITE::TEST_ID reason`, got {text!r}")
        entries[key] = reason.strip()
    return entries


def reason(entries: Mapping[str, str], key: str) -> str | None:
    """The reason of the entry that `SUITE::TEST_ID` matches."""
    matching = (reason for name, reason in entries.items() if fnmatchcase(key, name))
    return next(matching, None)


def stale(version: str, status: Mapping[str, str], suites: Collection[str]) -> list[str]:
    """What is wrong with the lists, given the status of every test that ran.

    Args:
        version: the interpreter's `X.Y`.
        status: `passed`, `failed` or `skipped` by `SUITE::TEST_ID`.
        suites: the suites that ran; entries of the others cannot be judged.
    """
    own = read(version)
    entries = {**read("all"), **own}
    problems = [
        f"{key} is listed as known, but passes"
        for key, ended in status.items()
        if ended == "passed" and not (reason(entries, key) or "may pass:").startswith("may pass:")
    ]
    problems += [
        f"{name} is listed in known/{version}.txt, but there is no such test"
        for name in own
        if _runs(name.partition("::")[0], suites)
        and not any(fnmatchcase(key, name) for key in status)
    ]
    return problems


def _runs(pattern: str, suites: Collection[str]) -> bool:
    return {suite for suite in SUITES if fnmatchcase(suite, pattern)}.issubset(suites)
