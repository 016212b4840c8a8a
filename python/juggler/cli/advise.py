"""``juggler advise``: what a program's functions should run on, and what that would gain."""

import json
import sys
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from juggler._map.advice import Advice
    from juggler._map.program import Subject

_HELP = """\
usage: juggler advise [--json] program.py [arguments]

Run a Python program, watch the first calls of each function that it hands to a thread, a process, a
pool of either, a loop of joblib's, `juggler.map` or an event loop, and say when it has ended what
each does, what it should run on, what that would gain with 2, 4 and all processors, and what stands
in the way of more. The table goes to standard error.

Calls are watched where the program has them made, in its processes, too, however those are started.
In each process one watched call is made at a time, so the program takes longer than it would. What
these processes hand over themselves is not seen, nor what runs in interpreters of their own.

options:
  --json      print the advice on standard error as JSON, one object a function
  -h, --help  show this help

exit status:
  the program's own; 2 where the command line is wrong
"""


def main(words: "list[str]") -> int:
    """Run a program under measurement, and print the advice.

    Args:
        words: The words after ``juggler advise``.

    Returns:
        The exit status.
    """
    if words[:1] in (["-h"], ["--help"]):
        print(_HELP, end="")
        return 0
    as_json = words[:1] == ["--json"]
    if as_json:
        words = words[1:]
    if not words or words[0].startswith("-"):
        what = f"no such option: {words[0]}" if words else "which program?"
        print(f"juggler advise: {what}\nmore: juggler advise --help", file=sys.stderr)
        return 2
    from juggler._map.program import run

    try:
        open(words[0], "rb").close()
    except OSError as error:
        print(f"juggler advise: {words[0]}: {error.strerror}", file=sys.stderr)
        return 2
    subjects, ended = run(words[0], words[1:])
    status = _status(ended)
    found = [(subject, subject.advice()) for subject in subjects]
    sys.stdout.flush()
    if as_json:
        for subject, advice in found:
            print(json.dumps(_as_dict(subject, advice)), file=sys.stderr)
    else:
        _print_table(found)
    return status


def _status(ended: "BaseException | None") -> int:
    """The exit status of a program that ended so, whose error is shown as Python would."""
    if ended is None:
        return 0
    if isinstance(ended, SystemExit):
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    traceback.print_exception(ended)
    return 130 if isinstance(ended, KeyboardInterrupt) else 1


def _as_dict(subject: "Subject", advice: "Advice | None") -> "dict[str, object]":
    told: dict[str, object] = {
        "function": subject.name,
        "handed_to": subject.handed_to,
        "calls": subject.calls,
    }
    return told | (advice.as_dict() if advice else {})


def _print_table(found: "list[tuple[Subject, Advice | None]]") -> None:
    if not found:
        print("juggler advise: the program handed no function to anything", file=sys.stderr)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("function", overflow="fold")
    for title in ("handed to", "it", "should run on"):
        table.add_column(title)
    table.add_column("gain", no_wrap=True)
    table.add_column("what stands in the way")
    for subject, advice in found:
        row = [subject.name, f"{subject.handed_to}, {subject.calls} times"]
        if advice is None:
            row += ["could not be told", "", "", ""]
        else:
            gains = "\n".join(f"{gain:.1f}x on {cores}" for cores, gain in advice.gains.items())
            row += [advice.kind, advice.model, gains, advice.stops]
        # Text, not str: an expression in brackets would be taken for markup.
        table.add_row(*map(Text, row))
    # Cells fold on a terminal that is too narrow; a file or a pipe has all the room in the world.
    Console(stderr=True, width=None if sys.stderr.isatty() else 10_000).print(table)
