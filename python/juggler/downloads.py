"""Files from the web: many at once, continued after faults, and never half a one at its name.

`fetch` is ``juggler.fetch``, and ``juggler fetch`` on the command line. It is ours alone: the
standard library has no module like it.
"""

from __future__ import annotations

import os

from juggler._juggler import FetchEngine
from juggler._records import Record

TYPE_CHECKING = False
# `pathlib` comes with the first file, while others are on their way.
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Literal, Self

__all__ = ["Downloads", "FetchError", "Fetched", "File", "Progress", "fetch"]

_AHEAD = 256
"""How many files the engine knows of beside those in flight; the rest stay in the input."""
_WINDOW = 512
"""How many it knows of, at least, where reading ahead costs nothing, as the input is there."""
_BATCH = 64
"""How many files are handed to the engine at a time: for each batch its thread is woken."""


class FetchError(Exception):
    """Why a file could not be fetched.

    Its text says what happened, with the values that matter. `url` is the address that was asked
    for, `kind` the sort of failure in a word (``address``, ``name``, ``connect``, ``tls``,
    ``timeout``, ``stalled``, ``truncated``, ``status``, ``redirects``, ``length``, ``range``,
    ``changed``, ``digest``, ``coding``, ``disk``, ``deadline``, ``protocol``), and `status` the
    server's, or None.
    """

    def __init__(self, message: str, url: str, kind: str, status: int | None = None) -> None:
        super().__init__(message, url, kind, status)
        self.url = url
        self.kind = kind
        self.status = status

    def __str__(self) -> str:
        return f"{self.url}: {self.args[0]}"


class File(Record):
    """A file to fetch, where there is more to say of it than its address.

    Args:
        url: The address, of HTTP or HTTPS. Credentials in it are used, and told to no other host.
        name: The name to give the file in the folder, instead of the server's.
        checksum: What its content must hash to, such as ``sha256:`` and 64 hexadecimal digits;
            ``sha1``, ``sha384`` and ``sha512`` are known as well.
    """

    url: str
    name: str | None = None
    checksum: str | None = None


