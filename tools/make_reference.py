"""Write the reference of the Python API, docs/reference, from the modules' own docstrings.

    python tools/make_reference.py [FOLDER]

A page for each public module and one for the command line, and an index. What it writes depends
on nothing but the package: neither on the interpreter's version nor on the terminal; a test holds
the pages in the repository to it.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import ModuleType

from juggler import _juggler, cli

ROOT = Path(__file__).resolve().parents[1]
# Our module -> the page of the standard library's that it stands in for, where there is one.
STAND_INS = {
    "threading": "threading",
    "queue": "queue",
    "futures": "concurrent.futures",
    "asyncio": "asyncio",
    "multiprocessing": "multiprocessing",
    "multiprocessing.pool": "multiprocessing",
    "multiprocessing.queues": "multiprocessing",
    "multiprocessing.synchronize": "multiprocessing",
    "multiprocessing.sharedctypes": "multiprocessing",
    "multiprocessing.connection": "multiprocessing",
    "multiprocessing.managers": "multiprocessing",
    "_map": None,
    "_pipelines": None,
    "_shutdown": None,
    "downloads": None,
    "joblib": None,
    "policy": None,
}
# What users meet though the standard library does not export its like.
ALSO = {"multiprocessing.pool": ("ApplyResult", "IMapIterator")}
BEGIN = "<!-- Written by tools/make_reference.py from the docstrings: change those. -->\n"
# Google's sections, with the words that stand for them here.
SECTIONS = {"Args": "Arguments", "Returns": "Returns", "Raises": "Raises", "Warns": "Warnings"}


def main(folder: Path) -> None:
    """Write all the pages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (folder / name).write_text(page)


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    modules = {name: importlib.import_module(f"juggler.{name}") for name in STAND_INS}
    written = {f"{name.strip('_')}.md": module_page(module) for name, module in modules.items()}
    written["command-line.md"] = command_line_page()
    index = ["# Reference", ""]
    for name, module in modules.items():
        page = name.strip("_")
        index.append(f"* [`juggler.{page}`]({page}.md): {sentence(module)}")
    index.append("* [The command line](command-line.md): the commands and their options.")
    index += ["", "The terms are explained in the [glossary](../glossary.md).", ""]
    return {"index.md": BEGIN + "\n".join(index), **written}


def module_page(module: ModuleType) -> str:
    """The page of one module: its own docstring, what is ours, and the rest by name."""
    ours = {name: value for name, value in exports(module) if is_ours(value)}
    stdlib = STAND_INS[module.__name__.partition(".")[2]]
    links = ", ".join(f"[`{name}`](#{name.lower()})" for name in ours)
    parts = [
        BEGIN + f"# `{module.__name__.replace('._', '.')}`",
        *prose(inspect.getdoc(module) or ""),
        f"On this page: {links}.",
    ]
    if stdlib is not None:
        address = f"https://docs.python.org/3/library/{stdlib}.html"
        parts.append(f"Every other name is the standard library's own: [`{stdlib}`]({address}).")
    for name, value in ours.items():
        parts += entry(f"## `{name}`", name, value)
        # Of `sleep`, whose instances are coroutines, that it is called is all there is to tell.
        if isinstance(value, type) and not issubclass(value, (BaseException, Coroutine)):
            for member, attribute in members(value, ours):
                parts += entry(f"### `{name}.{member}`", f"{name}.{member}", attribute)
    return "\n\n".join(parts) + "\n"


def exports(module: ModuleType) -> Iterator[tuple[str, object]]:
    """What a module exports; of `Lock`, which is a function before 3.13, always the class."""
    for name in sorted({*module.__all__, *ALSO.get(module.__name__.partition(".")[2], ())}):
        value = getattr(module, name)
        function_before_3_13 = (module.__name__, name) == ("juggler.threading", "Lock")
        yield name, _juggler.Lock if function_before_3_13 else value


