"""What `import juggler` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import juggler

# Modules that a program pays for only when it uses what needs them.
EXPENSIVE = ["asyncio", "concurrent.futures", "juggler._juggler", "logging", "queue", "rich"]


def test_every_name_of_all_is_there() -> None:
    assert len(juggler.__all__) == len(set(juggler.__all__))
    for name in juggler.__all__:
        assert getattr(juggler, name) is not None


def test_dir_offers_what_all_does() -> None:
    assert set(juggler.__all__) <= set(dir(juggler))


def test_version_is_the_installed_one() -> None:
    assert juggler.__version__ == version("juggler")


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'thread'"):
        juggler.thread  # type: ignore[attr-defined]  # noqa: B018


def test_import_loads_nothing_before_it_is_used() -> None:
    # What the interpreter imports at its start, for .pth files too, does not count.
    code = (
        "import sys; before = set(sys.modules); import juggler; "
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "juggler" in output
    assert not set(output) & set(EXPENSIVE)


@pytest.mark.parametrize("name", ["threading", "queue", "futures"])
def test_submodule_comes_with_its_first_use(name: str) -> None:
    code = (
        f"import sys, juggler; assert 'juggler.{name}' not in sys.modules; "
        f"print(juggler.{name} is sys.modules['juggler.{name}'])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert output == "True\n"
