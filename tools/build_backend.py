"""The build backend: maturin's, with the launcher built before.

maturin puts either a library or programs into a wheel, and whatever lies in `juggler.data`: there
goes the launcher, the small program `juggler` (`crates/juggler-launcher`). Who calls maturin itself
does this before:

    python tools/build_backend.py
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import maturin  # type: ignore[import-untyped]
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "juggler.data" / "scripts"
SCRIPTS.mkdir(parents=True, exist_ok=True)  # maturin asks for it before anything is built


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The hook of PEP 517."""
    build_launcher()
    name: str = maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The hook of PEP 660."""
    build_launcher()
    name: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def build_launcher() -> None:
    """Build the launcher and lay it where maturin takes the wheel's scripts from."""
    command = ["cargo", "build", "--profile=launcher", "--package=juggler-launcher"]
    command += ["--message-format=json-render-diagnostics"]
    messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    found = [json.loads(line).get("executable") for line in messages.splitlines()]
    (program,) = (executable for executable in found if executable)
    # Under another name first: a program that runs can't be written.
    copy = SCRIPTS.with_name("juggler.new")
    shutil.copy2(program, copy)
    copy.replace(SCRIPTS / "juggler")


if __name__ == "__main__":
    build_launcher()
