"""Each policy by itself, on the virtual clock."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from juggler import policy
from juggler.policy import VirtualClock


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    with VirtualClock() as clock:
        yield clock


class Flaky:
    """Fails so often, then answers."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures = failures
        self.calls = 0
        self.error = error

    def __call__(self, value: int = 42) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return value

    async def later(self, value: int = 42) -> int:
        return self(value)


# ------------------------------------------------------------------------------- retry


def test_retry_waits_longer_each_time_until_the_call_succeeds(clock: VirtualClock) -> None:
    flaky = Flaky(3)
    pauses: list[tuple[int, str, float]] = []
    waits = policy.exponential(1, 3, None)
    again = policy.retry(
        4, backoff=waits, on_retry=lambda *told: pauses.append((told[0], str(told[1]), told[2]))
    )
    assert again(flaky)(value=7) == 7
    assert pauses == [(1, "failure 1", 1.0), (2, "failure 2", 2.0), (3, "failure 3", 3.0)]
    assert clock.time() == 6.0


def test_retry_raises_the_last_error_and_tells_of_the_attempts(clock: VirtualClock) -> None:
    with pytest.raises(ConnectionError, match="failure 3") as caught:
        policy.retry(3, backoff=2.0)(Flaky(9))()
    assert caught.value.__notes__ == ["juggler.policy: attempt 3 in 4 s; gave up"]
    with pytest.raises(ConnectionError, match="failure 2") as caught:
        policy.retry(9, backoff=2.0, deadline=3)(Flaky(9))()
    note = "juggler.policy: attempt 2 in 2 s; the deadline allows no further one"
    assert caught.value.__notes__ == [note]


@pytest.mark.parametrize(
    "on",
    [ConnectionError, (OSError, KeyError), lambda error: "failure" in str(error)],
    ids=["class", "classes", "function"],
)
def test_retry_tries_again_only_after_the_errors_that_it_is_told(
    clock: VirtualClock,
    on: policy._retry.Errors,
) -> None:
    assert policy.retry(3, on=on)(Flaky(2))() == 42

    def wrong() -> None:
        raise ValueError("never mind")

    with pytest.raises(ValueError, match="never mind") as caught:
        policy.retry(3, on=on)(wrong)()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_retry_ends_at_once_on_what_is_no_failure(
    clock: VirtualClock, error: type[BaseException]
) -> None:
    calls = []

    def interrupted() -> None:
        calls.append(clock.time())
        raise error

    with pytest.raises(error):
        policy.retry(3)(interrupted)()
    assert calls == [0.0]


def test_retry_in_a_coroutine(clock: VirtualClock) -> None:
    flaky = Flaky(2)

    @policy.retry(3, backoff=5.0)
    async def call() -> int:
        return await flaky.later()

    assert clock.run(call()) == 42
    assert clock.time() == 10.0


def test_retry_waits_as_long_as_the_server_asks_but_no_longer_than_the_longest(
    clock: VirtualClock,
) -> None:
    asked = iter([7.0, 1000.0])

    class BusyError(Exception):
        @property
        def retry_after(self) -> float:
            return next(asked)

    assert policy.retry(3, backoff=1.0, longest=50)(Flaky(2, BusyError))() == 42
    assert clock.time() == 57.0


def headers(value: str) -> object:
    return SimpleNamespace(headers={"Retry-After": value})


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (SimpleNamespace(retry_after=3), 3.0),
        (SimpleNamespace(response=headers("120")), 120.0),
        (headers("0.5"), 0.5),
        (headers("-4"), 0.0),
        (headers("soon"), None),
        (headers("nan"), None),
        (headers("Wed, 21 Oct 2015 07:28:00 GMT"), 0.0),
        (SimpleNamespace(response=None), None),
        (ValueError(), None),
    ],
)
def test_what_the_server_asks_for(error: BaseException, seconds: float | None) -> None:
    assert policy.retry_after(error) == seconds


def test_a_date_that_the_server_asks_for() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    seconds = policy.retry_after(headers(date))  # type: ignore[arg-type]
    assert seconds is not None and 3500 < seconds <= 3600


@pytest.mark.parametrize("jitter", ["full", "equal", "decorrelated"])
def test_the_same_seed_gives_the_same_pauses(jitter: str) -> None:
    def pauses(seed: int) -> list[float]:
        found: list[float] = []
        with VirtualClock(seed=seed):
            backoff = policy.exponential(1, 60, jitter)  # type: ignore[arg-type]
            again = policy.retry(
                6, backoff=backoff, on_retry=lambda _n, _error, pause: found.append(pause)
            )
            again(Flaky(5))()
        return found

    assert pauses(1) == pauses(1) != pauses(2)


