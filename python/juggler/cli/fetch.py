"""``juggler fetch``: files from the web, and none of them ever wrong.

Nothing is fetched while something is imported. So this speaks to the engine itself, not through
`juggler.downloads`, which brings `typing`; and takes the command line apart with `getopt`, as
`argparse` brings `re`.
"""

import os
import sys
from getopt import GetoptError, gnu_getopt
from itertools import islice

from juggler._juggler import FetchEngine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from juggler.cli._fetch_display import Display

_HELP = """\
usage: juggler fetch [options] URL...
       juggler fetch [options] -i LIST

Fetch files over HTTP and HTTPS, many at once. A file at its final name is whole: until then it has
no name, or is NAME.ID.part if it takes a while, which is continued after a fault, also by the next
call, if the server has not changed the file. Where a file of its name is there already, the new one
gets a name beside it (x-1.zip).

options:
  -i, --input LIST      a file with an address a line, or - for standard input; a checksum may
                        follow the address, and lines that begin with # are comments
  -o, --output DIR      the folder for the files; made if it is not there (default: .)
  --limit N             files in flight at once (default: 16)
  --per-host N          files in flight at once from one host (default: 6)
  --rate RATE           the most bytes a second over all files, such as 10MB/s
  --retries N           attempts after the first of a file that gets nowhere (default: 5)
  --backoff SECONDS     before the second attempt; doubles with each (default: 0.5)
  --timeout SECONDS     for a connection and the beginning of an answer (default: 30)
  --stall SECONDS       in which nothing may come before an attempt is continued anew (default: 20)
  --deadline SECONDS    for everything
  --patience SECONDS    the most that a server's Retry-After is obeyed (default: 120)
  --checksum ALGO:HEX   what the file must hash to (sha1, sha256, sha384, sha512); for one address
  --resume, --no-resume  continue parts, or begin each attempt anew (default: --resume)
  --overwrite           replace files of the same name
  --compressed          ask for gzip, brotli and zstd, and decode them
  --header 'NAME: TEXT'  a further header of every request; may be given again
  --netrc               take credentials from $NETRC or ~/.netrc
  --proxy URL           an HTTP or SOCKS5 proxy, '' for none (default: what the environment says)
  --cacert FILE         certificates to trust besides the system's
  --json                print a JSON object for each file to standard output, and one for all
  -q, --quiet           show nothing but failures
  -h, --help            show this help

examples:
  juggler fetch https://example.org/a.zip https://example.org/b.zip -o downloads
  juggler fetch -i list.txt --rate 10MB/s --deadline 3600
  juggler fetch https://example.org/x.iso --checksum sha256:9f86d081884c7d65...

exit status:
  0 if every file is whole; 1 if one is not; 2 where the command line is wrong; 130 after Ctrl-C,
  when the same command continues
"""

_WINDOW = 1024
"""How many files the engine knows beside those in flight: what waits for the disk, or its turn."""


class _Options:
    """What the command line says."""

    def __init__(self) -> None:
        self.input: str | None = None
        self.output = "."
        self.limit = 16
        self.per_host = 6
        self.rate: str | None = None
        self.retries = 5
        self.backoff = 0.5
        self.timeout = 30.0
        self.stall = 20.0
        self.deadline: float | None = None
        self.patience = 120.0
        self.checksum: str | None = None
        self.resume = True
        self.overwrite = False
        self.compressed = False
        self.header: dict[str, str] = {}
        self.netrc = False
        self.proxy: str | None = None
        self.cacert: str | None = None
        self.json = False
        self.quiet = False
        self.help = False

    def take(self, option: str, text: str) -> None:
        """Take over one option, with the text that follows it."""
        option = {"-i": "--input", "-o": "--output", "-q": "--quiet", "-h": "--help"}.get(
            option, option
        )
        name = option[2:].replace("-", "_")
        if name == "no_resume":
            self.resume = False
        elif name == "header":
            key, colon, value = text.partition(":")
            if not colon:
                raise GetoptError(f"not 'NAME: TEXT': {text!r}")
            self.header[key.strip()] = value.strip()
        elif name == "rate":
            self.rate = text if "/" in text else f"{text}/s"
        elif f"{option[2:]}=" not in _LONG:
            setattr(self, name, True)
        else:
            kind = _NUMBERS.get(name, str)
            try:
                setattr(self, name, kind(text))
            except ValueError:
                raise GetoptError(f"{option}: not a number: {text!r}") from None