class Fetched(Record):
    """What came of one file: it is whole at `path`, or `error` says why there is none.

    `url` is the address that was asked for and `source` the one that the file came from after all
    redirects; `size` is in bytes, `resumed` of them were there before the call; `attempts` were
    made in `seconds`.
    """

    url: str
    path: Path | None
    error: FetchError | None
    source: str
    size: int
    resumed: int
    attempts: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the file is whole."""
        return self.error is None


class Progress(Record):
    """How far one file is that is not finished.

    `stage` is ``queued``, ``asking``, ``receiving``, ``waiting`` (for another attempt, in `wait`
    seconds, because of `reason`) or ``syncing``. `length` is None where the server does not tell.
    """

    url: str
    name: str
    stage: str
    received: int
    length: int | None
    attempts: int
    reason: str | None
    wait: float | None


class Downloads:
    """The files of one `fetch`, as they come.

    An iterator, and an asynchronous one: files in the order in which they are finished. `wait` and
    ``await`` give all of them in the order of their addresses. A context manager: at its end
    nothing runs any more. Each file is given out once, and by one thread or task at a time.
    """

    def __init__(
        self,
        engine: FetchEngine,
        files: Iterable[str | File],
        window: int,
        errors: Literal["raise", "return", "skip"],
    ) -> None:
        self._engine = engine
        self._files: Iterator[str | File] = iter(files)
        self._window = window
        self._errors = errors
        self._urls: dict[int, str] = {}
        self._count = 0
        self._exhausted = False
        try:
            self._feed()
        except BaseException:
            self.close()
            raise

    def _feed(self) -> None:
        """Hand on what the engine may know of already, so that endless inputs do not fill it."""
        if len(self._urls) > self._window - _BATCH:
            return
        while not self._exhausted and len(self._urls) < self._window:
            try:
                file = next(self._files)
            except StopIteration:
                self._exhausted = True
                self._engine.close()
                return
            file = File(file) if isinstance(file, str) else file
            self._engine.add(self._count, file.url, file.name, file.checksum)
            self._urls[self._count] = file.url
            self._count += 1

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Fetched:
        return self._next(None)[1]

    def next(self, timeout: float | None = None) -> Fetched:
        """Wait for the next file, as ``next()`` does, but not for ever.

        Args:
            timeout: Seconds to wait; None for as long as it takes. What is fetched goes on after a
                `TimeoutError`.

        Returns:
            The file.

        Raises:
            StopIteration: When every file was given out.
            TimeoutError: If no file is finished in time.
        """
        return self._next(timeout)[1]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Fetched:
        found = await self._anext()
        if found is None:
            raise StopAsyncIteration
        return found[1]

    def __await__(self) -> Generator[object, None, list[Fetched]]:
        return self._all().__await__()

    def wait(self, timeout: float | None = None) -> list[Fetched]:
        """Wait for every file that was not given out yet.

        Blocks without the GIL; Ctrl-C ends it, and every download.

        Args:
            timeout: Seconds that each next file may take; None for as long as it takes. What is
                fetched goes on after a `TimeoutError`.

        Returns:
            The files, in the order of their addresses.

        Raises:
            FetchError: With ``errors="raise"``, that of the first file that failed; the others
                stop.
            TimeoutError: If no file is finished in time.
        """
        found: dict[int, Fetched] = {}
        while True:
            try:
                index, fetched = self._next(timeout)
            except StopIteration:
                return [found[index] for index in sorted(found)]
            found[index] = fetched

    async def _all(self) -> list[Fetched]:
        found: dict[int, Fetched] = {}
        while (one := await self._anext()) is not None:
            found[one[0]] = one[1]
        return [found[index] for index in sorted(found)]

    def _next(self, timeout: float | None) -> tuple[int, Fetched]:
        try:
            while True:
                self._feed()
                told = self._engine.next(timeout)
                if told is None:
                    raise StopIteration
                if (found := self._sorted_out(told)) is not None:
                    return found
        except (StopIteration, TimeoutError):
            raise
        except BaseException:
            self.close()
            raise

    async def _anext(self) -> tuple[int, Fetched] | None:
        try:
            while True:
                self._feed()
                # In this order: what is finished in between rings again.
                self._engine.hush()
                try:
                    told = self._engine.next(0)
                except TimeoutError:
                    await self._news()
                    continue
                if told is None:
                    return None
                if (found := self._sorted_out(told)) is not None:
                    return found
        except BaseException:
            self.close()
            raise

    async def _news(self) -> None:
        """Let the loop run until the engine has something."""
        from asyncio import get_running_loop

        loop = get_running_loop()
        rung = loop.create_future()

        def ring() -> None:
            if not rung.done():
                rung.set_result(None)

        loop.add_reader(self._engine.fileno(), ring)
        try:
            await rung
        finally:
            loop.remove_reader(self._engine.fileno())

    def _sorted_out(
        self,
        told: tuple[
            int,
            tuple[str, str, int, int] | None,
            tuple[str, str, int | None] | None,
            int,
            float,
        ],
    ) -> tuple[int, Fetched] | None:
        """What the engine tells of a file, or None where it is to be skipped."""
        index, fetched, failure, attempts, seconds = told
        url = self._urls.pop(index)
        if failure is not None:
            kind, message, status = failure
            error = FetchError(message, url, kind, status)
            if self._errors == "raise":
                raise error
            if self._errors == "skip":
                return None
            return index, Fetched(url, None, error, url, 0, 0, attempts, seconds)
        assert fetched is not None
        name, source, size, resumed = fetched
        path = _path(name)
        return index, Fetched(url, path, None, source, size, resumed, attempts, seconds)

    def progress(self) -> list[Progress]:
        """How far each file is that is not finished, but for those that are still in the input.

        Returns:
            The files, in the order of their addresses.
        """
        files, _ = self._engine.snapshot()
        return [
            Progress(
                self._urls[index], name, stage, received, length, attempts, *(waits or (None, None))
            )
            for index, stage, name, received, length, attempts, waits in files
            if index in self._urls
        ]

    def received(self) -> int:
        """How many bytes came over the network, those of failed attempts included."""
        return self._engine.snapshot()[1][3]

    def close(self) -> None:
        """Stop what is not finished, and wait until no thread is left.

        Parts of files that can be continued are kept, so that the same call goes on where this one
        stopped.
        """
        self._exhausted = True
        self._engine.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _path(name: str) -> Path:
    from pathlib import Path

    return Path(name)


def fetch(
    urls: str | File | Iterable[str | File],
    *,
    into: str | os.PathLike[str] = ".",
    limit: int = 16,
    per_host: int = 6,
    rate: str | float | None = None,
    retries: int = 5,
    backoff: float = 0.5,
    timeout: float = 30.0,
    stall: float = 20.0,
    deadline: float | None = None,
    patience: float = 120.0,
    checksum: str | None = None,
    resume: bool = True,
    overwrite: bool = False,
    sync: bool = True,
    compressed: bool = False,
    headers: Mapping[str, str] | None = None,
    netrc: bool | str | os.PathLike[str] = False,
    proxy: str | None = None,
    cacert: str | os.PathLike[str] | None = None,
    errors: Literal["raise", "return", "skip"] = "raise",
) -> Downloads:
    """Fetch files over HTTP into a folder, many at once; a file at its final name is always whole.

    ``for file in fetch(urls): ...`` gives each file when it is finished, ``async for`` likewise;
    ``fetch(urls).wait()`` and ``await fetch(urls)`` give the list of all. The downloads begin at
    once, in a thread that never needs the GIL, and end with the object: keep it, or use ``with``.

    Until it is whole a file has no name, or, if it takes more than a tenth of a second, is
    ``NAME.ID.part``, and ``NAME.ID.part.about`` says of which version. An attempt that breaks off
    is continued there, also by a later call, if the server has not changed the file
    (``If-Range``); otherwise it starts over. A whole file is synced, then gets its name. Where a
    file of that name is there, it is one beside it (``x-1.zip``).

    Args:
        urls: Addresses, or `File` objects, any number of them, also an endless generator.
        into: The folder; made if it is not there.
        limit: Files in flight at once.
        per_host: Files in flight at once from one host.
        rate: The most bytes a second over all files, as a number or as text: ``"10MB/s"``.
        retries: Attempts after the first, of a file that gets nowhere; each MiB of progress counts
            as a new beginning. What can't pass (404, a wrong certificate) is not tried again.
        backoff: Seconds before the second attempt; they double, up to 30, and chance halves them.
        timeout: Seconds for a connection and the beginning of an answer.
        stall: Seconds in which nothing may come before an attempt is cut and continued.
        deadline: Seconds for everything: attempts, waits, and what servers ask to wait.
        patience: The most seconds that a server's ``Retry-After`` is obeyed. The whole host then
            has a pause.
        checksum: What the content must hash to, such as ``sha256:...``; for a single address.
        resume: Whether parts are continued; without, each attempt begins anew.
        overwrite: Whether a file of the same name is replaced (at once, when the new one is whole).
        sync: Whether a file is on the disk before it is given out. Without, files come faster, and
            still whole or not at all, also if the program crashes or is killed; but a power cut or
            a crash of the system can leave an empty or damaged file at its name. For caches, CI
            and containers, which then begin anew.
        compressed: Whether to ask for gzip, brotli and zstd, and to decode them. Such bodies can't
            be continued.
        headers: Further headers of every request. ``Authorization``, ``Cookie`` and ``Host`` stay
            with the host of the address when it redirects to another.
        netrc: Whether to take credentials from ``$NETRC`` or ``~/.netrc``, or the file to take them
            from.
        proxy: The address of an HTTP or SOCKS5 proxy, or an empty text for none; None for what the
            environment says (``https_proxy``, ``all_proxy``, ``no_proxy``, ...).
        cacert: A file of certificates (PEM) to trust besides the system's.
        errors: What a file that fails does: ``"raise"`` its `FetchError` in its turn, which stops
            the others; ``"return"`` gives it out with its `Fetched.error`; ``"skip"`` leaves
            it out.

    Returns:
        The files, as they come.

    Raises:
        ValueError: If an option is wrong.
        OSError: If the folder can't be made.
    """
    if isinstance(urls, (str, File)):
        urls = [urls]
    if checksum is not None:
        urls = list(urls)
        if len(urls) != 1 or not isinstance(urls[0], str):
            raise ValueError(
                "checksum= is for a single address; File(url, checksum=...) for several"
            )
        urls = [File(urls[0], checksum=checksum)]
    if errors not in ("raise", "return", "skip"):
        raise ValueError(f"errors={errors!r}: 'raise', 'return' or 'skip'")
    if netrc is True:
        netrc = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    engine = FetchEngine(
        into,
        limit=limit,
        per_host=per_host,
        rate=rate if rate is None or isinstance(rate, str) else f"{rate:f}B/s",
        retries=retries,
        backoff=backoff,
        timeout=timeout,
        stall=stall,
        deadline=deadline,
        patience=patience,
        resume=resume,
        overwrite=overwrite,
        sync=sync,
        compressed=compressed,
        headers=list((headers or {}).items()),
        netrc=netrc or None,
        proxy=proxy,
        cacert=cacert,
    )
    window = _AHEAD + limit
    if isinstance(urls, (list, tuple)):
        window = max(window, _WINDOW)
    return Downloads(engine, urls, window, errors)