# ------------------------------------------------------------------------------- rate, limit


def test_rate_spaces_calls_evenly_and_lets_a_burst_through(clock: VirtualClock) -> None:
    even, bursts = policy.rate("4/s"), policy.rate("4/s", burst=3)
    assert [even.call(clock.time) for _ in range(4)] == [0.0, 0.25, 0.5, 0.75]
    assert [bursts.call(clock.time) for _ in range(5)] == [0.75, 0.75, 0.75, 1.0, 1.25]
    clock.advance(10)
    assert [bursts.call(clock.time) for _ in range(4)] == [11.25, 11.25, 11.25, 11.5]


def test_rate_of_bytes(clock: VirtualClock) -> None:
    speed = policy.rate("1kB/s", burst=100)
    moments = []
    for amount in (100, 50, 50, 500, 0, 100):
        speed.take(amount)
        moments.append(clock.time())
    # 500 waits for a full bucket, and what follows pays for it.
    assert moments == [0.0, 0.05, 0.1, 0.2, 0.6, 0.7]


def test_rate_by_the_cost_of_a_call(clock: VirtualClock) -> None:
    send = policy.rate("10B/s", burst=10, cost=len)(lambda _data: clock.time())
    assert [send(b"x" * 10), send(b"x" * 5), send(b"x" * 10)] == [0.0, 0.5, 1.5]


def test_rate_in_coroutines_serves_in_the_order_of_arrival(clock: VirtualClock) -> None:
    order: list[tuple[int, float]] = []
    slow = policy.rate("2/s")

    async def call(number: int) -> None:
        await slow.take_async(1)
        order.append((number, clock.time()))

    async def main() -> None:
        await asyncio.gather(*map(call, range(5)))

    clock.run(main())
    assert order == [(number, number / 2) for number in range(5)]


@pytest.mark.parametrize("text", ["20", "x/s", "20/y", "0/s", "10mb/s"])
def test_rate_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match=f"'?\"?{text}\"?'? is no rate: "):
        policy.rate(text)


def test_rate_and_limit_raise_at_once_what_the_deadline_does_not_allow(clock: VirtualClock) -> None:
    slow = policy.rate("1/m")
    slow.take(1)
    with pytest.raises(policy.DeadlineError, match="no time to wait for the rate of 1/m"):
        (policy.deadline(10) | slow)(clock.time)()
    assert clock.time() == 0.0
    assert slow.call(clock.time) == 60.0


def test_a_place_that_the_deadline_does_not_wait_for(clock: VirtualClock) -> None:
    one = policy.limit(1)

    def holder() -> None:
        with one:
            clock.sleep(5)

    def hurried() -> float:
        clock.sleep(1)
        with pytest.raises(policy.DeadlineError, match="one of 1 places"), policy.deadline(2), one:
            pytest.fail("got in")
        return clock.time()

    def patient() -> float:
        clock.sleep(2)
        with one:
            return clock.time()

    assert clock.run_threads(holder, hurried, patient) == [None, 3.0, 5.0]


def test_threads_and_loops_share_one_limit() -> None:
    # On the machine's clock: a thread holds the place, and hands it to a task of a loop.
    one = policy.limit(1)
    order: list[str] = []

    async def main() -> None:
        with one:
            waiting = asyncio.create_task(inside())
            other = asyncio.create_task(asyncio.to_thread(hold))
            while not order:
                order.append("held")
                await asyncio.sleep(0.01)
        await asyncio.gather(waiting, other)

    async def inside() -> None:
        async with one:
            order.append("task")

    def hold() -> None:
        with one:
            order.append("thread")

    asyncio.run(asyncio.wait_for(main(), 60))
    assert order == ["held", "task", "thread"]


def test_a_key_has_its_own_limit(clock: VirtualClock) -> None:
    hosts = policy.limit(1, per_key=policy.host)

    @hosts
    def fetch(_url: str) -> float:
        clock.sleep(1)
        return clock.time()

    urls = ["https://a/1", "https://A/2", "https://u:p@b:80/1", "http://b:80/2", "http://c"]
    ends = clock.run_threads(*(lambda url=url: fetch(url) for url in urls))
    assert sorted(ends) == [1.0, 1.0, 1.0, 2.0, 2.0]
    with hosts.for_key("a"), hosts.for_key("b"):
        assert clock.time() == 2.0
    with pytest.raises(TypeError, match=r"enter its for_key\(key\)"):
        hosts.__enter__()


