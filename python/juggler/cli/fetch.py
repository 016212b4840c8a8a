"""``juggler fetch``: files from the web, and none of them ever wrong."""

import sys

from juggler._juggler import FetchWords
from juggler.downloads import Downloads, Fetched, File, fetch, with_plain_paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from juggler.cli._fetch_display import Display


def main(words: "list[str]") -> int:
    """Fetch what the command line `words` says.

    Args:
        words: The words after ``juggler fetch``.

    Returns:
        The exit status.
    """
    try:
        options = FetchWords(words)
    except ValueError as said:
        status, text = said.args
        print(text, end="", file=sys.stderr if status else sys.stdout)
        return int(status)
    files: list[str | File] = list(options.urls)
    try:
        if options.input is not None:
            files += _listed(options.input)
    except (OSError, UnicodeDecodeError) as error:
        return _wrong(str(error))
    if not files and options.input is None:
        return _wrong("which address?")
    from juggler.cli._fetch_display import display

    shown = display(len(files), options.json, options.quiet)
    try:
        try:
            downloads = _begin(files, options)
        except (OSError, OverflowError, ValueError) as error:
            return _wrong(str(error))
        with downloads, shown:
            return _follow(downloads, shown)
    except KeyboardInterrupt:
        shown.interrupted()
        return 130


def _wrong(message: str) -> int:
    """Say what is wrong with a command line in which every word by itself is right."""
    print(f"error: {message}\n\nFor more information, try '--help'.", file=sys.stderr)
    return 2


def _begin(files: "list[str | File]", options: FetchWords) -> Downloads:
    downloads = fetch(
        files,
        into=options.output,
        limit=options.limit,
        per_host=options.per_host,
        rate=options.rate,
        retries=options.retries,
        backoff=options.backoff,
        timeout=options.timeout,
        stall=options.stall,
        deadline=options.deadline,
        patience=options.patience,
        checksum=options.checksum,
        resume=options.resume,
        overwrite=options.overwrite,
        sync=options.sync,
        compressed=options.compressed,
        headers=dict(options.headers),
        netrc=options.netrc,
        proxy=options.proxy,
        cacert=options.cacert,
        errors="return",
    )
    return with_plain_paths(downloads)


def _listed(path: str) -> "list[File]":
    """The files of a list."""
    if path == "-":
        lines = sys.stdin.read().splitlines()
    else:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    words = (line.split() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return [File(url, checksum=checksum[0] if checksum else None) for url, *checksum in words]


def _follow(downloads: Downloads, shown: "Display") -> int:
    """Show the downloads until they are over; the exit status."""
    failed = False
    while True:
        try:
            fetched: Fetched = downloads.next(shown.interval)
        except TimeoutError:
            pass
        except StopIteration:
            shown.summary(downloads.received())
            return int(failed)
        else:
            failed |= not fetched.ok
            shown.finished(fetched)
        shown.refresh(downloads)
