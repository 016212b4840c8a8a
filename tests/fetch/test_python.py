"""`juggler.fetch` from Python: as results come, in loops, and what is left behind."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leftovers import open_files, threads
from misbehaving import Request, Server
from refusing import SYNCS, refusing

import juggler
from juggler.downloads import Downloads, FetchError, File

BODY = b"juggler " * 20_000


def serves(request: Request) -> None:
    request.serve(BODY)


def stalls(request: Request) -> None:
    request.answer("200 OK", 'ETag: "1"', body=BODY[:1000], length=len(BODY))
    request.connection.recv(1)  # until the client is gone


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = threads(), open_files()
    yield
    # A thread that was joined is in the system's lists for a moment more. Those of other tests may
    # have been, too, when this one began.
    _until(lambda: not (threads() - before[0] or open_files() - before[1]))


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def server(nothing_left_behind: None) -> Iterator[Server]:
    with Server() as server:
        yield server


_UNSYNCED = """
import sys, juggler
(file,) = juggler.fetch(sys.argv[1], into=sys.argv[2], sync=sys.argv[3] == "True", errors="return")
print(file.ok, file.error)
"""


@pytest.mark.parametrize("sync", [True, False])
def test_the_disk_is_waited_for_unless_that_is_not_wanted(
    server: Server, folder: Path, sync: bool
) -> None:
    server.pages["/x"] = serves
    told = subprocess.run(
        [sys.executable, "-c", _UNSYNCED, server.url("/x"), str(folder), str(sync)],
        preexec_fn=refusing(*SYNCS),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert told == "True None\n" if not sync else "cannot sync" in told
    assert (folder / "x").exists() is not sync


def test_all_of_them_in_their_order(server: Server, folder: Path) -> None:
    def slow(request: Request) -> None:
        time.sleep(0.1)
        request.serve(b"slow")

    server.pages |= {"/slow": slow, "/fast": lambda request: request.serve(b"fast")}
    files = juggler.fetch([server.url("/slow"), server.url("/fast")], into=folder).wait()
    assert [file.url for file in files] == [server.url("/slow"), server.url("/fast")]
    assert [file.path and file.path.read_bytes() for file in files] == [b"slow", b"fast"]
    assert all(file.ok and file.size == 4 and file.attempts == 1 for file in files)


def test_as_they_come(server: Server, folder: Path) -> None:
    first_is_out = threading.Event()

    def waits(request: Request) -> None:
        first_is_out.wait()
        request.serve(b"second")

    server.pages |= {"/waits": waits, "/first": serves}
    downloads = juggler.fetch([server.url("/waits"), server.url("/first")], into=folder)
    assert next(downloads).url == server.url("/first")
    with pytest.raises(TimeoutError):
        downloads.next(timeout=0.01)
    assert [file.stage for file in downloads.progress()] == ["asking"]
    first_is_out.set()
    assert [file.url for file in downloads] == [server.url("/waits")]
    assert list(downloads) == [] and downloads.received() == len(BODY) + 6


def test_an_endless_input_is_read_no_further_than_it_need_be(server: Server, folder: Path) -> None:
    server.pages["/x"] = serves
    given = 0

    def endless() -> Iterator[File]:
        nonlocal given
        for count in itertools.count():
            given += 1
            yield File(server.url("/x"), name=f"{count}")

    with juggler.fetch(endless(), into=folder, limit=2) as downloads:
        names = {file.path and file.path.name for file in itertools.islice(downloads, 20)}
    assert len(names) == 20 and given < 400


def test_one_address_and_its_checksum(server: Server, folder: Path) -> None:
    server.pages["/x"] = serves
    with pytest.raises(FetchError, match="wrong digest") as raised:
        juggler.fetch(server.url("/x"), into=folder, checksum="sha1:" + "0" * 40).wait()
    error = pickle.loads(pickle.dumps(raised.value))
    assert (error.url, error.kind, error.status) == (server.url("/x"), "digest", None)
    assert str(error) == str(raised.value)


def test_what_a_file_that_fails_does(server: Server, folder: Path) -> None:
    server.pages |= {"/x": serves, "/no": lambda request: request.answer("404 Not Found")}
    urls = [server.url("/no"), server.url("/x")]
    with pytest.raises(FetchError, match="404") as raised:
        juggler.fetch(urls, into=folder).wait()
    assert raised.value.status == 404
    returned = juggler.fetch(urls, into=folder, errors="return").wait()
    assert [file.ok for file in returned] == [False, True] and returned[0].path is None
    skipped = juggler.fetch(urls, into=folder, errors="skip").wait()
    assert [file.url for file in skipped] == [server.url("/x")]


def test_options_that_are_wrong_are_told_at_once(tmp_path: Path) -> None:
    for wrong in (
        {"limit": 0},
        {"rate": "fast"},
        {"rate": -1.0},
        {"stall": float("nan")},
        {"errors": "ignore"},
        {"checksum": "sha256:0"},
        {"headers": {"a b": "c"}},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
            juggler.fetch("http://127.0.0.1/", into=tmp_path, **wrong)


def test_stopping_in_the_middle_keeps_the_part(server: Server, folder: Path) -> None:
    server.pages |= {"/stalls": stalls, "/x": serves}
    with juggler.fetch([server.url("/stalls"), server.url("/x")], into=folder) as downloads:
        assert next(downloads).url == server.url("/x")
        while downloads.received() < len(BODY) + 1000:
            time.sleep(0.01)
    (part,) = folder.glob("*.part")
    assert part.read_bytes() == BODY[:1000]
    with pytest.raises(StopIteration):
        next(downloads)


def test_what_nobody_keeps_ends(server: Server, folder: Path) -> None:
    server.pages["/stalls"] = stalls
    juggler.fetch(server.url("/stalls"), into=folder)
    assert not (folder / "stalls").exists()


def test_ctrl_c_ends_it(server: Server, folder: Path) -> None:
    server.pages["/stalls"] = stalls
    downloads = juggler.fetch(server.url("/stalls"), into=folder)

    def interrupt() -> None:
        while not server.requests:
            time.sleep(0.01)
        time.sleep(0.2)  # until the main thread waits
        os.kill(os.getpid(), signal.SIGINT)

    def main() -> None:
        thread.start()
        downloads.wait()

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        main()
    thread.join()
    _until(lambda: threads()["juggler-fetch"] == 0)
    assert downloads.received() == 1000


def test_in_a_loop(server: Server, folder: Path) -> None:
    server.pages |= {f"/{count}": serves for count in range(20)}
    urls = [server.url(path) for path in server.pages]

    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        ticking = asyncio.create_task(tick())
        files = await juggler.fetch(urls, into=folder)
        assert [file.url for file in files] == urls
        # The loop ran meanwhile.
        assert ticks > 0
        ticking.cancel()
        streamed = [file.url async for file in juggler.fetch(urls, into=folder)]
        assert sorted(streamed) == sorted(urls)

    asyncio.run(main())


def test_a_task_that_is_cancelled_stops_it(server: Server, folder: Path) -> None:
    server.pages["/stalls"] = stalls

    async def main() -> None:
        downloads = juggler.fetch(server.url("/stalls"), into=folder)

        async def everything() -> None:
            async with downloads:
                await downloads

        task = asyncio.create_task(everything())
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(folder.glob("stalls"))

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_fork(server: Server, folder: Path) -> None:
    server.pages["/stalls"] = stalls
    downloads: Downloads = juggler.fetch(server.url("/stalls"), into=folder)
    pid = os.fork()
    if pid == 0:
        status = 9
        try:
            downloads.next(timeout=5)
        except RuntimeError as error:
            status = 7 if "process that began them" in str(error) else 8
        finally:
            del downloads
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    downloads.close()


def test_the_start_of_juggler_does_not_import_it() -> None:
    code = (
        "import sys, juggler; before = 'juggler.downloads' in sys.modules;"
        "juggler.fetch; print(before, 'juggler.downloads' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