# ------------------------------------------------------------------------------- time


def test_a_timeout_cancels_a_coroutine(clock: VirtualClock) -> None:
    cleaned = []

    @policy.timeout(2)
    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cleaned.append(clock.time())

    async def main() -> None:
        with pytest.raises(TimeoutError, match="the call took longer than 2 s"):
            await slow()
        async with policy.timeout(1):
            await asyncio.sleep(0.5)

    clock.run(main())
    assert cleaned == [2.0]


def test_a_timeout_refuses_what_it_could_not_stop() -> None:
    with pytest.raises(TypeError, match="can't stop the plain function"):
        policy.timeout(1)(Flaky(0))
    with pytest.raises(TypeError, match="can't stop the plain function"):
        (policy.retry(3) | policy.timeout(1))(Flaky(0))
    with pytest.raises(TypeError, match="a thread can't be stopped"), policy.timeout(1):
        pytest.fail("entered")


def test_a_timeout_stops_plain_functions_in_processes() -> None:
    assert policy.timeout(60, on="processes")(divmod)(7, 3) == (2, 1)
    stopped = policy.timeout(0.5, on="processes")(time.sleep)
    with pytest.raises(TimeoutError, match="was stopped"):
        stopped(1000)
    once = (policy.deadline(0.5) | policy.timeout(60, on="processes"))(time.sleep)
    with pytest.raises(policy.DeadlineError, match="the deadline is over"):
        once(1000)
    with pytest.raises(TypeError, match="must be the last policy"):
        policy.timeout(1, on="processes")(policy.rate("1/s")(time.sleep))


def test_deadlines_nest_and_tell_what_is_left(clock: VirtualClock) -> None:
    assert policy.remaining() is None
    with policy.deadline(10):
        clock.sleep(4)
        with policy.deadline(100):
            assert policy.remaining() == 6.0
        with policy.deadline(1):
            assert policy.remaining() == 1.0
            clock.sleep(3)
            assert policy.remaining() == 0.0
        assert policy.remaining() == 3.0
        clock.sleep(3)
        with pytest.raises(policy.DeadlineError, match="no time to begin"), policy.deadline(5):
            pytest.fail("began")
    assert policy.remaining() is None


def test_a_deadline_cancels_a_coroutine_and_is_not_tried_again(clock: VirtualClock) -> None:
    begun = []

    @policy.deadline(5) | policy.retry(3, backoff=1.0)
    async def slow() -> None:
        begun.append(clock.time())
        await asyncio.sleep(3)
        raise ConnectionError

    async def main() -> None:
        with pytest.raises(policy.DeadlineError, match="the deadline is over"):
            await slow()

    clock.run(main())
    assert begun == [0.0, 4.0]
    assert clock.time() == 5.0


def test_an_attempt_may_have_a_deadline_of_its_own(clock: VirtualClock) -> None:
    begun = []

    @policy.retry(3, backoff=1.0) | policy.deadline(2)
    async def slow() -> str:
        begun.append(clock.time())
        await asyncio.sleep(10 if len(begun) < 3 else 1)
        return "done"

    assert clock.run(slow()) == "done"
    assert begun == [0.0, 3.0, 6.0]


# ------------------------------------------------------------------------------- circuit


def test_a_circuit_opens_is_tried_and_closes(clock: VirtualClock) -> None:
    flaky = Flaky(4)
    call = policy.circuit(3, reset=10)(flaky)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            call()
    clock.advance(4)
    with pytest.raises(policy.CircuitOpenError, match="open for another 6 s") as caught:
        call()
    assert caught.value.retry_after == 6.0
    clock.advance(6)
    with pytest.raises(ConnectionError, match="failure 4"):
        call()
    with pytest.raises(policy.CircuitOpenError):
        call()
    clock.advance(10)
    assert (call(), call(), flaky.calls) == (42, 42, 6)


def test_a_retry_waits_for_an_open_circuit(clock: VirtualClock) -> None:
    flaky = Flaky(2)
    call = (policy.retry(4, backoff=1.0) | policy.circuit(2, reset=30))(flaky)
    assert call() == 42
    assert (flaky.calls, clock.time()) == (3, 31.0)


