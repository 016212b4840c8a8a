"""Exceptions as bytes for another process, whatever their classes make of pickling.

An exception goes with its cause, context, notes and members, and each by itself: one that can't
travel becomes a `RemoteError` that says what it was, and spoils none of the others.  It is
rebuilt without a call of its class's ``__init__``, whose arguments need not be ``args``; only a
class that has its own ``__reduce__`` is asked.
"""

import pickle
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from juggler._processes.pickling import dumps, loads

_NAMES = 20
"""How many names of locals are shown for a frame."""


class RemoteError(Exception):
    """Stands for an exception of another process that can't be rebuilt in this one.

    Its text has the class and the text of the original, and why it did not arrive.
    """


class _Packed(NamedTuple):
    description: str
    # Pickled, each by itself: the exception, as its class wants it, and `(class, args, state)`.
    whole: bytes | None
    parts: bytes | str
    cause: int | None
    context: int | None
    suppress: bool
    members: list[int]


def pack_exception(exc: BaseException, *, define: bool = False) -> bytes:
    """Make a message of an exception and its traceback, of which `unpack_exception` makes it again.

    Never raises for what the exception is or holds: attributes that can't travel are left out.

    Args:
        exc: The exception.
        define: See `pickling.dumps`.
    """
    known: dict[int, int] = {}
    found: list[BaseException] = []
    packed: list[_Packed] = []

    def number(error: BaseException | None) -> int | None:
        if error is None:
            return None
        if id(error) not in known:
            known[id(error)] = len(found)
            found.append(error)
        return known[id(error)]

    number(exc)
    for error in found:  # grows while it runs
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        numbers = [n for n in map(number, members) if n is not None]
        whole, parts = _pack(error, define)
        packed.append(
            _Packed(
                f"{_name(type(error))}: {_text(error)}",
                whole,
                parts,
                number(error.__cause__),
                number(error.__context__),
                error.__suppress_context__,
                numbers,
            )
        )
    return pickle.dumps((_format(exc), [tuple(entry) for entry in packed]), 5)


def unpack_exception(data: bytes, remote_traceback: type[Exception] | None = None) -> BaseException:
    """Rebuild an exception that another process packed.

    The traceback it had there becomes the last cause in its chain of causes.

    Args:
        data: What `pack_exception` made.
        remote_traceback: The class of that cause, made from the text; the one that
            `concurrent.futures` has by default.
    """
    if remote_traceback is None:
        from concurrent.futures.process import _RemoteTraceback

        remote_traceback = _RemoteTraceback
    text, rows = pickle.loads(data)
    packed = [_Packed(*row) for row in rows]
    made: dict[int, BaseException] = {}

    def make(index: int, above: frozenset[int] = frozenset()) -> BaseException:
        if index not in made:
            entry = packed[index]
            inner = above | {index}
            members = [make(member, inner) for member in entry.members if member not in inner]
            made[index] = _unpack(entry, members)
        return made[index]

    for index, entry in enumerate(packed):
        error = make(index)
        error.__cause__ = None if entry.cause is None else make(entry.cause)
        error.__context__ = None if entry.context is None else make(entry.context)
        error.__suppress_context__ = entry.suppress
    last = exc = make(0)
    seen = {id(last)}
    while last.__cause__ is not None and id(last.__cause__) not in seen:
        last = last.__cause__
        seen.add(id(last))
    last.__cause__ = remote_traceback(f'\n"""\n{text}"""')
    return exc


# ------------------------------------------------------------------ one exception


def _pack(error: BaseException, define: bool) -> tuple[bytes | None, bytes | str]:
    """The two forms of an exception, or why there is none."""
    kind = type(error)
    whole = None
    if not isinstance(error, BaseExceptionGroup) and not _is_plain(kind):
        whole = _pickle(error, define)
    try:
        # The built-in `__reduce__` knows what is not in `args`: an OSError's file name.
        reduced: Any = _builtin(kind).__reduce__(error)
        args = (error.message,) if isinstance(error, BaseExceptionGroup) else reduced[1]
        state = {**error.__dict__, **(reduced[2] if len(reduced) > 2 else {})}
        parts = _pickle((kind, args, state), define)
        if parts is None:
            kept = {k: v for k, v in state.items() if _pickle(v, define) is not None}
            told = tuple(arg if _pickle(arg, define) is not None else _text(arg) for arg in args)
            parts = dumps((kind, told, kept), define=define, threshold=sys.maxsize)[0]
        return whole, parts
    except Exception as why:
        return whole, f"{type(why).__name__}: {_text(why)}"


