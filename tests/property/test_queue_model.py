"""Random operations on our queues and on the standard library's give the same results."""

import queue as stdlib_queue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler import queue

# Few values, so that there are ties; the pairs are equal by their order alone.
_NUMBERS = st.integers(0, 3)


class Tied:
    """Ordered by `rank` alone: the order of equal ones tells how the heap was built."""

    def __init__(self, rank: int, label: int) -> None:
        self.rank = rank
        self.label = label

    def __lt__(self, other: "Tied") -> bool:
        return self.rank < other.rank


_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _NUMBERS),
        st.tuples(st.just("put"), _NUMBERS),
        st.tuples(st.just("put_nowait"), _NUMBERS),
        st.tuples(st.just("put_timeout"), _NUMBERS),
        st.tuples(
            st.sampled_from(
                [
                    "get",
                    "get",
                    "get_nowait",
                    "get_timeout",
                    "task_done",
                    "qsize",
                    "empty",
                    "full",
                    "unfinished",
                    "join_if_done",
                    "maxsize",
                ]
            )
        ),
        st.tuples(st.just("resize"), st.integers(-1, 4)),
        # Asked of ours only: it must change nothing that can be seen.
        st.tuples(st.just("open")),
    ),
    max_size=40,
)


def _apply(items: Any, operation: str, argument: Any) -> object:
    match operation:
        case "put":
            return items.put(argument, False)
        case "put_nowait":
            return items.put_nowait(argument)
        case "put_timeout":
            return items.put(argument, timeout=0)
        case "get":
            return items.get(block=False)
        case "get_nowait":
            return items.get_nowait()
        case "get_timeout":
            return items.get(True, 0)
        case "task_done":
            return items.task_done()
        case "unfinished":
            return items.unfinished_tasks
        case "join_if_done":
            return items.join() if not items.unfinished_tasks else "not done"
        case "maxsize":
            return items.maxsize
        case "resize":
            items.maxsize = argument
            return None
        case _:
            return getattr(items, operation)()


def _outcome(items: Any, operation: str, argument: Any) -> tuple[str, object]:
    try:
        result = _apply(items, operation, argument)
    except (stdlib_queue.Empty, stdlib_queue.Full, ValueError) as error:
        return "raised", (type(error), str(error))
    if isinstance(result, Tied):
        result = (result.rank, result.label)
    return "returned", result


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
@given(operations=_OPERATIONS, maxsize=st.integers(-1, 4))
@settings(deadline=None, max_examples=150)
def test_queues(kind: str, operations: list[tuple[Any, ...]], maxsize: int) -> None:
    ours, theirs = (getattr(module, kind)(maxsize) for module in (queue, stdlib_queue))
    for label, (operation, *arguments) in enumerate(operations):
        if operation == "open":
            assert len(ours.queue) == theirs.qsize()
            continue
        argument = arguments[0] if arguments else None
        if operation.startswith("put"):
            argument = Tied(argument, label)
        outcome = _outcome(ours, operation, argument)
        assert outcome == _outcome(theirs, operation, argument), (label, operation)
    left = [
        [_outcome(items, "get", None) for _ in range(items.qsize())] for items in (ours, theirs)
    ]
    assert left[0] == left[1]


@given(
    items=st.lists(
        st.one_of(st.integers(), st.floats(), st.text(max_size=2), st.none()), max_size=12
    )
)
@settings(deadline=None, max_examples=150)
def test_heaps_of_what_may_have_no_order(items: list[object]) -> None:
    ours, theirs = queue.PriorityQueue(), stdlib_queue.PriorityQueue()
    for item in items:
        refused = False
        try:
            ours.put(item)
        except TypeError:
            refused = True
        if refused:
            # The standard library would keep the item that it could not place.
            with pytest.raises(TypeError):
                theirs.put(item)
            break
        theirs.put(item)
    else:
        got = [[repr(each.get()) for _ in range(each.qsize())] for each in (ours, theirs)]
        assert got[0] == got[1]


@given(ranks=st.lists(_NUMBERS, max_size=30), opened_after=st.integers(0, 30))
@settings(deadline=None, max_examples=150)
def test_opening_keeps_the_order_of_ties(ranks: list[int], opened_after: int) -> None:
    ours, theirs = queue.PriorityQueue(), stdlib_queue.PriorityQueue()
    for label, rank in enumerate(ranks):
        if label == opened_after:
            assert [item.label for item in ours.queue] == [item.label for item in theirs.queue]
        ours.put(Tied(rank, label))
        theirs.put(Tied(rank, label))
    got = [[each.get().label for _ in ranks] for each in (ours, theirs)]
    assert got[0] == got[1]


@pytest.mark.skipif(
    not hasattr(stdlib_queue, "ShutDown"), reason="the standard library's can shut down since 3.13"
)
@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue"])
@given(
    operations=st.lists(
        st.sampled_from(["put", "get", "get", "task_done", "shutdown", "shutdown_now", "open"]),
        max_size=20,
    )
)
@settings(deadline=None, max_examples=100)
def test_shutdown(kind: str, operations: list[str]) -> None:
    ours, theirs = (getattr(module, kind)(3) for module in (queue, stdlib_queue))

    def apply(items: Any, operation: str) -> object:
        try:
            match operation:
                case "put":
                    return items.put(1, False)
                case "get":
                    return items.get(False)
                case "shutdown_now":
                    return items.shutdown(immediate=True)
                case _:
                    return getattr(items, operation)()
        except (stdlib_queue.Empty, stdlib_queue.Full, queue.ShutDown, ValueError) as error:
            return type(error), str(error)

    for operation in operations:
        if operation == "open":
            assert len(ours.queue) == theirs.qsize()
            continue
        assert apply(ours, operation) == apply(theirs, operation)
        assert (ours.qsize(), ours.unfinished_tasks, ours.is_shutdown) == (
            theirs.qsize(),
            theirs.unfinished_tasks,
            theirs.is_shutdown,
        )