def is_ours(value: object) -> bool:
    """Whether juggler made it: classes may carry the name of the standard library's module."""
    if isinstance(value, type) and value in vars(_juggler).values():
        return True
    makers = (value, getattr(value, "__init__", None))
    modules = [getattr(maker, "__module__", None) or "" for maker in makers]
    return any(name.startswith("juggler") for name in modules) or hasattr(value, "statistics")


def members(owner: type, ours: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The public attributes that `owner` and its private bases define; methods first.

    Its other bases are among `ours`, with entries of their own, or the standard library's.
    """
    described = [base for base in owner.__mro__[1:] if ours.get(base.__name__) is base]
    defined: dict[str, object] = {}
    for base in reversed(owner.__mro__):
        native = getattr(_juggler, base.__name__, None) is base
        private = base not in described and (native or base.__module__.startswith("juggler"))
        if base is owner or private:
            defined |= vars(base)
    found = {
        name: member
        for name, member in defined.items()
        if not name.startswith("_")
        and not isinstance(member, int)
        and not inspect.ismemberdescriptor(member)  # slots, which the class describes
        # Likewise the fields of a named tuple, unless they are described one by one.
        and not (inspect.getdoc(member) or "").startswith("Alias for field number")
        and not any(is_told_of(base, name, member) for base in described)
    }
    yield from sorted(found.items(), key=lambda item: (not callable(item[1]), item[0]))


def is_told_of(base: type, name: str, member: object) -> bool:
    """Whether `base` has the same member, documented there."""
    return member.__doc__ is not None and member.__doc__ == getattr(base, name, None).__doc__


def entry(heading: str, name: str, value: object) -> list[str]:
    """Heading, signature and docstring of one thing."""
    parts = [heading]
    if isinstance(value, type) and issubclass(value, BaseException):
        parts.append(f"A `{value.__bases__[0].__name__}`.")
    elif callable(value) and (text := signature(value)):
        parts.append(f"```python\n{name}{text}\n```")
    return parts + prose(inspect.getdoc(value) or "")


def signature(value: Callable[..., object]) -> str:
    """How it is called, without `self` and the types; empty for a class without a constructor."""
    made_by = getattr(value, "__new__", None), getattr(value, "__init__", None)
    if made_by == (object.__new__, object.__init__):
        return ""
    found = inspect.signature(value)
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in found.parameters.items()
        if name != "self"
    ]
    if isinstance(value, type):
        # What `Process` inherits from the standard library was `{}` before it was None.
        plain = [each.replace(default=None) if each.default == {} else each for each in plain]
    return str(inspect.Signature(plain))


def prose(doc: str) -> list[str]:
    """The paragraphs of a docstring in Markdown, its sections as lists."""
    parts = []
    for paragraph in re.sub(r"``(.+?)``", r"`\1`", doc).split("\n\n"):
        head, _, body = paragraph.partition(":\n")
        if head in SECTIONS:
            parts.append(f"**{SECTIONS[head]}**")
            parts.append(items(body) if head != "Returns" else one_line(inspect.cleandoc(body)))
        else:
            parts.append(paragraph)
    return parts


def items(body: str) -> str:
    """A section's ``name: text`` lines as a list."""
    lines = []
    for item in re.split(r"\n(?=\S)", textwrap.dedent(body)):
        name, _, text = one_line(item).partition(": ")
        lines.append(f"* `{name}`: {text}")
    return "\n".join(lines)


def one_line(text: str) -> str:
    """`text` without its line breaks."""
    return re.sub(r"\n\s*", " ", text)


def sentence(module: ModuleType) -> str:
    """The first sentence of a module's docstring, as the second half of a line."""
    first = one_line((inspect.getdoc(module) or "").split("\n\n")[0]).replace("``", "`")
    return first[0].lower() + first[1:]


def command_line_page() -> str:
    """The help of the command and of each subcommand."""
    parts = [BEGIN + "# The command line", "What each command prints with `--help`."]
    for name in ["juggler", *(f"juggler {command}" for command in cli.COMMANDS)]:
        words = [sys.executable, "-m", *name.split(), "--help"]
        printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
        parts.append(f"## `{name}`\n\n```text\n{printed.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/reference")
