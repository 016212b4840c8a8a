"""The README and the tutorial tell the truth: their code runs, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("map", "pipelines", "first-steps", "processes", "policies", "event-loop", "downloads")
TUTORIALS = [f"docs/tutorial/{page}.md" for page in PAGES]
DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/glossary.md", *TUTORIALS]
DOCUMENTS += [f"docs/internals/{page.name}" for page in (ROOT / "docs/internals").glob("*.md")]
HANG = 60
"""Seconds after which a snippet that has not ended is taken to hang."""


def snippets(document: str) -> list[tuple[int, str, str | None]]:
    """Return each Python block: its line, its code, and the `text` block that it announces.

    A block of output belongs to the code before it, with nothing but prose and shell in between.
    """
    content = (ROOT / document).read_text(encoding="utf-8")
    found: list[tuple[int, str, str | None]] = []
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL):
        language, body = block.groups()
        line = content.count("\n", 0, block.start()) + 1
        if language == "python":
            found.append((line, body, None))
        elif language == "text":
            assert found, f"{document}:{line}: output of no program"
            its_line, code, output = found[-1]
            assert output is None, f"{document}:{line}: a second output of line {its_line}"
            found[-1] = (its_line, code, body)
    return found


SNIPPETS = [
    pytest.param(code, output, id=f"{document}:{line}")
    for document in ("README.md", *TUTORIALS)
    for line, code, output in snippets(document)
]


@pytest.mark.parametrize(("code", "output"), SNIPPETS)
def test_snippet_runs_and_prints_what_the_page_says(
    code: str, output: str | None, tmp_path: Path
) -> None:
    if "import numpy" in code:
        pytest.importorskip("numpy", reason="numpy has no release for this Python")
    program = tmp_path / "snippet.py"
    program.write_text(code, encoding="utf-8")
    done = subprocess.run(
        # The page about deadlocks takes locks in both orders, which is warned of.
        [sys.executable, "-W", "error", "-W", "default::RuntimeWarning", str(program)],
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (output or "")


def test_the_first_program_of_the_tutorial_runs_the_same_on_juggler(tmp_path: Path) -> None:
    _, code, output = snippets("docs/tutorial/first-steps.md")[0]
    program = tmp_path / "words.py"
    program.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "juggler", "run", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    content = (ROOT / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", content) if "://" not in target]
    folder = (ROOT / document).parent
    missing = [target for target in targets if not (folder / target.partition("#")[0]).exists()]
    assert missing == []


def test_glossary_is_in_alphabetical_order() -> None:
    content = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = [term.lower() for term in re.findall(r"^\*\*(.+?)\*\*:", content, re.MULTILINE)]
    assert len(terms) > 40
    assert terms == sorted(terms)
