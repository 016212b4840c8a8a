"""The reference in docs/ is what the docstrings say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def make_reference() -> ModuleType:
    path = ROOT / "tools" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: dict[str, str] = make_reference().pages()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_up_to_date(name: str) -> None:
    page = REFERENCE / name
    assert page.read_text() == PAGES[name], "python tools/make_reference.py writes it anew"


def test_there_are_no_other_pages() -> None:
    assert {page.name for page in REFERENCE.iterdir()} == set(PAGES)


def test_sections_of_a_docstring_become_lists() -> None:
    args = "Args:\n    one: the first,\n        explained.\n    two: ``x``."
    doc = f"Do it.\n\n{args}\n\nReturns:\n    All\n    of it."
    assert make_reference().prose(doc) == [
        "Do it.",
        "**Arguments**",
        "* `one`: the first, explained.\n* `two`: `x`.",
        "**Returns**",
        "All of it.",
    ]


def test_a_section_may_have_a_single_item_of_several_lines() -> None:
    doc = "Do it.\n\nArgs:\n    one: the first,\n        explained."
    assert make_reference().prose(doc)[-1] == "* `one`: the first, explained."
