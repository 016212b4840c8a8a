"""What was asked of `juggler.map`, checked once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from juggler._progress import Setting
    from juggler.policy import Policy

MODELS = ("auto", "threads", "processes", "loop", "serial")
On = Literal["auto", "threads", "processes", "loop", "serial"]
Star = bool | Literal["**"]


@dataclass(slots=True, kw_only=True)
class Options:
    """The checked arguments of a map.

    Attributes:
        retried: called for each attempt after the first.
    """

    function: Callable[..., Any]
    items: Iterable[Any] | AsyncIterable[Any]
    on: Any
    limit: int | None
    buffer: int | None
    ordered: bool
    errors: str
    star: Star
    chunk: int | None
    policy: Policy | None
    timeout: float | None
    progress: Setting
    explain: bool
    retried: list[Callable[[], object]]

    @property
    def is_async(self) -> bool:
        """Whether a call makes a coroutine."""
        return is_coroutine_function(self.function)


def check(
    function: Any,
    items: Any,
    *,
    on: Any,
    limit: Any,
    buffer: Any,
    ordered: Any,
    errors: Any,
    star: Any,
    chunk: Any,
    rate: Any,
    retries: Any,
    timeout: Any,
    deadline: Any,
    policy: Any,
    progress: Any,
    explain: Any,
) -> Options:
    """The options, or an error that says which of them is wrong, and what to do."""
    check_function(function, items)
    if not is_iterable(items):
        raise TypeError(f"items must be iterable, or asynchronously so, not {_short(items)}")
    check_model(on)
    for name, number in (("limit", limit), ("buffer", buffer)):
        if number is not None:
            check_count(name, number)
    if chunk != "auto":
        check_count("chunk", chunk, " or 'auto'")
    _one_of("errors", errors, ("raise", "return", "skip"))
    if star not in (False, True, "**"):
        raise ValueError(f"star must be True, False or '**', not {star!r}")
    if not (progress in (True, False, None) or callable(progress)):
        raise TypeError(f"progress must be True, False, None or a function, not {progress!r}")
    for name, seconds in (("timeout", timeout), ("deadline", deadline)):
        if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
            raise ValueError(f"{name} must be a number of seconds above 0, not {seconds!r}")
    retried: list[Callable[[], object]] = []
    return Options(
        function=function,
        items=items,
        on=on,
        limit=limit,
        buffer=buffer,
        ordered=bool(ordered),
        errors=errors,
        star=star,
        chunk=None if chunk == "auto" else chunk,
        policy=_together(deadline, retries, policy, rate, retried),
        timeout=timeout,
        progress=progress,
        explain=bool(explain),
        retried=retried,
    )


def check_function(function: Any, items: Any = None) -> None:
    """Raise if this can't be called."""
    if not callable(function):
        swapped = " (fn comes first, then the items)" if callable(items) else ""
        raise TypeError(f"fn must be callable, not {_short(function)}{swapped}")


def is_iterable(items: Any) -> bool:
    """Whether it may be iterated over, one way or the other; it is not asked to begin."""
    return isinstance(items, Iterable | AsyncIterable) or hasattr(type(items), "__getitem__")


def check_model(on: Any) -> None:
    """Raise if this is nothing to run on."""
    if isinstance(on, str):
        _one_of("on", on, MODELS, ", or an executor")
    elif not callable(getattr(on, "submit", None)):
        raise TypeError(f"on must be {_listed(MODELS)}, or an executor, not {_short(on)}")


def check_count(name: str, number: Any, otherwise: str = "") -> None:
    """Raise if this is not a number from 1."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} must be an integer{otherwise}, not {number!r}")
    if number < 1:
        raise ValueError(f"{name} must be 1 or more{otherwise}, not {number!r}")


def is_coroutine_function(function: Any) -> bool:
    """Whether a call of it makes a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    of_class: Any = type(function)
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(of_class.__call__)


def is_foreign(on: object) -> bool:
    """Whether it is an executor of somebody else's."""
    return isinstance(on, Executor) or not isinstance(on, str)


def _together(
    deadline: float | None,
    retries: Any,
    policy: Policy | None,
    rate: Any,
    retried: list[Callable[[], object]],
) -> Policy | None:
    """The policies around each other, in the order that `juggler.policy` advises."""
    if not isinstance(retries, int) or isinstance(retries, bool):
        raise TypeError(f"retries must be an integer, not {retries!r}; more is policy.retry's")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    if not retries and deadline is None and policy is None and rate is None:
        return None
    from juggler import policy as policies

    parts: list[policies.Policy] = []
    if deadline is not None:
        parts.append(policies.deadline(deadline))
    if retries:
        parts.append(policies.retry(retries + 1, on_retry=lambda *_: [tell() for tell in retried]))
    if policy is not None:
        parts.append(policy)
    if rate is not None:
        parts.append(policies.rate(rate) if isinstance(rate, str) else rate)
    for part in parts:
        if not isinstance(part, policies.Policy):
            raise TypeError(f"policy and rate must be of juggler.policy, not {part!r}")
    return functools.reduce(lambda outer, inner: outer | inner, parts)


def _one_of(name: str, value: Any, known: tuple[str, ...], otherwise: str = "") -> None:
    if value not in known:
        import difflib

        near = difflib.get_close_matches(str(value), known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be {_listed(known)}{otherwise}, not {value!r}{guess}")


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(map(repr, words))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
