"""``juggler fetch``: files from the web, and none of them ever wrong."""

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from juggler.downloads import Downloads, Fetched, File, fetch

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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"juggler fetch: {message}\nmore: juggler fetch --help", file=sys.stderr)
        raise SystemExit(2)


class _Formatter(argparse.HelpFormatter):
    """Formats nothing, as the help is ours, and imports nothing to be ready for it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)

    # What 3.14 calls before it looks whether there are to be colours.
    def _set_color(self, color: bool) -> None:
        pass


def _parser() -> argparse.ArgumentParser:
    # With a usage of its own it need not work one out, for which it would import much, too.
    parser = _Parser(
        add_help=False, allow_abbrev=False, usage="juggler fetch", formatter_class=_Formatter
    )
    parser.add_argument("urls", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-i", "--input")
    parser.add_argument("-o", "--output", default=".")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--per-host", type=int, default=6)
    parser.add_argument("--rate", type=_rate)
    parser.add_argument("--retries", type=int, default=5)
    parser.add_argument("--backoff", type=float, default=0.5)
    parser.add_argument("--timeout", type=float, default=30.0)
    parser.add_argument("--stall", type=float, default=20.0)
    parser.add_argument("--deadline", type=float)
    parser.add_argument("--patience", type=float, default=120.0)
    parser.add_argument("--checksum")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--header", action="append", default=[], type=_header)
    parser.add_argument("--netrc", action="store_true")
    parser.add_argument("--proxy")
    parser.add_argument("--cacert")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    return parser


def _rate(text: str) -> str:
    return text if "/" in text else f"{text}/s"


def _header(text: str) -> "tuple[str, str]":
    name, colon, value = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"not 'NAME: TEXT': {text!r}")
    return name.strip(), value.strip()


def main(words: "list[str]") -> int:
    """Fetch what the command line `words` says.

    Args:
        words: The words after ``juggler fetch``.

    Returns:
        The exit status.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(words)
    if options.help:
        print(_HELP, end="")
        return 0
    files: list[str | File] = list(options.urls)
    try:
        if options.input is not None:
            files += _listed(options.input)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    if not files and options.input is None:
        parser.error("which address?")
    from juggler.cli._fetch_display import display

    shown = display(len(files), options.json, options.quiet)
    try:
        try:
            downloads = _begin(files, options)
        except (OSError, OverflowError, ValueError) as error:
            parser.error(str(error))
        with downloads, shown:
            return _follow(downloads, shown)
    except KeyboardInterrupt:
        shown.interrupted()
        return 130


def _begin(files: "list[str | File]", options: argparse.Namespace) -> Downloads:
    return fetch(
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
        compressed=options.compressed,
        headers=dict(options.header),
        netrc=options.netrc,
        proxy=options.proxy,
        cacert=options.cacert,
        errors="return",
    )


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
