"""Check which layer uses which, and where the dangerous things stand.

    python tools/check_layers.py [ROOT]

* Arrows between the crates run one way: sync, policy -> ipc, loop, fetch -> fetch-cli; all ->
  python.  No crate but `juggler-python` may reach PyO3, at any depth.
* `unsafe` is denied in the whole workspace and allowed in the modules of `UNSAFE`; an entry that
  is not needed any more is an error too.
* The engine's atomics come from `juggler_sync::sync`, the facade that loom replaces, so that its
  models judge the very code that ships.  The exceptions are in `ATOMICS`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# crate -> the crates of ours that it may depend on
ARROWS: dict[str, set[str]] = {
    "juggler-sync": set(),
    "juggler-trace": set(),
    "juggler-ipc": {"juggler-sync"},
    "juggler-loop": {"juggler-sync"},
    "juggler-policy": set(),
    "juggler-fetch": {"juggler-sync", "juggler-policy"},
    "juggler-fetch-cli": {"juggler-sync", "juggler-fetch"},
    "juggler-launcher": set(),
    "juggler-python": {
        "juggler-sync",
        "juggler-trace",
        "juggler-ipc",
        "juggler-loop",
        "juggler-policy",
        "juggler-fetch",
        "juggler-fetch-cli",
    },
}
BINDING = "juggler-python"
# module -> why it cannot do without; each is tested by loom or under stress
UNSAFE = {
    "juggler-fetch-cli/src/main.rs": "what signals do",
    "juggler-fetch/src/window.rs": "a system call on a socket",
    "juggler-fetch/src/write_back.rs": "a system call on a file",
    "juggler-ipc/src/arena.rs": "blocks of memory that other processes write",
    "juggler-ipc/src/heap.rs": "structures placed in blocks that keep their segment alive",
    "juggler-ipc/src/lane.rs": "messages in memory that the peer writes",
    "juggler-ipc/src/ring.rs": "bytes go into memory that other processes write",
    "juggler-ipc/src/pool/parent.rs": "payloads in slots that the parent owns",
    "juggler-ipc/src/pool/payload.rs": "copies into and out of shared memory",
    "juggler-ipc/src/pool/seat.rs": "payloads in slots that the worker has taken",
    "juggler-ipc/src/pool/table.rs": "what lies in the pool's segment consists of atomics",
    "juggler-ipc/src/sys/process.rs": "processes as descriptors, epoll, signals",
    "juggler-ipc/src/segment.rs": "references into memory that other processes write",
    "juggler-ipc/tests/pool.rs": "the tests fork",
    "juggler-ipc/tests/ring.rs": "its tests copy frames out",
    "juggler-ipc/src/sys/linux.rs": "memory files and their mappings",
    "juggler-ipc/src/sys/socket.rs": "descriptors sent over sockets",
    "juggler-ipc/src/sys/testing.rs": "the unit tests fork",
    "juggler-launcher/src/main.rs": "the process's words, and becoming another program",
    "juggler-loop/src/clock.rs": "a system call",
    "juggler-loop/src/net.rs": "system calls on sockets",
    "juggler-loop/src/poll/epoll.rs": "epoll and eventfd",
    "juggler-loop/src/search.rs": "a function of the C library",
    "juggler-sync/src/future.rs": "the result's cell, handed over by the state word",
    "juggler-sync/src/guarded.rs": "what the engine's own short lock guards",
    "juggler-sync/src/once.rs": "a value made once, by the exchange of a pointer",
    "juggler-sync/src/sys/linux.rs": "the futex system call",
    "juggler-sync/tests/loom/main.rs": "the models look into guarded cells",
    "juggler-python/src": "the binding's modules speak the interpreter's C API",
}
# engine crate -> module -> why std's atomics do there
ATOMICS = {
    "juggler-sync": {
        "juggler-sync/src/sync.rs": "the facade itself",
        "juggler-sync/src/sys/fence.rs": "the system's fences, for which a model has its own",
    },
    "juggler-ipc": {},
    "juggler-policy": {},
    "juggler-fetch": {},
    "juggler-fetch-cli": {"juggler-fetch-cli/src/main.rs": "a flag that a signal sets"},
    "juggler-launcher": {},
    "juggler-loop": {},
    "juggler-trace": {"juggler-trace/src": "counters and switches that order nothing else"},
}
ALLOW_UNSAFE = re.compile(r"\ballow\(unsafe_code\)")
STD_ATOMICS = re.compile(r"\b(?:std|core)::sync::(?:atomic\b|\{[^}]*\batomic\b)")
UNIT_TESTS = re.compile(r"^#\[cfg\((?:all\()?test\b", re.MULTILINE)


def metadata(root: Path) -> dict[str, Any]:
    """What cargo knows of the workspace and everything it depends on."""
    command = ["cargo", "metadata", "--format-version", "1", "--all-features"]
    output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def wrong_arrows(data: dict[str, Any]) -> Iterator[str]:
    """Dependencies between the crates, and on PyO3, that go against the layers."""
    names = {package["id"]: package["name"] for package in data["packages"]}
    uses = {
        node["id"]: {dependency["pkg"] for dependency in node["deps"]}
        for node in data["resolve"]["nodes"]
    }
    members = set(data["workspace_members"])
    for member in sorted(members, key=names.__getitem__):
        name = names[member]
        if name not in ARROWS:
            yield f"{name}: a new crate: say in ARROWS what it may depend on"
            continue
        for other in sorted(names[used] for used in uses[member] & members):
            if other not in ARROWS[name]:
                yield f"{name} depends on {other}, against the arrows"
        reached: set[str] = set()
        ahead = [member]
        while ahead:
            new = uses[ahead.pop()] - reached
            reached |= new
            ahead += new
        if name != BINDING and any(names[package].startswith("pyo3") for package in reached):
            yield f"{name} reaches PyO3: only {BINDING} may know Python"


def misplaced(
    root: Path, modules: str, pattern: re.Pattern[str], listed: dict[str, str]
) -> Iterator[str]:
    """Modules with the pattern outside the list, and entries of the list without it."""
    crates = root / "crates"
    used: set[str] = set()
    for path in sorted(crates.glob(modules)):
        name = path.relative_to(crates).as_posix()
        # Unit tests stand last in their module, and may use what they like.
        code = UNIT_TESTS.split(path.read_text())[0]
        found = pattern.search(code)
        if not found:
            continue
        entries = [entry for entry in listed if name == entry or name.startswith(f"{entry}/")]
        used.update(entries)
        if not entries:
            yield f"crates/{name}: {found[0]!r} in a module that is not listed"
    for entry in listed.keys() - used:
        yield f"{entry}: listed in {Path(__file__).name}, but nothing there needs it"


def main() -> int:
    """Print every violation and return the exit status."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])
    problems = [
        *wrong_arrows(metadata(root)),
        *misplaced(root, "**/*.rs", ALLOW_UNSAFE, UNSAFE),
        *(
            problem
            for crate in sorted(ARROWS.keys() - {BINDING})
            for problem in misplaced(root, f"{crate}/src/**/*.rs", STD_ATOMICS, ATOMICS[crate])
        ),
    ]
    for problem in problems:
        print(f"check_layers: {problem}", file=sys.stderr)
    if not problems:
        print(f"check_layers: {len(ARROWS)} crates, every arrow as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
