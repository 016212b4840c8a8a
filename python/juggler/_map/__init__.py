"""Many calls at once: one iterator, whatever runs them.

What is here is in ``juggler``: `juggler.map`, `juggler.starmap`, `juggler.Pool`,
`juggler.last_choice`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack, overload

from juggler._map.advice import Advice, advise
from juggler._map.choosing import Choice, Facts
from juggler._map.flow import last_choice
from juggler._map.options import On, check
from juggler._map.pool import Memory, Pool
from juggler._map.results import Results
from juggler._map.workers import Workers
from juggler._progress import Progress

if TYPE_CHECKING:
    from juggler.policy import Policy, Rate

__all__ = [
    "Advice",
    "Choice",
    "Facts",
    "Pool",
    "Progress",
    "Results",
    "advise",
    "last_choice",
    "map",
    "starmap",
]

T = TypeVar("T")
R = TypeVar("R")


class CallOptions(TypedDict, total=False):
    """What maps and the stages of pipelines take alike."""

    ordered: bool
    chunk: int | Literal["auto"]
    rate: str | Rate | None
    retries: int
    timeout: float | None
    deadline: float | None
    policy: Policy | None


class MapOptions(CallOptions, total=False):
    """What `Pool.map` takes besides the function, the items, ``errors`` and ``star``."""

    buffer: int | None
    progress: bool | Callable[[Progress], object] | None
    explain: bool


class AllOptions(MapOptions, total=False):
    """What `map` takes besides the function, the items, ``errors`` and ``star``."""

    on: On | Executor | Pool
    limit: int | None


@overload
def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    errors: Literal["raise", "skip"] = ...,
    star: Literal[False] = ...,
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def map(
    fn: Callable[[T], Coroutine[Any, Any, R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    errors: Literal["return"],
    star: Literal[False] = ...,
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
@overload
def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    errors: Literal["raise", "skip"] = ...,
    star: Literal[False] = ...,
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def map(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    errors: Literal["return"],
    star: Literal[False] = ...,
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
@overload
def map(
    fn: Callable[..., Coroutine[Any, Any, R]],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    errors: Literal["raise", "skip"] = ...,
    star: Literal[True, "**"],
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def map(
    fn: Callable[..., Coroutine[Any, Any, R]],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    errors: Literal["return"],
    star: Literal[True, "**"],
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
@overload
def map(
    fn: Callable[..., R],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    errors: Literal["raise", "skip"] = ...,
    star: Literal[True, "**"],
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def map(
    fn: Callable[..., R],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    errors: Literal["return"],
    star: Literal[True, "**"],
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
def map(
    fn: Callable[..., Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    on: On | Executor | Pool = "auto",
    limit: int | None = None,
    buffer: int | None = None,
    ordered: bool = True,
    errors: Literal["raise", "return", "skip"] = "raise",
    star: Literal[False, True, "**"] = False,
    chunk: int | Literal["auto"] = "auto",
    rate: str | Rate | None = None,
    retries: int = 0,
    timeout: float | None = None,
    deadline: float | None = None,
    policy: Policy | None = None,
    progress: bool | Callable[[Progress], object] | None = False,
    explain: bool = False,
) -> Results[Any]:
    """Call a function with each item, many at once, and iterate over the results.

    What it runs on is chosen by measuring the first calls, unless `on` says it; see `last_choice`.
    The input is read as results are taken, and may be endless. What may block is read by a thread
    of its own from its first item to its end, so that no result waits for it: a generator, a file,
    any iterator that is not the standard library's own over what is in memory.

    Args:
        fn: a function, or a coroutine function; with ``on="auto"`` also a function that returns
            coroutines, which are awaited.
        items: its arguments: an iterable, or an asynchronous one.
        on: ``"threads"``; ``"processes"``; ``"loop"``, for coroutine functions; ``"serial"``, one
            after the other in the thread that iterates; any executor, or a `Pool`; or
            ``"auto"``.
        limit: how many calls are made at once; by default 32 in threads and in the loop, and one a
            processor in processes.
        buffer: how many items may be taken from the input beyond the results that were handed
            out; by default four times `limit`, or twice if not `ordered`, and as many chunks if
            calls are short.
        ordered: whether results come in the order of the items, or as they are done.
        errors: what becomes of a call's exception: ``"raise"`` raises it, with a note which item
            it was, and closes the map; ``"return"`` has it in the place of the result; ``"skip"``
            leaves the item out.
        star: whether an item is all the arguments: True for tuples, ``"**"`` for dictionaries of
            named ones.
        chunk: how many calls are handed over together; ``"auto"`` takes together only what is done
            within about 4 ms.
        rate: no more calls than this, such as ``"20/s"``, or a `juggler.policy.rate`.
        retries: how often a call that raised is made again, with growing pauses.
        timeout: seconds that one attempt may take, after which it is stopped and `TimeoutError`
            raised. Plain functions can be stopped in processes only.
        deadline: seconds that an item may take, with all attempts, pauses and waits for the rate.
        policy: what else is around the calls; inside of `deadline` and `retries`, around `rate`
            and `timeout`.
        progress: True shows a bar on standard error, or lines where that is no terminal; None does
            so on a terminal only; a function is called with a `Progress` now and then.
        explain: whether to print on standard error what was chosen, and why.

    Returns:
        An iterator of the results, which is an asynchronous one and a context manager, too.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument has a value that there is not.
    """
    if isinstance(on, Pool):
        if limit is not None:
            raise TypeError("limit is the pool's: Pool(limit=...)")
        on._workers.check()
        resources, memory, owns = on._workers, on._memory, False
        model, limit = on._on, on._limit
    else:
        resources, memory, owns = Workers(), Memory(), True
        model = on
    checked = check(
        fn,
        items,
        on=model,
        limit=limit,
        buffer=buffer,
        ordered=ordered,
        errors=errors,
        star=star,
        chunk=chunk,
        rate=rate,
        retries=retries,
        timeout=timeout,
        deadline=deadline,
        policy=policy,
        progress=progress,
        explain=explain,
    )
    return Results(checked, resources, memory, owns)


@overload
def starmap(
    fn: Callable[..., Coroutine[Any, Any, R]],
    items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def starmap(
    fn: Callable[..., Coroutine[Any, Any, R]],
    items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
    *,
    errors: Literal["return"],
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
@overload
def starmap(
    fn: Callable[..., R],
    items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
    *,
    errors: Literal["raise", "skip"] = ...,
    **options: Unpack[AllOptions],
) -> Results[R]: ...
@overload
def starmap(
    fn: Callable[..., R],
    items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
    *,
    errors: Literal["return"],
    **options: Unpack[AllOptions],
) -> Results[R | Exception]: ...
def starmap(
    fn: Callable[..., Any],
    items: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
    **options: Any,
) -> Results[Any]:
    """As `map`, with items that are all the arguments of a call: ``fn(*item)``.

    Args:
        fn: a function, or a coroutine function.
        items: tuples of its arguments.
        options: as for `map`.

    Returns:
        As `map`.
    """
    results: Results[Any] = map(fn, items, star=True, **options)
    return results
