"""Two transfers that lock the same two accounts in opposite orders, and wait for each other.

Alice pays Bob while Bob pays Alice. Each transfer locks the account that pays and then the one that
is paid, so each holds what the other one needs next. On the standard library that is the end: the
program hangs, and says nothing.

    python deadlock.py --timeout 3     # hangs; the time limit ends it
    juggler run deadlock.py            # raises DeadlockError, which draws the cycle

`juggler run` notices that the second wait closes a cycle, in which no thread could ever go on, and
raises `DeadlockError` there instead of waiting. Its message names the two threads, the lock that
each waits for and where, and the place where the holder took it.

The cure is one order for all locks, as in `bank.py`, or `juggler.threading.acquire_all`.
"""

from __future__ import annotations

import argparse
import faulthandler
import threading
from concurrent.futures import ThreadPoolExecutor


class Account:
    """A balance and the lock that protects it."""

    def __init__(self, owner: str, balance: int) -> None:
        self.owner = owner
        self.balance = balance
        self.lock = threading.Lock()


def transfer(payer: Account, payee: Account, amount: int, both_hold_one: threading.Barrier) -> None:
    """Move `amount`, with the two locks in the order that the caller happened to name."""
    with payer.lock:
        # In a real program the threads meet here once in a blue moon; in this one they always do.
        both_hold_one.wait()
        with payee.lock:
            payer.balance -= amount
            payee.balance += amount


def main() -> None:
    """Run two opposite transfers at once; without deadlock detection this does not return."""
    parser = argparse.ArgumentParser(description="A deadlock: two locks, two orders.")
    parser.add_argument(
        "--timeout", type=float, default=10.0, help="end a hanging program after so many seconds"
    )
    options = parser.parse_args()
    # The last resort of the standard library: print where every thread is, and exit.
    faulthandler.dump_traceback_later(options.timeout, exit=True)
    alice, bob = Account("alice", 100), Account("bob", 100)
    both_hold_one = threading.Barrier(2)
    with ThreadPoolExecutor(2, thread_name_prefix="teller") as tellers:
        transfers = [
            tellers.submit(transfer, alice, bob, 10, both_hold_one),
            tellers.submit(transfer, bob, alice, 20, both_hold_one),
        ]
        for future in transfers:
            future.result()
    faulthandler.cancel_dump_traceback_later()
    print("no deadlock this time")


if __name__ == "__main__":
    main()