_NUMBERS: "dict[str, type[int] | type[float]]" = {
    **dict.fromkeys(("limit", "per_host", "retries"), int),
    **dict.fromkeys(("backoff", "timeout", "stall", "deadline", "patience"), float),
}
_LONG = [
    *("input=", "output=", "limit=", "per-host=", "rate=", "retries=", "backoff=", "timeout="),
    *("stall=", "deadline=", "patience=", "checksum=", "resume", "no-resume", "overwrite"),
    *("compressed", "header=", "netrc", "proxy=", "cacert=", "json", "quiet", "help"),
]


def main(words: "list[str]") -> int:
    """Fetch what the command line `words` says.

    Args:
        words: The words after ``juggler fetch``.

    Returns:
        The exit status.
    """
    options = _Options()
    try:
        pairs, urls = gnu_getopt(words, "i:o:qh", _LONG)
        for option, text in pairs:
            options.take(option, text)
        if options.help:
            print(_HELP, end="")
            return 0
        files = _files(urls, options)
        engine = _begin(options)
    except (GetoptError, OSError, OverflowError, ValueError) as error:
        return _reject(error)
    try:
        from juggler.cli._fetch_display import display

        shown = display(len(files), options.json, options.quiet)
        try:
            with shown:
                return _follow(engine, files, options.limit + _WINDOW, shown)
        except KeyboardInterrupt:
            shown.interrupted()
            return 130
        except ValueError as error:  # a checksum that is none
            return _reject(error)
    finally:
        engine.stop()


def _reject(error: Exception) -> int:
    print(f"juggler fetch: {error}\nmore: juggler fetch --help", file=sys.stderr)
    return 2


def _files(urls: "list[str]", options: _Options) -> "list[tuple[str, str | None]]":
    """Each address that was given, and its checksum."""
    files = [(url, options.checksum) for url in urls]
    if options.input is not None:
        files += _listed(options.input)
    elif not files:
        raise GetoptError("which address?")
    if options.checksum is not None and len(files) != 1:
        raise GetoptError("--checksum is for a single address; a list has one beside each")
    return files


def _listed(path: str) -> "list[tuple[str, str | None]]":
    """The files of a list."""
    if path == "-":
        lines = sys.stdin.read().splitlines()
    else:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    words = (line.split() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return [(url, checksum[0] if checksum else None) for url, *checksum in words]


def _begin(options: _Options) -> FetchEngine:
    netrc = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    return FetchEngine(
        options.output,
        limit=options.limit,
        per_host=options.per_host,
        rate=options.rate,
        retries=options.retries,
        backoff=options.backoff,
        timeout=options.timeout,
        stall=options.stall,
        deadline=options.deadline,
        patience=options.patience,
        resume=options.resume,
        overwrite=options.overwrite,
        compressed=options.compressed,
        headers=list(options.header.items()),
        netrc=netrc if options.netrc else None,
        proxy=options.proxy,
        cacert=options.cacert,
    )


def _follow(
    engine: FetchEngine,
    files: "list[tuple[str, str | None]]",
    window: int,
    shown: "Display",
) -> int:
    """Hand the files to the engine and show them until they are over; the exit status."""
    waiting = iter(enumerate(files))
    ahead = 0
    failed = False
    while True:
        # Many at a time: each time the engine's thread is woken for them.
        if ahead <= window // 2:
            for index, (url, checksum) in islice(waiting, window - ahead):
                engine.add(index, url, None, checksum)
                ahead += 1
            if ahead < window:
                engine.close()
        try:
            told = engine.next(shown.interval)
        except TimeoutError:
            pass
        else:
            if told is None:
                shown.summary(engine.snapshot()[1][3])
                return int(failed)
            ahead -= 1
            failed |= told[2] is not None
            shown.finished(files[told[0]][0], told)
        shown.refresh(engine)
