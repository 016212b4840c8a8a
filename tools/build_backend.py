"""The build backend: maturin's, with the programs built before.

maturin puts either a library or programs into a wheel, and whatever lies in `juggler.data`: there
go the small program `juggler` (`crates/juggler-launcher`) and `juggler-fetch`, which it becomes
(`crates/juggler-fetch-cli`). Who calls maturin itself does this before:

    python tools/build_backend.py
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
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
    build_programs()
    name: str = maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(
    wheel_directory: str,
    config_settings: dict[str, Any] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """The hook of PEP 660."""
    build_programs()
    name: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def build_programs() -> None:
    """Build the programs and lay them where maturin takes the wheel's scripts from.

    `juggler-fetch` is built as the library is, with which it shares nearly all that it consists of.
    """
    arguments = shlex.split(os.environ.get("MATURIN_PEP517_ARGS", ""))
    library = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    library.add_argument("--profile", default="release")
    library.add_argument("--locked", action="store_true")
    said, _ = library.parse_known_args(arguments)
    for package, program, profile in (
        ("juggler-launcher", "juggler", "launcher"),
        ("juggler-fetch-cli", "juggler-fetch", said.profile),
    ):
        command = ["cargo", "rustc", f"--profile={profile}", "--package", package]
        command += ["--bin", program, "--message-format=json-render-diagnostics"]
        command += ["--locked"] if said.locked else []
        command += ["--", "-C", "strip=symbols"]
        messages = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        found = [json.loads(line).get("executable") for line in messages.splitlines()]
        (built,) = (executable for executable in found if executable)
        # Under another name first: a program that runs can't be written.
        copy = SCRIPTS.with_name(f"{program}.new")
        shutil.copy2(built, copy)
        copy.replace(SCRIPTS / program)


if __name__ == "__main__":
    build_programs()