def _pickle(obj: object, define: bool) -> bytes | None:
    try:
        return dumps(obj, define=define, threshold=sys.maxsize)[0]
    except Exception:
        return None


def _unpack(entry: _Packed, members: list[BaseException]) -> BaseException:
    why: object = entry.parts
    if entry.whole is not None:
        try:
            error = loads(entry.whole)
            if isinstance(error, BaseException):
                return error
            why = f"its __reduce__ makes a {_name(type(error))}"
        except Exception as failure:
            why = f"{type(failure).__name__}: {_text(failure)}"
    if isinstance(entry.parts, bytes):
        try:
            kind, args, state = loads(entry.parts)
            return _rebuild(kind, args, state, members)
        except Exception as failure:
            why = f"{type(failure).__name__}: {_text(failure)}"
    text = f"{entry.description} (the exception itself could not be sent: {why})"
    if members:
        return BaseExceptionGroup(text, members)
    return RemoteError(text)


def _rebuild(
    kind: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    members: list[BaseException],
) -> BaseException:
    base = _builtin(kind)
    if members:
        error = base.__new__(kind, *args, members)
    else:
        error = base.__new__(kind, *args)
        # Fills what a built-in class keeps outside of `args`; the class's own is not called.
        base.__init__(error, *args)
    for name, value in state.items():
        # Not `setattr`, which a class may forbid; but a built-in's attribute is no entry.
        if isinstance(getattr(base, name, None), _BUILTIN_ATTRIBUTES):
            setattr(error, name, value)
        else:
            error.__dict__[name] = value
    return error


_BUILTIN_ATTRIBUTES = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _builtin(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _is_plain(kind: type[BaseException]) -> bool:
    """Whether only built-in classes decide how it is pickled."""
    names = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__", "__new__")
    return all(
        base.__module__ == "builtins" or not any(name in vars(base) for name in names)
        for base in kind.__mro__
    )


# ------------------------------------------------------------------ the traceback


class _Stack(traceback.StackSummary):
    """Shows the names of the locals under each frame's line."""

    names: list[list[str]]

    def format(self, **options: Any) -> list[str]:
        self._left: Iterator[list[str]] = iter(self.names)
        return super().format(**options)

    def format_frame_summary(self, frame_summary: traceback.FrameSummary, **options: Any) -> str:
        text = super().format_frame_summary(frame_summary, **options)
        names = next(self._left, [])
        if not text or not names:
            return text
        more = ", ..." if len(names) > _NAMES else ""
        return f"{text}    locals: {', '.join(names[:_NAMES])}{more}\n"


def _format(exc: BaseException) -> str:
    try:
        shown = traceback.TracebackException.from_exception(exc)
        _name_locals(exc, shown, set())
        return "".join(shown.format())
    except Exception as why:  # a `__str__` or a source file can go wrong
        return f"{_name(type(exc))}: {_text(exc)} (no traceback: {type(why).__name__})\n"


def _name_locals(exc: BaseException, shown: traceback.TracebackException, seen: set[int]) -> None:
    """Add the names to an exception's frames and to all that are shown with it."""
    if id(exc) in seen:
        return
    seen.add(id(exc))
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    # The frames that led from the worker's loop to the task tell the user nothing.
    ours = 0
    while ours < len(frames) and _is_ours(frames[ours]):
        ours += 1
    if ours == len(frames):
        ours = 0
    stack = _Stack(list(shown.stack)[ours:])
    stack.names = [
        [] if frame.f_locals is frame.f_globals else list(frame.f_locals) for frame in frames[ours:]
    ]
    shown.stack = stack
    if exc.__cause__ is not None and shown.__cause__ is not None:
        _name_locals(exc.__cause__, shown.__cause__, seen)
    if exc.__context__ is not None and shown.__context__ is not None:
        _name_locals(exc.__context__, shown.__context__, seen)
    if isinstance(exc, BaseExceptionGroup):
        for member, view in zip(exc.exceptions, shown.exceptions or (), strict=False):
            _name_locals(member, view, seen)


def _is_ours(frame: types.FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("juggler._processes.")


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _text(obj: object) -> str:
    try:
        return str(obj)
    except Exception:
        return "<its text could not be made>"
