"""Names, parts and room on the disk: what becomes of files in the folder."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import FETCH, FETCH_IN_PYTHON, Command
from misbehaving import Request, Server
from refusing import LACKING, SYNCS, refusing

BODY = bytes(range(256)) * 1000
LARGE = BODY * 140
"""Large enough to go to the disk while it comes."""


def serves(request: Request) -> None:
    request.serve(BODY)


def breaks_off(request: Request) -> None:
    request.serve(BODY, until=100_000 if request.count == 0 else None)


def test_two_addresses_with_one_name_are_kept_apart(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/a/x.tar.gz"] = lambda request: request.serve(b"a")
    server.pages["/b/x.tar.gz"] = lambda request: request.serve(b"b")
    run = command("/a/x.tar.gz", "/b/x.tar.gz", "/a/x.tar.gz")
    assert run.status == 0
    names = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert names.keys() == {"x.tar.gz", "x-1.tar.gz", "x-2.tar.gz"}
    assert sorted(names.values()) == [b"a", b"a", b"b"]


def test_a_file_that_was_there_is_not_touched(
    server: Server, folder: Path, command: Command
) -> None:
    folder.mkdir()
    (folder / "x").write_text("mine")
    server.pages["/x"] = serves
    run = command("/x")
    assert run.files["/x"]["path"] == str(folder / "x-1")
    assert (folder / "x").read_text() == "mine" and (folder / "x-1").read_bytes() == BODY


def test_a_file_that_was_there_is_replaced_where_that_is_asked_for(
    server: Server, folder: Path, command: Command
) -> None:
    folder.mkdir()
    (folder / "x").write_text("mine")
    server.pages["/a/x"] = server.pages["/b/x"] = serves
    assert command("/a/x", "/b/x", "--overwrite").status == 0
    assert {path.name for path in folder.iterdir()} == {"x", "x-1"}
    assert (folder / "x").read_bytes() == BODY


def test_a_file_that_fails_does_not_replace_one(
    server: Server, folder: Path, command: Command
) -> None:
    folder.mkdir()
    (folder / "x").write_text("mine")
    server.pages["/x"] = breaks_off
    assert command("/x", "--overwrite", "--retries", "0").status == 1
    assert (folder / "x").read_text() == "mine"


def test_the_server_names_the_file(server: Server, folder: Path, command: Command) -> None:
    header = "Content-Disposition: attachment; filename=\"e.txt\"; filename*=UTF-8''%C3%A9.txt"
    server.pages["/get?id=3"] = lambda request: request.answer("200 OK", header, body=BODY)
    server.pages["/old"] = lambda request: request.answer("301 Moved", "Location: /dir/new%20name")
    server.pages["/dir/new%20name"] = serves
    run = command("/get?id=3", "/old")
    assert run.status == 0
    assert {path.name for path in folder.iterdir()} == {"é.txt", "new name"}
    assert run.files["/old"]["source"] == server.url("/dir/new%20name")


def test_a_later_call_continues(server: Server, folder: Path, command: Command) -> None:
    server.pages["/x"] = breaks_off
    assert command("/x", "--retries", "0").status == 1
    part, about = sorted(folder.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert part.read_bytes() == BODY[:100_000] and 'etag "1"' in about.read_text()
    run = command("/x")
    assert run.status == 0 and run.files["/x"]["resumed"] == 100_000
    assert server.asked("/x")[1].headers["range"] == "bytes=100000-"
    assert server.asked("/x")[1].headers["if-range"] == '"1"'
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


def test_without_resuming_every_attempt_begins_anew(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/x"] = breaks_off
    assert command("/x", "--retries", "0").status == 1
    server.pages["/x"] = lambda request: request.serve(
        BODY, until=100_000 if request.count == 1 else None
    )
    assert command("/x", "--no-resume").status == 0
    assert all(request.first_byte is None for request in server.asked("/x"))
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


@pytest.mark.parametrize("damage", ["torn", "other address", "other boot", "lost"])
def test_a_part_that_is_not_to_be_trusted_is_not_continued(
    server: Server, folder: Path, command: Command, damage: str
) -> None:
    server.pages["/x"] = breaks_off
    assert command("/x", "--retries", "0").status == 1
    (about,) = folder.glob("*.about")
    text = about.read_text()
    if damage == "torn":
        about.write_text(text.removesuffix("end\n"))
    elif damage == "other address":
        about.write_text(text.replace("/x\n", "/y\n"))
    elif damage == "other boot":
        # The machine went down before anything was synced.
        lines = [line for line in text.splitlines() if not line.startswith(("boot", "synced"))]
        about.write_text("\n".join([*lines[:-1], "boot other", "end", ""]))
    else:
        about.unlink()
    assert command("/x").status == 0
    assert server.asked("/x")[-1].first_byte is None
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


def test_after_another_boot_what_was_synced_is_continued(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/x"] = breaks_off
    assert command("/x", "--retries", "0").status == 1
    (about,) = folder.glob("*.about")
    lines = about.read_text().splitlines()
    lines = ["boot other" if line.startswith("boot") else line for line in lines]
    about.write_text("\n".join([*lines, ""]).replace("synced 100000", "synced 5000"))
    assert command("/x").files["/x"]["resumed"] == 5000
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


def stops_midway(request: Request) -> None:
    if request.count == 0:
        request.answer("200 OK", 'ETag: "1"', body=BODY[:100_000], length=len(BODY))
        request.connection.recv(1)  # until the client is gone
    else:
        request.serve(BODY)


@pytest.mark.parametrize("refused", [[], ["O_TMPFILE"]], ids=str)
@pytest.mark.parametrize(
    ("fetch", "signum"),
    [(FETCH, signal.SIGKILL), (FETCH, signal.SIGINT), (FETCH_IN_PYTHON, signal.SIGINT)],
    ids=["killed", "interrupted", "interrupted in Python"],
)
@pytest.mark.parametrize("sync", ["--sync", "--no-sync"])
def test_a_call_that_is_killed_leaves_what_the_next_one_continues(
    server: Server,
    folder: Path,
    command: Command,
    fetch: list[str],
    sync: str,
    signum: signal.Signals,
    refused: list[str],
) -> None:
    server.pages["/x"] = stops_midway
    words, before = [*fetch, "-o", str(folder), sync, server.url("/x")], refusing(*refused)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=before) as process:
        while not any(path.stat().st_size == 100_000 for path in folder.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    if signum == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted: 0 of 1 files whole" in errors and "Traceback" not in errors
    assert not (folder / "x").exists()
    assert command("/x").files["/x"]["resumed"] == 100_000
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


@pytest.mark.parametrize("sync", ["--sync", "--no-sync"])
@pytest.mark.parametrize("body", [BODY * 12, LARGE], ids=len)
def test_a_kill_loses_nothing_that_was_there_for_a_moment(
    server: Server, folder: Path, command: Command, sync: str, body: bytes
) -> None:
    there = len(body) * 3 // 4 + 1

    def page(request: Request) -> None:
        if request.count == 0:
            request.answer("200 OK", 'ETag: "1"', body=body[:there], length=len(body))
            request.connection.recv(1)  # until the client is gone
        else:
            request.serve(body)

    server.pages["/x"] = page
    with subprocess.Popen([*FETCH, "-o", str(folder), "-q", sync, server.url("/x")]) as process:
        while not any(path.stat().st_size == there for path in folder.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert command("/x").files["/x"]["resumed"] == there
    assert (folder / "x").read_bytes() == body


@pytest.mark.parametrize("refused", [[], ["O_TMPFILE"]], ids=str)
@pytest.mark.parametrize("sync", ["--sync", "--no-sync"])
def test_no_moment_for_a_kill_leaves_half_a_file(
    server: Server, folder: Path, command: Command, sync: str, refused: list[str]
) -> None:
    bodies = {f"/{number}": os.urandom(number * 5_000) for number in range(60)}
    server.pages |= dict.fromkeys(bodies, lambda request: request.serve(bodies[request.path]))
    words = [*FETCH, "-o", str(folder), "-q", sync, *map(server.url, bodies)]
    chance = random.Random(5)
    for _ in range(8):
        with subprocess.Popen(
            words, stderr=subprocess.DEVNULL, preexec_fn=refusing(*refused)
        ) as process:
            time.sleep(chance.uniform(0.05, 0.4))
            process.kill()
        for path in folder.glob("*"):
            if ".part" not in path.name:
                body = path.read_bytes()
                assert body == bodies["/" + path.name.partition("-")[0]], path
                path.unlink()
    assert command(*bodies).status == 0
    found = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    assert found == bodies


def _of_each_size(server: Server) -> dict[str, bytes]:
    """Pages: small ones, enough for one sync of all, and one that goes there while it comes."""
    bodies = {f"/{number}": os.urandom(1_000) for number in range(20)}
    bodies |= {"/middle": BODY * 5, "/large": LARGE}
    server.pages |= dict.fromkeys(bodies, lambda request: request.serve(bodies[request.path]))
    return bodies


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=str)
def test_without_syncing_nothing_waits_for_the_disk(
    server: Server, folder: Path, command: Command, options: list[str]
) -> None:
    bodies = _of_each_size(server)
    run = command(*bodies, "--no-sync", *options, before=refusing(*SYNCS))
    assert run.status == 0, run.stderr
    assert {f"/{path.name}": path.read_bytes() for path in folder.iterdir()} == bodies


@pytest.mark.parametrize("options", [[], ["--no-sync", "--sync"]], ids=str)
def test_what_is_not_on_the_disk_has_no_name(
    server: Server, folder: Path, command: Command, options: list[str]
) -> None:
    bodies = _of_each_size(server)
    run = command(*bodies, *options, before=refusing(*SYNCS))
    assert run.status == 1
    assert all("cannot sync" in run.files[name]["error"]["message"] for name in bodies)
    assert all(".part" in path.name for path in folder.iterdir())


def test_a_part_that_was_not_synced_does_not_say_so(
    server: Server, folder: Path, command: Command
) -> None:
    server.pages["/x"] = breaks_off
    assert command("/x", "--retries", "0", "--no-sync", before=refusing(*SYNCS)).status == 1
    (about,) = folder.glob("*.about")
    assert "synced" not in about.read_text()
    run = command("/x", "--no-sync")
    assert run.files["/x"]["resumed"] == 100_000
    assert [path.read_bytes() for path in folder.iterdir()] == [BODY]


def test_two_calls_do_not_write_one_part(server: Server, folder: Path, command: Command) -> None:
    server.pages["/x"] = stops_midway
    words = [*FETCH, "-o", str(folder), server.url("/x")]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        while not any(path.stat().st_size == 100_000 for path in folder.glob("*.part")):
            assert process.poll() is None
            time.sleep(0.01)
        run = command("/x")
        process.kill()
    assert run.status == 1 and run.files["/x"]["error"]["kind"] == "disk"
    assert "another process is writing it" in run.files["/x"]["error"]["message"]


def test_a_folder_that_can_not_be_made(server: Server, tmp_path: Path, command: Command) -> None:
    (tmp_path / "files").write_text("in the way")
    server.pages["/x"] = serves
    run = command("/x")
    assert run.status == 2 and "cannot create the folder" in run.stderr


@pytest.mark.parametrize("refused", [*([name] for name in LACKING), LACKING], ids=str)
def test_a_file_system_that_lacks_something(
    server: Server, folder: Path, command: Command, refused: list[str]
) -> None:
    folder.mkdir()
    (folder / "small").write_text("mine")
    server.pages |= {
        "/small": lambda request: request.serve(b"small"),
        "/broken": breaks_off,
        "/large": lambda request: request.serve(LARGE),
    }
    run = command("/small", "/broken", "/large", before=refusing(*refused))
    assert run.status == 0, run.stderr
    assert server.asked("/broken")[1].first_byte == 100_000
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert found == {"small": b"mine", "small-1": b"small", "broken": BODY, "large": LARGE}


def test_a_disk_without_room_is_told_of_before(
    server: Server, folder: Path, command: Command
) -> None:
    """The answer never brings a byte: whoever waited for one would stall."""
    server.pages |= {
        "/large": lambda request: request.answer("200 OK", 'ETag: "1"', length=len(LARGE)),
        "/small": lambda request: request.serve(b"small"),
    }
    run = command("/large", "/small", before=refusing("room"))
    assert run.status == 1 and run.files["/large"]["error"]["kind"] == "disk"
    assert "no room for" in run.stderr and run.files["/large"]["attempts"] == 1
    assert [path.name for path in folder.iterdir()] == ["small"]


def _limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_file_that_may_not_grow(server: Server, folder: Path) -> None:
    """What a full disk does, where nothing told of the length before."""

    def page(request: Request) -> None:
        request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(BODY), 1000):
            request.send("3e8\r\n", BODY[at : at + 1000], "\r\n")
        request.send("0\r\n\r\n")

    server.pages |= {"/large": page, "/small": lambda request: request.serve(b"small")}
    done = subprocess.run(
        [*FETCH, "-o", str(folder), server.url("/large"), server.url("/small")],
        preexec_fn=lambda: _limit(50_000),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and "cannot write" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["small"]


_MOUNTED = """
set -e
folder="$1" mount="$2"; shift 2
mkdir -p "$folder" "$folder.up" "$folder.work"
eval "$mount"
status=0
"$@" || status=$?
cd "$folder"
sha256sum -- *
exit $status
"""
_TMPFS = 'mount -t tmpfs -o size=200m tmpfs "$folder"'
_SMALL = 'mount -t tmpfs -o size=3m tmpfs "$folder"'
_RAMFS = 'mount -t ramfs ramfs "$folder"'
_OVERLAY = (
    'mount -t overlay -o "userxattr,lowerdir=$folder,upperdir=$folder.up,workdir=$folder.work" '
    'overlay "$folder"'
)


def fetch_mounted(folder: Path, mount: str, *words: str) -> tuple[int, str, dict[str, str]]:
    """Fetch into a file system of its own: exit status, errors, and the files' hashes."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    trial = [*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(trial, check=False).returncode:
        pytest.skip("needs user namespaces, to mount a file system")
    done = subprocess.run(
        [
            *unshare,
            "sh",
            "-c",
            _MOUNTED,
            "sh",
            str(folder),
            mount,
            *FETCH,
            "-o",
            str(folder),
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    hashes = {name: hash_ for hash_, name in map(str.split, done.stdout.splitlines())}
    return done.returncode, done.stderr, hashes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("mount", [_TMPFS, _RAMFS, _OVERLAY], ids=["tmpfs", "ramfs", "overlay"])
def test_other_file_systems(server: Server, folder: Path, mount: str) -> None:
    server.pages |= {"/large": lambda request: request.serve(LARGE), "/broken": breaks_off}
    urls = [server.url("/large"), server.url("/broken"), server.url("/broken")]
    status, errors, hashes = fetch_mounted(folder, mount, *urls)
    assert status == 0, errors
    whole = sha256(BODY)
    assert hashes == {"large": sha256(LARGE), "broken": whole, "broken-1": whole}


@pytest.mark.parametrize("told", [True, False])
def test_a_disk_that_is_full(server: Server, folder: Path, told: bool) -> None:
    body = os.urandom(5_000_000)

    def tells_no_length(request: Request) -> None:
        request.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 500_000):
            request.send(f"{500_000:x}\r\n", body[at : at + 500_000], "\r\n")
        request.send("0\r\n\r\n")

    server.pages["/large"] = (lambda request: request.serve(body)) if told else tells_no_length
    server.pages["/small"] = lambda request: request.serve(b"small")
    urls = [server.url("/large"), server.url("/small")]
    status, errors, hashes = fetch_mounted(folder, _SMALL, "--per-host", "1", *urls)
    assert status == 1
    assert ("no room for" if told else "No space left on device") in errors
    # The room is there again for the other file.
    assert hashes == {"small": sha256(b"small")}


@pytest.mark.parametrize("size", [2, 65_534, 65_536, 65_538])
def test_what_waits_in_memory_is_continued_and_checked(
    server: Server, folder: Path, command: Command, size: int
) -> None:
    body = random.Random(size).randbytes(size)
    half = size // 2
    server.pages["/x"] = lambda request: request.serve(
        body, until=half if request.first_byte is None else None
    )
    right, wrong = (f"sha256:{hashlib.sha256(text).hexdigest()}" for text in (body, b""))
    run = command("/x", "--retries", "0")
    assert run.status == 1
    (part,) = folder.glob("x.*.part")
    assert part.read_bytes() == body[:half]
    run = command("/x", "--checksum", right)
    assert (run.status, run.files["/x"]["resumed"]) == (0, half)
    assert (folder / "x").read_bytes() == body
    run = command("/x", "--checksum", right)
    assert (run.status, run.files["/x"]["attempts"]) == (0, 2)
    assert (folder / "x-1").read_bytes() == body
    run = command("/x", "--checksum", wrong)
    assert run.files["/x"]["error"]["kind"] == "digest"
    assert {path.name for path in folder.iterdir()} == {"x", "x-1"}
