"""``juggler run``: a program runs on juggler, and is otherwise as ``python program.py`` has it.

The command becomes that very process. It replaces itself (``execve``) by ``python program.py``,
with the same options of the interpreter, and puts in front of ``PYTHONPATH`` a folder with a
``sitecustomize`` that installs juggler and removes every sign of the detour before the program
starts. Everything that a program can see of how it was started is then CPython's own work, on
every version: ``sys.argv``, ``__main__``, the exit status, tracebacks, signals, and the stack,
which a program run by ``exec`` would find our frames at the bottom of. The price is one more start
of the interpreter (and of a ``sitecustomize`` of the user's, which runs in both), which the command
``juggler`` saves for the usual command lines (``crates/juggler-launcher``).
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_HELP = """\
usage: juggler run [options] program.py [arguments]
       juggler run [options] -m module [arguments]
       juggler run [options] -c code [arguments]
       juggler run [options] -  < program.py

Run a Python program, unmodified, with `threading`, `queue`, `concurrent.futures` and
`multiprocessing` replaced by juggler's, in the processes that it starts, too. Everything else is as
`python program.py` has it: arguments, `__main__`, standard streams, tracebacks, signals and the
exit status. The program may be a file, a folder or a zip with a `__main__.py`, or a script that
begins with `#!/usr/bin/env -S juggler run`.

A wait of threads that can never end (a deadlock) raises `DeadlockError`, which shows who waits for
whom. A worker process that dies costs the call that it was making, which raises `WorkerDied`.

options:
  --report[=table|json]  when the program has ended, print to standard error which primitives its
                         threads used, how often and how long they waited, how full its queues
                         were and how busy its pools; what processes share is not in it. And
                         what kept its event loops from moving (told at once, too), coroutines
                         never awaited, and cancellations that were swallowed
  --report-file PATH     write the report to PATH instead; implies --report
  --no-detect            do not look for deadlocks
  -h, --help             show this help
After these come the options of `python` itself, such as -X dev, -W error, -u or -O.

examples:
  juggler run fetch.py https://example.org
  juggler run --report -m pytest -q tests
  juggler run --report=json --report-file waits.json server.py
  juggler run -X dev -c "import queue; queue.Queue()"

exit status:
  the program's own; 2 where the command line is wrong
"""

_OPTIONS = ("--report", "--report-file", "--no-detect", "--help")
BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot")


def main(words: "list[str]") -> int:
    """Become ``python`` with the command line `words`, on juggler.

    Args:
        words: The words after ``juggler run``.

    Returns:
        The exit status, where there is nothing to run. Otherwise this does not return.
    """
    if "--help" in words[:1] or "-h" in words[:1]:
        print(_HELP, end="")
        return 0
    try:
        settings, words = _take_settings(words)
        command = _python_command(words)
    except _UsageError as error:
        print(f"juggler run: {error}\nmore: juggler run --help", file=sys.stderr)
        return 2
    return _become(command, settings)


def _become(command: "list[str]", settings: "dict[str, str]") -> "NoReturn":
    """Go on as another command in this process, with the folder of `sitecustomize` in its path."""
    environment = {**os.environ, **settings}
    path = environment.get("PYTHONPATH")
    if path is not None:
        environment["JUGGLER_RUN_PYTHONPATH"] = path
    # Nothing after the separator would mean the current folder.
    environment["PYTHONPATH"] = BOOT + os.pathsep + path if path else BOOT
    os.execve(command[0], command, environment)


class _UsageError(Exception):
    """The command line is wrong; the message says how."""


def _take_settings(words: "list[str]") -> "tuple[dict[str, str], list[str]]":
    """Separate our options, as the variables that `sitecustomize` reads, from python's words."""
    settings = {"JUGGLER_RUN_DETECT": "1"}
    words = list(words)
    while words and words[0].startswith("--") and words[0] != "--":
        option, equals, value = words.pop(0).partition("=")
        if option == "--no-detect" and not equals:
            settings["JUGGLER_RUN_DETECT"] = "0"
        elif option == "--report" and (not equals or value in ("table", "json")):
            settings["JUGGLER_RUN_REPORT"] = value or "table"
        elif option == "--report":
            raise _UsageError(f"--report={value}: there is --report=table and --report=json")
        elif option == "--report-file":
            if not equals and words:
                value = words.pop(0)
            settings.setdefault("JUGGLER_RUN_REPORT", "table")
            settings["JUGGLER_RUN_REPORT_FILE"] = _writable(value)
        else:
            raise _UsageError(f"no such option: {option}{equals}{value}{_near(option)}")
    return settings, words


def _near(option: str) -> str:
    """A guess what was meant by an option that there is not, if there is one."""
    import difflib

    near = difflib.get_close_matches(option, _OPTIONS, n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != option else ""


def _writable(path: str) -> str:
    """The full path of a file that can be written; better known now than after an hour's run."""
    if not path:
        raise _UsageError("--report-file: which file?")
    try:
        open(path, "w").close()
    except OSError as error:
        raise _UsageError(f"--report-file {path}: {error.strerror}") from None
    return os.path.abspath(path)


def _python_command(words: "list[str]") -> "list[str]":
    """The command that runs `words` in an interpreter like this one."""
    if not words:
        raise _UsageError("which program?")
    options = interpreter_options(words)
    letters = {*"".join(_letters(option) for option in options if option.startswith("-"))}
    if letters & {"E", "I", "S"} or sys.flags.ignore_environment or sys.flags.no_site:
        # `sitecustomize` would not be found, and the program would quietly run on the stdlib.
        raise _UsageError(
            "python's options -E, -I and -S keep juggler out;"
            " call juggler.install() in the program instead"
        )
    return [sys.executable, *interpreter_options(sys.orig_argv[1:]), *words]


def interpreter_options(words: "Sequence[str]") -> "list[str]":
    """The options among the words after ``python``: those that come before what it is to run.

    An option packed into one word with what to run stands alone in the result: of ``-Om module``
    it is ``-O``.
    """
    options: list[str] = []
    position = 0
    while position < len(words) and len(words[position]) > 1 and words[position][0] == "-":
        word = words[position]
        letters = _letters(word)
        if word == "--":
            break
        if letters[-1:] in ("c", "m"):
            return [*options, f"-{letters[:-1]}"] if len(letters) > 1 else options
        # The value of -W and -X may follow in the same word or in the next.
        apart = letters[-1:] in ("W", "X") and len(word) == len(letters) + 1
        width = 2 if apart or word.startswith("--check-hash") else 1
        options += words[position : position + width]
        position += width
    return options


def _letters(word: str) -> str:
    """The option letters of one word: up to the first that takes the rest as its value."""
    if word.startswith("--"):
        return ""
    for index, letter in enumerate(word):
        if letter in "cmWX":
            return word[1 : index + 1]
    return word[1:]
