"""``juggler run`` and ``python`` cannot be told apart: output, errors and exit status agree.

Each case runs one command line on both. What the case is about must show in what plain Python
does, so that two equal failures for some other reason do not pass.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
PYTHON = [sys.executable]
JUGGLER_RUN = [*PYTHON, "-m", "juggler", "run"]


def doors() -> dict[str, tuple[str, list[str]]]:
    """The ways to call juggler, and the name that each has for the interpreter."""
    command = Path(sysconfig.get_path("scripts"), "juggler")
    python = command.with_name("juggler-cli").read_text(encoding="utf-8").splitlines()[0]
    return {
        "module": (sys.executable, [sys.executable, "-m", "juggler"]),
        "command": (python.removeprefix("#!"), [str(command)]),
    }


WHO_AM_I = '''\
"""The docstring."""
import os, sys
names = ("__name__", "__doc__", "__package__", "__spec__", "__file__", "__cached__", "__builtins__")
print({name: globals().get(name, "missing") for name in names})
print(list(globals()), type(__loader__), getattr(__loader__, "path", None))
print(sys.modules["__main__"].__dict__ is globals())
print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.warnoptions, sys._xoptions)
print(sys.executable, sys.prefix)
print([path for path in sys.path_importer_cache if "boot" in path])
print([name for name in sys.modules if name.partition(".")[0] != "juggler"])
print(os.environ)
'''

FAILS = "def divide(x):\n    return 1 / x\n\n\ndivide(0)\n"


@dataclass
class Case:
    """One command line, the files it finds, and what plain Python must show for it."""

    words: list[str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    status: int = 0
    out: str = ""
    err: str = ""
    stdin: str = ""
    env: dict[str, str] = field(default_factory=dict)


def program(text: str | bytes, *, status: int = 0, out: str = "", err: str = "") -> Case:
    """A case of one file."""
    return Case(["program.py"], {"program.py": text}, status, out, err)


def raising(text: str, err: str = "Traceback (most recent call last)") -> Case:
    """A case of one file that ends with a traceback."""
    return program(text, status=1, err=err)


CASES = {
    # what `__main__` is, and what surrounds it
    "main of a file": Case(
        ["program.py", "a", "-m", "--report", "--"], {"program.py": WHO_AM_I}, out="The docstring."
    ),
    "main of a path": Case(
        ["folder/program.py"], {"folder/program.py": WHO_AM_I}, out="folder/program.py"
    ),
    "main of -c": Case(["-c", WHO_AM_I, "a", "-b"], out="['-c', 'a', '-b']"),
    "main of stdin": Case(["-", "a"], stdin=WHO_AM_I, out="['-', 'a']"),
    "main of -m": Case(["-m", "module", "a"], {"module.py": WHO_AM_I}, out="name='module'"),
    "main of -m package": Case(
        ["-m", "package", "a"],
        {
            "package/__init__.py": "from . import part",
            "package/__main__.py": f"{WHO_AM_I}\nfrom .part import value; print(value)",
            "package/part.py": "value = 'from the part'",
        },
        out="from the part",
    ),
    "main of a folder": Case(["folder", "a"], {"folder/__main__.py": WHO_AM_I}, out="folder"),
    "environment with a path": Case(
        ["program.py"],
        {"program.py": WHO_AM_I},
        env={"PYTHONPATH": "one:two", "LAST": "1"},
        out="'one:two'",
    ),
    "environment with an empty path": Case(
        ["program.py"], {"program.py": WHO_AM_I}, env={"PYTHONPATH": ""}, out="'PYTHONPATH': ''"
    ),
    "a sitecustomize of its own": Case(
        ["program.py"],
        {
            "program.py": f"{WHO_AM_I}\nimport sitecustomize; print(vars(sitecustomize))",
            "site/sitecustomize.py": "import sys\npath = list(sys.path)",
        },
        env={"PYTHONPATH": "site"},
        out="site/sitecustomize.py",
    ),
    # the options of the interpreter
    "-W error": Case(
        ["-W", "error::SyntaxWarning", "program.py"], {"program.py": "1 is 1"}, 1, err="SyntaxError"
    ),
    "-X dev": Case(
        ["-X", "dev", "program.py"],
        {"program.py": f"{WHO_AM_I}\nopen('program.py')"},
        out="'dev': True",
        err="ResourceWarning: unclosed file",
    ),
    "-O": Case(["-O", "-c", "assert False; print(__debug__)"], out="False"),
    "-um": Case(["-um", "module"], {"module.py": WHO_AM_I}, out="name='module'"),
    "-cCODE": Case(["-cprint('joined')", "a"], out="joined"),
    "a wrong option of python": Case(["-Z", "program.py"], status=2, err="Unknown option: -Z"),
    "-m without a module": Case(["-m"], status=2, err="Argument expected"),
    # tracebacks
    "traceback": raising(FAILS, "ZeroDivisionError: division by zero"),
    "traceback of -c": Case(["-c", FAILS], {}, 1, err="ZeroDivisionError"),
    "traceback of stdin": Case(["-"], {}, 1, err="ZeroDivisionError", stdin=FAILS),
    "traceback of -m": Case(["-m", "module"], {"module.py": FAILS}, 1, err="<frozen runpy>"),
    "traceback of a folder": Case(["f"], {"f/__main__.py": FAILS}, 1, err="<frozen runpy>"),
    "traceback through modules": Case(
        ["program.py"],
        {"program.py": "import part\npart.divide(0)", "part.py": FAILS.replace("divide(0)", "")},
        1,
        err="part.py",
    ),
    "failing import": Case(
        ["program.py"], {"program.py": "import part", "part.py": FAILS}, 1, err="import part"
    ),
    "missing import": raising("import no_such_module", "ModuleNotFoundError"),
    "chained exceptions": raising(
        "try:\n    1 / 0\nexcept Exception as e:\n"
        "    try:\n        raise KeyError('k') from e\n"
        "    except KeyError:\n        raise ValueError('v')\n",
        "During handling of the above exception",
    ),
    "exception group": raising(
        "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])", "ExceptionGroup: many"
    ),
    "notes": raising("e = ValueError(1)\ne.add_note('look here')\nraise e", "look here"),
    "suggestion": raising("lenght = 1\nprint(lenghth)", "Did you mean: 'lenght'"),
    "recursion": raising("def f(n):\n    return f(n + 1)\n\nf(0)", "RecursionError"),
    "depth of recursion": program(
        "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n"
        "        return n\n\nimport sys\nprint('depth', f(0), sys.getrecursionlimit())",
        out="depth 99",
    ),
    "the stack": program(
        "import sys, traceback, inspect\ntraceback.print_stack()\n"
        "print(sys._getframe().f_back, len(inspect.stack()))",
        out="None 1",
        err='program.py", line 2',
    ),
    "warning from outside the program": program(
        "import warnings\nwarnings.warn('far', stacklevel=5)", err="UserWarning: far"
    ),
    "warning": program("import warnings\nwarnings.warn('near')", err="warnings.warn('near')"),
    # programs that do not compile
    "syntax error": raising("print(1)\nx = = 2\n", "SyntaxError: invalid syntax"),
    "syntax error of -c": Case(["-c", "x = = 2"], {}, 1, err="SyntaxError: invalid syntax"),
    "syntax error of -m": Case(["-m", "m"], {"m.py": "x = = 2"}, 1, err="SyntaxError"),
    "syntax error of stdin": Case(["-"], {}, 1, err="SyntaxError", stdin="x = = 2"),
    "indentation": raising("if 1:\nx = 2\n", "IndentationError"),
    "not UTF-8": program(b"x = 'caf\xe9'\n", status=1, err="Non-UTF-8 code"),
    "Latin-1": program("# coding: latin-1\nprint(len('é'))\n".encode("latin-1"), out="1"),
    "null bytes": program(b"x = 1\0\n", status=1, err="null bytes"),
    # programs that are not there
    "missing file": Case(["missing.py"], {}, 2, err="can't open file"),
    "missing module": Case(["-m", "missing"], {}, 1, err="No module named missing"),
    "package without main": Case(["-m", "p"], {"p/__init__.py": ""}, 1, err="p.__main__"),
    "folder without main": Case(["f"], {"f/x.py": ""}, 1, err="can't find '__main__'"),
    # exit statuses
    "exit 3": program("import sys; sys.exit(3)", status=3),
    "exit 263": program("import sys; sys.exit(263)", status=7),
    "exit -1": program("raise SystemExit(-1)", status=255),
    "exit text": program("import sys; sys.exit('enough')", status=1, err="enough\n"),
    "exit object": program("raise SystemExit([1, 2])", status=1, err="[1, 2]"),
    "exit None": program("import sys; print('x'); sys.exit()", out="x"),
    "exit of -m": Case(["-m", "m"], {"m.py": "raise SystemExit(4)"}, 4),
    "exit in a function at exit": program(
        "import atexit, sys\natexit.register(sys.exit, 5)\nprint('end')",
        out="end",
        err="SystemExit: 5",
    ),
    "os._exit": program("import os; os._exit(9)", status=9),
    "os.abort": program(
        "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
        status=-signal.SIGABRT,
    ),
    # signals
    "KeyboardInterrupt": program(
        "raise KeyboardInterrupt", status=-signal.SIGINT, err="KeyboardInterrupt"
    ),
    "SIGINT": program(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**6): pass\n",
        status=-signal.SIGINT,
        err="KeyboardInterrupt",
    ),
    "KeyboardInterrupt of -c": Case(
        ["-c", "raise KeyboardInterrupt"], {}, -signal.SIGINT, err="KeyboardInterrupt"
    ),
    "KeyboardInterrupt of -m": Case(
        ["-m", "m"], {"m.py": "raise KeyboardInterrupt"}, -signal.SIGINT, err="KeyboardInterrupt"
    ),
    "SIGTERM": program(
        "import os, signal; print('x', flush=True); os.kill(os.getpid(), signal.SIGTERM)",
        status=-signal.SIGTERM,
        out="x",
    ),
    "handlers": program(
        "import signal\n"
        "print([signal.getsignal(s) for s in sorted(signal.valid_signals())],"
        " signal.pthread_sigmask(0, []))",
        out="default_int_handler",
    ),
    # hooks, threads and the end
    "excepthook": program(
        "import sys\nsys.excepthook = lambda t, v, tb: print(t, v, tb.tb_frame, tb.tb_next)\n1 / 0",
        status=1,
        out="ZeroDivisionError",
    ),
    "failing excepthook": program(
        "import sys\n\n\ndef hook(*args):\n    raise ValueError('hook')\n\n\n"
        "sys.excepthook = hook\n1 / 0",
        status=1,
        err="Error in sys.excepthook:",
    ),
    "last exception": program(
        "import atexit, sys\natexit.register(lambda: print(sys.last_value))\n1 / 0",
        status=1,
        out="division by zero",
        err="ZeroDivisionError",
    ),
    "failing thread": program(
        "import threading\n\n\ndef work():\n    1 / 0\n\n\n"
        "t = threading.Thread(target=work)\nt.start()\nt.join()\nprint('went on')",
        out="went on",
        err="Exception in thread Thread-1 (work):",
    ),
    "threading.excepthook": program(
        "import threading\n"
        "threading.excepthook = lambda args: print('hook', args.exc_type.__name__)\n"
        "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()",
        out="hook ZeroDivisionError",
    ),
    "order of the end": program(
        "import atexit, threading, time\n\n\n"
        "class Last:\n    def __del__(self):\n        print('deleted')\n\n\n"
        "last = Last()\n"
        "atexit.register(print, 'registered first')\natexit.register(print, 'registered second')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread ends'))).start()\n"
        "threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n"
        "print('program ends')\n",
        out="program ends\nthread ends\nregistered second\nregistered first\ndeleted\n",
    ),
    "failing function at exit": program(
        "import atexit\natexit.register(lambda: 1 / 0)", err="ZeroDivisionError"
    ),
    "exception after threads": program(
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread ends'))).start()\n1 / 0",
        status=1,
        out="thread ends",
        err="ZeroDivisionError",
    ),
    "stdin of the program": Case(
        ["program.py"], {"program.py": "print(input()[::-1])"}, stdin="abc\n", out="cba"
    ),
    "closed stdout": program("import sys; print('x'); sys.stdout.close()", out="x"),
}


@pytest.mark.parametrize("door", ["module", "command"])
@pytest.mark.parametrize("name", CASES)
def test_same_as_python(name: str, door: str, run: Run, tmp_path: Path) -> None:
    python, juggler = doors()[door]
    case = CASES[name]
    for path, content in case.files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8")
        )
    plain = run([python, *case.words], stdin=case.stdin, env=case.env)
    assert plain.returncode == case.status
    assert case.out in plain.stdout
    assert case.err in plain.stderr
    assert case.err or not plain.stderr
    ours = run([*juggler, "run", *case.words], stdin=case.stdin, env=case.env)
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)
    assert ours.returncode == plain.returncode


def test_zip(run: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("__main__.py", f"{WHO_AM_I}\n1 / 0")
    plain, ours = (run([*start, "program.zip", "a"]) for start in (PYTHON, JUGGLER_RUN))
    assert "program.zip/__main__.py" in plain.stderr
    assert (ours.stdout, ours.stderr, ours.returncode) == (plain.stdout, plain.stderr, 1)


def test_broken_pipe(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("print('x' * 100)")
    results = []
    for start in (PYTHON, JUGGLER_RUN):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as stdout:
            done = subprocess.run(
                [*start, program],
                stdout=stdout,
                stderr=subprocess.PIPE,
                env={name: v for name, v in os.environ.items() if name != "PYTHONUNBUFFERED"},
                check=False,
            )
        results.append((done.returncode, done.stderr))
    assert results[0][0] == 120
    assert b"BrokenPipeError" in results[0][1]
    assert results[1] == results[0]


def test_script_with_interpreter_line(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    command = " ".join(JUGGLER_RUN)
    script.write_text(
        f"#!/usr/bin/env -S {command}\n"
        "import sys, queue, juggler\nprint(sys.argv, __file__, queue.Queue is juggler.queue.Queue)"
    )
    script.chmod(0o755)
    done = run([str(script), "a", "--report"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{[str(script), 'a', '--report']} {script} True\n"


def test_interpreter_options_of_the_command_reach_the_program(run: Run) -> None:
    options = ["-X", "dev", "-OW", "error", "-b"]
    code = "import sys; print(sys.flags, sys.warnoptions, sys._xoptions, sys.orig_argv)"
    plain = run([*PYTHON, *options, "-c", code])
    ours = run([*PYTHON, *options, "-m", "juggler", "run", "-c", code])
    assert "optimize=1" in plain.stdout
    assert (ours.stdout, ours.stderr) == (plain.stdout, plain.stderr)


def test_program_of_a_blocked_main_thread_dies_of_sigint(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import threading\nprint('waiting', flush=True)\nthreading.Event().wait()\n")
    process = subprocess.Popen(
        [*JUGGLER_RUN, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n")


def test_same_process(tmp_path: Path) -> None:
    # What a supervisor started is what it can signal and wait for.
    process = subprocess.Popen(
        [*JUGGLER_RUN, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(timeout=60)
    assert int(out) == process.pid


@pytest.mark.skipif(sys.version_info < (3, 13), reason="-c shows its source from 3.13 on")
def test_source_of_a_command_is_shown(run: Run) -> None:
    done = run([*JUGGLER_RUN, "-c", "1 / 0"])
    assert "    1 / 0\n    ~~^~~\n" in done.stderr
