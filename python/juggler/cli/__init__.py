"""The ``juggler`` command. One module a subcommand, imported when it is called.

A subcommand is a module of this package with ``main(words) -> int``, which takes the words after
its name and returns the exit status, and a line in `COMMANDS`.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS = {
    "run": "run an unmodified Python program on juggler's threads, pools, processes and loop",
    "advise": "say what a program's functions should run on, and what that would gain",
    "fetch": "fetch files from the web, many at once, and never half a one",
}

_HELP = """\
usage: juggler <command> [arguments]

Python's concurrency toolbox, rebuilt in Rust.

commands:
{commands}

options:
  -h, --help     show this help; `juggler <command> --help` shows a command's
  -V, --version  show the version

examples:
  juggler run program.py --its --own arguments
  juggler run --report -m http.server 8000
  juggler fetch https://example.org/a.zip -o downloads

exit status:
  that of the command; 2 where the command line is wrong
"""


def script() -> "NoReturn":
    """The process of the command: ends with the status of `main`."""
    sys.exit(main())


def main(words: "list[str] | None" = None) -> int:
    """Run the command line.

    Args:
        words: The words after ``juggler``; those of ``sys.argv`` by default.

    Returns:
        The exit status.
    """
    if words is None:
        words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        module = f"juggler.cli.{words[0]}"
        __import__(module)
        status: int = sys.modules[module].main(words[1:])
        return status
    if words and words[0] in ("-V", "--version"):
        from juggler import __version__

        print(f"juggler {__version__}")
        return 0
    commands = "\n".join(f"  {name:<13}  {what}" for name, what in COMMANDS.items())
    if words and words[0] in ("-h", "--help", "help"):
        print(_HELP.format(commands=commands), end="")
        return 0
    return _reject(words)


def _reject(words: "list[str]") -> int:
    """Say what is wrong with a command line that names no command."""
    if not words:
        complaint = "which command?"
        advice = f"commands: {', '.join(COMMANDS)}"
    else:
        import difflib
        import os

        complaint = f"no such {'option' if words[0].startswith('-') else 'command'}: {words[0]}"
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        if os.path.exists(words[0]) or words[0].endswith(".py"):
            advice = f"to run a program: juggler run {words[0]}"
        elif near:
            advice = f"did you mean `juggler {near[0]}`?"
        else:
            advice = f"commands: {', '.join(COMMANDS)}"
    print(f"juggler: {complaint}\n{advice}; more: juggler --help", file=sys.stderr)
    return 2
