"""The lists of tests that are known not to apply, `known/*.txt`.

A line is `SUITE::TEST_ID reason`; `#` starts a comment.  `all.txt` counts for every interpreter,
`3.13.txt` for that one.  The lists cannot rot: an entry whose test passes is an error, unless its
reason begins with `may pass:`, and so is an entry of a version's own list that names no test.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

LISTS = Path(__file__).parent / "known"


def read(name: str) -> dict[str, str]:
    """The reasons in `known/NAME.txt` by `SUITE::TEST_ID`; empty when there is no such file."""
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


def stale(version: str, status: Mapping[str, str], suites: Container[str]) -> list[str]:
    """What is wrong with the lists, given the status of every test that ran.

    Args:
        version: the interpreter's `X.Y`.
        status: `passed`, `failed` or `skipped` by `SUITE::TEST_ID`.
        suites: the suites that ran; entries of the others cannot be judged.
    """
    own = read(version)
    problems = [
        f"{key} is listed as known, but passes"
        for key, reason in {**read("all"), **own}.items()
        if status.get(key) == "passed" and not reason.startswith("may pass:")
    ]
    problems += [
        f"{key} is listed in known/{version}.txt, but there is no such test"
        for key in own
        if key.partition("::")[0] in suites and key not in status
    ]
    return problems
