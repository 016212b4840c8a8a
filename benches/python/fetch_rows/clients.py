"""Who downloads: each contender is the command line that its users would write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness.contenders import Contender, version

CONNECTIONS = 16
ROOT = Path(__file__).parents[3]

Command = Callable[[Path, Path], list[str]]
"""The command that fetches the addresses in a file into a folder."""


_WHY_UNSYNCED = "juggler with its files in the page cache in the end, as wget2's are"
_WHY_SYNCED = "wget2 with its files on the disk in the end, as juggler's are"


def program(name: str) -> str | None:
    """Where a program is: what was brought, or what the system has."""
    brought = ROOT / ".cache" / "programs" / name / "bin" / name
    return str(brought) if brought.exists() else shutil.which(name)


def contenders() -> list[Contender]:
    """Everybody that is installed; the first is the baseline."""
    wget2 = _program("wget2", _wget2)
    synced = {name: _synced(command) for name, command in wget2.classes.items()}
    return [
        wget2,
        Contender("juggler", version("juggler"), {"fetch": _juggler}),
        Contender(
            "juggler --no-sync",
            version("juggler"),
            {"fetch": _unsynced},
            informative=_WHY_UNSYNCED,
        ),
        Contender("wget2; sync", wget2.version, synced, informative=_WHY_SYNCED),
        _program("curl", _curl),
        _program("aria2c", _aria2c),
        Contender("aiohttp", version("aiohttp"), {"fetch": _aiohttp}),
    ]


def _program(name: str, command: Callable[[str], Command]) -> Contender:
    path = program(name)
    if path is None:
        return Contender(name, "not installed", {})
    told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return Contender(name, told.splitlines()[0], {"fetch": command(path)})


def _juggler(addresses: Path, folder: Path) -> list[str]:
    limits = [f"--limit={CONNECTIONS}", f"--per-host={CONNECTIONS}"]
    command = str(Path(sys.executable).with_name("juggler"))
    return [command, "fetch", "-q", *limits, f"-i{addresses}", f"-o{folder}"]


def _unsynced(addresses: Path, folder: Path) -> list[str]:
    """With the files in the page cache in the end, as everybody else's are."""
    return [*_juggler(addresses, folder), "--no-sync"]


def _wget2(path: str) -> Command:
    options = ["-q", "--no-config", "--no-hsts", "--no-robots", f"--max-threads={CONNECTIONS}"]
    return lambda addresses, folder: [path, *options, f"-i{addresses}", f"-P{folder}"]


def _synced(command: Command) -> Command:
    """With the files on the disk in the end, which juggler promises and nobody else does."""
    script = 'folder=$1; shift; "$@" && sync -f "$folder"'
    return lambda addresses, folder: [
        *("sh", "-c", script, "sh", str(folder)),
        *command(addresses, folder),
    ]


def _curl(path: str) -> Command:
    def command(addresses: Path, folder: Path) -> list[str]:
        # It reads addresses from a configuration only.
        config = addresses.with_suffix(".curl")
        config.write_text("".join(f"url={url}\n" for url in addresses.read_text().split()))
        many = ["--parallel", "--parallel-immediate", "--parallel-max", str(CONNECTIONS)]
        where = ["--remote-name-all", "--output-dir", str(folder), "-K", str(config)]
        return [path, "-q", "-s", *many, *where]

    return command


def _aria2c(path: str) -> Command:
    many = [f"-j{CONNECTIONS}", f"-x{CONNECTIONS}", f"-s{CONNECTIONS}"]
    options = ["-q", "--no-conf", "--file-allocation=none", *many]
    return lambda addresses, folder: [path, *options, f"-i{addresses}", f"-d{folder}"]


def _aiohttp(addresses: Path, folder: Path) -> list[str]:
    script = Path(__file__).with_name("with_aiohttp.py")
    return [sys.executable, str(script), str(addresses), str(folder), str(CONNECTIONS)]
