"""The header of a table: where its numbers come from."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from harness.contenders import Contender
from harness.measure import Effort

# Fewer rounds than this, and a median is at the mercy of two disturbances.
_PUBLISHABLE = 7


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line)
    return next(models, platform.machine())


def _optimised() -> str:
    """Whether the build is optimised: one that is not flatters every native contender."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "--enable-optimizations" in arguments:
        return "optimised: PGO" + (" and LTO" if "--with-lto" in arguments else "")
    # Debian and Ubuntu profile in their own rules, then take the flags out of the sysconfig.
    if sysconfig.get_config_var("LIBDIR") == f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}":
        return "a Debian or Ubuntu package: PGO and LTO by their rules, unseen by sysconfig"
    return "NOT OPTIMISED: configured without --enable-optimizations"


def _build() -> str:
    jit = getattr(sys, "_jit", None)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    facts = [
        _optimised(),
        f"GIL {'on' if gil else 'off'}",
        f"JIT {'on' if jit and jit.is_enabled() else 'off'}",
        platform.python_compiler(),
    ]
    if sysconfig.get_config_var("Py_DEBUG"):
        facts.insert(0, "DEBUG BUILD")
    return "; ".join(facts)


def _commit() -> str:
    """The checkout's commit, marked where the files differ from it; empty outside of one."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" + changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _profiled() -> str:
    """How juggler was built. The wheels are profile-guided."""
    try:
        from juggler import _juggler
    except ImportError:
        return ""
    if _juggler.PROFILE_GUIDED:
        return "; a profile-guided build"
    return "; a PLAIN BUILD, which is slower than the profile-guided one of the wheels"


def machine(version: str) -> dict[str, str]:
    """Where and what was measured: the processor, the interpreter, juggler's `version`."""
    commit = _commit()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load before": f"{load} (1, 5, 15 minutes)",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": _build(),
        "juggler": version + (f", commit {commit}" if commit else "") + _profiled(),
    }


def header(contenders: Sequence[Contender], effort: Effort, loop: float) -> dict[str, str]:
    """The facts that a reader needs to judge the numbers, in the order of reading."""
    versions = {contender.name: contender.version for contender in contenders}
    facts = machine(versions.pop("juggler"))
    # A version of its own only where a distribution of its own was measured.
    facts |= {name: known for name, known in versions.items() if known != "this interpreter's"}
    facts["rounds"] = f"{effort.rounds}, interleaved, order rotating; medians over the rounds"
    if effort.rounds < _PUBLISHABLE or effort.share < 1:
        facts["rounds"] += "; TOO FEW OR TOO SMALL TO PUBLISH"
    facts["loop"] = f"{loop * 1e9:.2f} ns a statement, included in every time"
    facts["settings"] = (
        f"cyclic gc off while a turn runs; switch interval {sys.getswitchinterval() * 1e3:g} ms"
    )
    return facts
