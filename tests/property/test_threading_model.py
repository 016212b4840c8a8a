"""Random operations on our primitives and on the standard library's give the same results."""

import re
import threading as stdlib_threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juggler import threading

MODULES = (threading, stdlib_threading)


def _outcome(call: Any, *args: Any, **kwargs: Any) -> tuple[str, object]:
    try:
        return "returned", call(*args, **kwargs)
    except (RuntimeError, ValueError, stdlib_threading.BrokenBarrierError) as error:
        return "raised", (type(error), str(error))


@pytest.mark.parametrize("kind", ["Semaphore", "BoundedSemaphore"])
@given(
    value=st.integers(-1, 4),
    operations=st.lists(
        st.one_of(
            st.tuples(st.just("try")),
            st.tuples(st.just("try_for"), st.sampled_from([0, -1, 0.0])),
            st.tuples(st.just("refuse"), st.floats(0.1, 5)),
            st.tuples(st.just("release"), st.integers(-1, 3)),
            st.tuples(st.just("look")),
        ),
        max_size=30,
    ),
)
@settings(deadline=None, max_examples=200)
def test_semaphores(kind: str, value: int, operations: list[tuple[Any, ...]]) -> None:
    made = [_outcome(getattr(module, kind), value) for module in MODULES]
    if made[0][0] == "raised":
        assert made[0] == made[1]
        return
    ours, theirs = (made[0][1], made[1][1])

    def apply(semaphore: Any, operation: str, *args: Any) -> tuple[str, object]:
        match operation:
            case "try":
                return _outcome(semaphore.acquire, False)
            case "try_for":
                return _outcome(semaphore.acquire, timeout=args[0])
            case "refuse":
                return _outcome(semaphore.acquire, False, args[0])
            case "release":
                return _outcome(semaphore.release, *args)
            case _:
                return _outcome(lambda: (semaphore._value, repr(semaphore).split(":")[1]))

    for operation in operations:
        assert apply(ours, *operation) == apply(theirs, *operation)


@given(
    operations=st.lists(
        st.sampled_from(["set", "clear", "is_set", "try", "repr"]),
        max_size=20,
    )
)
@settings(deadline=None, max_examples=100)
def test_events(operations: list[str]) -> None:
    ours, theirs = (module.Event() for module in MODULES)

    def apply(event: Any, operation: str) -> tuple[str, object]:
        if operation == "try":
            return _outcome(event.wait, 0)
        if operation == "repr":
            return _outcome(lambda: re.sub("0x[0-9a-f]+", "", repr(event)))
        return _outcome(getattr(event, operation))

    for operation in operations:
        assert apply(ours, operation) == apply(theirs, operation)


@given(
    operations=st.lists(
        st.sampled_from(
            ["acquire", "acquire", "try", "timed", "release", "owned", "elsewhere", "save", "back"]
        ),
        max_size=40,
    )
)
@settings(deadline=None, max_examples=100)
def test_reentrant_locks(operations: list[str]) -> None:
    ours, theirs = (module.RLock() for module in MODULES)
    saved: dict[int, list[Any]] = {id(ours): [], id(theirs): []}

    def elsewhere(lock: Any) -> object:
        results: list[object] = []

        def run() -> None:
            taken = lock.acquire(False)
            results.append((taken, _outcome(lock.release)))

        thread = stdlib_threading.Thread(target=run)
        thread.start()
        thread.join()
        return results

    def apply(lock: Any, operation: str) -> object:
        states = saved[id(lock)]
        match operation:
            case "acquire":
                # It would wait for ever if it were not this thread's.
                return _outcome(lock.acquire)
            case "try":
                return _outcome(lock.acquire, False)
            case "timed":
                return _outcome(lock.acquire, timeout=0.5)
            case "release":
                return _outcome(lock.release)
            case "owned":
                return _outcome(lock._is_owned)
            case "elsewhere":
                return elsewhere(lock)
            case "save":
                kind, state = _outcome(lock._release_save)
                if kind == "raised":
                    return state
                states.append(state)
                return "saved"
            case _:
                if not states or lock._is_owned():
                    return "nothing to give back"
                return _outcome(lock._acquire_restore, states.pop())

    for operation in operations:
        assert apply(ours, operation) == apply(theirs, operation)


@given(
    operations=st.lists(
        st.sampled_from(["acquire", "release", "locked", "timed", "other releases"]), max_size=25
    )
)
@settings(deadline=None, max_examples=100)
def test_locks(operations: list[str]) -> None:
    ours, theirs = (module.Lock() for module in MODULES)

    def apply(lock: Any, operation: str) -> object:
        match operation:
            case "acquire":
                return _outcome(lock.acquire, False)
            case "timed":
                return _outcome(lock.acquire, True, 0)
            case "other releases":
                results: list[object] = []
                thread = stdlib_threading.Thread(
                    target=lambda: results.append(_outcome(lock.release))
                )
                thread.start()
                thread.join()
                return results
            case _:
                return _outcome(getattr(lock, operation))

    for operation in operations:
        assert apply(ours, operation) == apply(theirs, operation)


@given(
    parties=st.integers(0, 3),
    operations=st.lists(
        st.sampled_from(["wait", "abort", "reset", "broken", "n_waiting", "parties"]), max_size=20
    ),
)
@settings(deadline=None, max_examples=100)
def test_barriers(parties: int, operations: list[str]) -> None:
    # Since 3.12 the standard library refuses to make one for nobody.
    made = [_outcome(module.Barrier, max(parties, 1)) for module in MODULES]
    ours, theirs = (made[0][1], made[1][1])

    def apply(barrier: Any, operation: str) -> object:
        match operation:
            case "wait":
                return _outcome(barrier.wait, 0)
            case "abort" | "reset":
                return _outcome(getattr(barrier, operation))
            case _:
                return getattr(barrier, operation)

    for operation in operations:
        assert apply(ours, operation) == apply(theirs, operation)


@given(
    operations=st.lists(
        st.sampled_from(["enter", "exit", "notify", "notify_all", "wait", "owned", "for"]),
        max_size=25,
    ),
    own=st.sampled_from([None, "Lock", "RLock"]),
)
@settings(deadline=None, max_examples=150)
def test_conditions(operations: list[str], own: str | None) -> None:
    ours, theirs = (module.Condition(getattr(module, own)() if own else None) for module in MODULES)

    def apply(condition: Any, operation: str) -> object:
        match operation:
            case "enter":
                return _outcome(condition.acquire, False)
            case "exit":
                return _outcome(condition.release)
            case "wait":
                return _outcome(condition.wait, 0)
            case "for":
                return _outcome(condition.wait_for, lambda: 0, 0)
            case "owned":
                return _outcome(condition._is_owned)
            case _:
                return _outcome(getattr(condition, operation))

    for operation in operations:
        assert apply(ours, operation) == apply(theirs, operation)