def test_a_circuit_counts_only_failures(clock: VirtualClock) -> None:
    call = policy.circuit(1, on=ConnectionError)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), call:
            raise error
    with call:
        pass
    with pytest.raises(ConnectionError), call:
        raise ConnectionError
    with pytest.raises(policy.CircuitOpenError), call:
        pytest.fail("let through")


def test_only_one_trial_at_a_time(clock: VirtualClock) -> None:
    guard = policy.circuit(1, reset=10)
    with pytest.raises(ConnectionError), guard:
        raise ConnectionError
    clock.advance(10)
    with guard:
        with pytest.raises(policy.CircuitOpenError, match="until a trial has ended"), guard:
            pytest.fail("a second trial")
    with guard, guard:
        pass


# ------------------------------------------------------------------------------- hedge


def hedged(
    clock: VirtualClock, hedge: policy.Policy, times: list[float], kind: str
) -> tuple[float, float]:
    """Call a function that takes these times, one after the other; negative ones fail.

    Return the answer, and when it came.
    """
    left = iter(times)

    def plain() -> float:
        takes = next(left)
        clock.sleep(abs(takes))
        if takes < 0:
            raise ConnectionError(str(takes))
        return takes

    async def coroutine() -> float:
        takes = next(left)
        await asyncio.sleep(abs(takes))
        if takes < 0:
            raise ConnectionError(str(takes))
        return takes

    async def main() -> tuple[float, float]:
        return await hedge(coroutine)(), clock.time()

    if kind == "task":
        return clock.run(main())
    # In a thread that the clock knows, so that it stands still when the answer is there.
    answered: tuple[float, float] = clock.run_threads(lambda: (hedge(plain)(), clock.time()))[0]
    return answered


@pytest.mark.parametrize("kind", ["thread", "task"])
@pytest.mark.parametrize(
    ("times", "answer", "at"),
    [
        ([1.0], 1.0, 1.0),  # fast enough
        ([9.0, 1.0], 1.0, 3.0),  # the second answers
        ([3.0, 9.0], 3.0, 3.0),  # the first does after all
        ([9.0, 9.5, 2.0], 2.0, 6.0),  # the third
        ([-1.0, 1.0], 1.0, 2.0),  # a failure is replaced at once
        ([5.0, -1.0, 9.0], 5.0, 5.0),  # the failure of a second one does no harm
    ],
)
def test_the_first_answer_counts(
    clock: VirtualClock, kind: str, times: list[float], answer: float, at: float
) -> None:
    assert hedged(clock, policy.hedge(2, most=3), times, kind) == (answer, at)


@pytest.mark.parametrize("kind", ["thread", "task"])
def test_the_first_failure_is_raised_if_all_fail(clock: VirtualClock, kind: str) -> None:
    with pytest.raises(ConnectionError, match=r"-3\.0"):
        hedged(clock, policy.hedge(2), [-3.0, -4.0], kind)


def test_a_hedge_learns_how_long_calls_take(clock: VirtualClock) -> None:
    hedge = policy.hedge(60, quantile=0.9)
    for _ in range(20):
        hedged(clock, hedge, [1.0], "task")
    assert hedged(clock, hedge, [50.0, 1.0], "task") == (1.0, 22.0)


def test_a_hedge_ends_at_the_deadline(clock: VirtualClock) -> None:
    for kind in ("thread", "task"):
        with pytest.raises(policy.DeadlineError):
            hedged(clock, policy.deadline(3) | policy.hedge(1), [9.0, 9.0], kind)


# ------------------------------------------------------------------------------- bad use


@pytest.mark.parametrize(
    "make",
    [
        lambda: policy.retry(0),
        lambda: policy.exponential(-1),
        lambda: policy.exponential(jitter="some"),  # type: ignore[arg-type]
        lambda: policy.rate("1/s", burst=0),
        lambda: policy.limit(0),
        lambda: policy.timeout(0),
        lambda: policy.timeout(1, on="threads"),  # type: ignore[arg-type]
        lambda: policy.deadline(-1),
        lambda: policy.deadline(float("nan")),
        lambda: policy.circuit(0),
        lambda: policy.circuit(reset=0),
        lambda: policy.hedge(-1),
        lambda: policy.hedge(1, quantile=2),
    ],
)
def test_wrong_numbers_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"must|be more than"):
        make()
