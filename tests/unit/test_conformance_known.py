"""The lists of known tests of the conformance suites cannot rot."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

MODULE = Path(__file__).parents[1] / "conformance" / "known.py"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, reading its lists from an empty folder."""
    monkeypatch.syspath_prepend(MODULE.parent)
    spec = importlib.util.spec_from_file_location("known", MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.LISTS = tmp_path  # type: ignore[attr-defined]
    return module


def test_reads_entries_and_comments(known: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "3.13.txt").write_text("# why\n\nqueue::a.B.c it cannot  # really\n")
    assert known.read("3.13") == {"queue::a.B.c": "it cannot"}
    assert known.read("3.14") == {}


@pytest.mark.parametrize("line", ["queue::a.B.c", "a.B.c reason"])
def test_entry_without_reason_or_suite_is_refused(
    known: ModuleType, tmp_path: Path, line: str
) -> None:
    (tmp_path / "all.txt").write_text(line)
    with pytest.raises(SystemExit, match=r"all\.txt:1: expected"):
        known.read("all")


def test_entry_that_passes_is_stale(known: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("queue::a.B.c r\nqueue::a.B.d r\nqueue::a.B.e r\n")
    status = {"queue::a.B.c": "passed", "queue::a.B.d": "failed"}
    assert known.stale("3.13", status, ["queue"]) == ["queue::a.B.c is listed as known, but passes"]


def test_own_entry_that_names_no_test_is_stale(known: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "3.13.txt").write_text("queue::a.B.gone r\nlocks::a.B.not_run r\n")
    assert known.stale("3.13", {}, ["queue"]) == [
        "queue::a.B.gone is listed in known/3.13.txt, but there is no such test"
    ]


def test_the_lists_themselves_can_be_read(known: ModuleType) -> None:
    known.LISTS = MODULE.with_name("known")  # type: ignore[attr-defined]
    for path in known.LISTS.glob("*.txt"):
        assert known.read(path.stem)
