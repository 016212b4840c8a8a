"""Policies for calls: retries, rates, limits, timeouts, deadlines, circuit breakers, hedging.

A policy is a value. It decorates functions and coroutine functions alike, and policies are
composed with ``|``: the left one is around the right one, ::

    api = retry(5) | limit(10) | rate("20/s")

    @api
    def fetch(url): ...

so each of up to five attempts waits for one of ten places, which it holds until it has ended, and
then for its turn of twenty a second. All functions that a policy decorates share its state. An
order that makes sense, with any of them left out, is
``deadline | retry | circuit | hedge | limit | rate | timeout``: the rate last of those that wait,
so that nothing holds a call up after its turn, and hedging around them, so that a second call is
counted, too.

`rate`, `limit`, `circuit`, `deadline` and (in coroutines) `timeout` are context managers, too, and
so is what is composed of these only: ``with api_limit: ...`` in threads, ``async with`` in
coroutines; threads and event loops may share one. With ``per_key=``, a function of the call's
arguments, each key (such as a host: `host`) has a state of its own, in bounded memory.

Blocking: in a thread, a wait releases the GIL and answers signals, as those of `juggler.threading`
do; in a coroutine, it suspends the task, on whatever loop. Waiters are served in the order in which
they came, and who gives up (Ctrl-C, a cancelled task, a deadline) leaves no trace. Times are
seconds on the monotonic clock. Fork: the child has a copy of the state as it was. Processes do not
share policies.

For tests there is the `VirtualClock`, on which no wait takes any time.
"""

from __future__ import annotations

from juggler.policy._circuit import CircuitOpenError, circuit
from juggler.policy._clock import Clock
from juggler.policy._hedge import hedge
from juggler.policy._keys import host
from juggler.policy._limit import limit
from juggler.policy._policy import Guard, Policy
from juggler.policy._rate import Rate, rate
from juggler.policy._retry import Backoff, exponential, retry, retry_after
from juggler.policy._time import DeadlineError, deadline, remaining, timeout
from juggler.policy._virtual import VirtualClock

__all__ = [
    "Backoff",
    "CircuitOpenError",
    "Clock",
    "DeadlineError",
    "Guard",
    "Policy",
    "Rate",
    "VirtualClock",
    "circuit",
    "deadline",
    "exponential",
    "hedge",
    "host",
    "limit",
    "rate",
    "remaining",
    "retry",
    "retry_after",
    "timeout",
]
