"""A bank in which every tool of `threading` has its place, and no cent may go missing.

Tellers move money between accounts in rounds. Whatever they do at once, the total must stay what it
was, every account must end with what its entries in the ledger add up to, and the outcome must be
the same at every run.

    python bank.py
    juggler run bank.py

What to look at:

* `RLock`: an account's methods lock it, and a transfer that holds both accounts calls them.
* Lock order: a transfer locks the account with the lower number first. Threads that all climb the
  same ladder cannot wait for each other in a circle (`deadlock.py` shows what happens otherwise).
* `Barrier`: the tellers meet after each round; its action, which runs in one thread while the
  others wait, books the interest at a moment when no transfer is under way.
* `Timer`: an auditor looks at all the accounts every few milliseconds and finds the same total.
* `BoundedSemaphore`: there are fewer cash machines than tellers.
* `local`: an SQLite connection belongs to one thread, so each teller opens its own.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path

OPENING_BALANCE = 1_000_000_00
"""In cents. So high that no transfer is ever refused: the outcome then depends on no order."""
BANK, CASH = 0, 1
"""The numbers of the bank's own account and of the one that stands for money paid out."""
AUDIT_SECONDS = 0.02
INTEREST_PER_MILLION = 50
CASH_MACHINES = 3

Entry = tuple[int, int, int]
"""Payer, payee, cents."""


class Account:
    """A balance in cents; each method is safe by itself, and under a lock already held."""

    def __init__(self, number: int, balance: int) -> None:
        self.number = number
        self.lock = threading.RLock()
        self._balance = balance

    @property
    def balance(self) -> int:
        """The cents in the account at this moment."""
        with self.lock:
            return self._balance

    def withdraw(self, cents: int) -> None:
        """Take money out; raise `ValueError` rather than overdraw."""
        with self.lock:
            if self._balance < cents:
                raise ValueError(f"account {self.number} holds {self._balance}, not {cents} cents")
            self._balance -= cents

    def deposit(self, cents: int) -> None:
        """Put money in."""
        with self.lock:
            self._balance += cents


class Ledger:
    """The entries in an SQLite file, written through one connection per thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        # SQLite lets one connection write at a time and makes the others poll; a lock is quicker.
        self._writing = threading.Lock()
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE entry (payer INTEGER, payee INTEGER, cents INTEGER)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    def record(self, entries: Iterable[Entry]) -> None:
        """Write `entries` in one transaction."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        with self._writing, connection:
            connection.executemany("INSERT INTO entry VALUES (?, ?, ?)", entries)

    def close(self) -> None:
        """Close the calling thread's connection."""
        connection: sqlite3.Connection | None = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def changes(self) -> tuple[int, dict[int, int]]:
        """Return the number of entries, and by how much each account has changed."""
        change: dict[int, int] = {}
        with closing(self._connect()) as connection:
            entries = connection.execute("SELECT payer, payee, cents FROM entry").fetchall()
        for payer, payee, cents in entries:
            change[payer] = change.get(payer, 0) - cents
            change[payee] = change.get(payee, 0) + cents
        return len(entries), change


class Bank:
    """The accounts, the cash machines, the ledger, and the auditor."""

    def __init__(self, customers: int, ledger: Ledger) -> None:
        self.ledger = ledger
        self.accounts = [Account(number, OPENING_BALANCE) for number in range(2 + customers)]
        self.audits = 0
        self.missing_cents = 0
        self.most_at_machines = 0
        self._machines = threading.BoundedSemaphore(CASH_MACHINES)
        self._at_machines = 0
        self._desk = threading.Lock()
        self._open = True
        self._next_audit: threading.Timer

    def transfer(self, payer: int, payee: int, cents: int) -> Entry:
        """Move money between two accounts, in one step as everybody else sees it."""
        first, second = sorted((payer, payee))
        with self.accounts[first].lock, self.accounts[second].lock:
            self.accounts[payer].withdraw(cents)
            self.accounts[payee].deposit(cents)
        return payer, payee, cents

    def pay_out(self, payer: int, cents: int) -> Entry:
        """Pay cash, at a machine if one is free and else after waiting for one."""
        with self._machines:
            with self._desk:
                self._at_machines += 1
                self.most_at_machines = max(self.most_at_machines, self._at_machines)
            entry = self.transfer(payer, CASH, cents)
            with self._desk:
                self._at_machines -= 1
        return entry

    def book_interest(self) -> None:
        """Pay every customer interest out of the bank's own account."""
        self.ledger.record(
            self.transfer(BANK, account.number, account.balance * INTEREST_PER_MILLION // 1_000_000)
            for account in self.accounts[2:]
        )

    def audit(self) -> None:
        """Add up all the accounts at one moment, with all their locks held, in their order."""
        with ExitStack() as locked:
            for account in self.accounts:
                locked.enter_context(account.lock)
            total = sum(account.balance for account in self.accounts)
        self.audits += 1
        self.missing_cents = self.missing_cents or OPENING_BALANCE * len(self.accounts) - total

    def start_audits(self) -> None:
        """Audit in a while, and again, until `stop_audits`."""
        with self._desk:
            if self._open:
                self._next_audit = threading.Timer(AUDIT_SECONDS, self._audit_and_go_on)
                self._next_audit.start()

    def _audit_and_go_on(self) -> None:
        self.audit()
        self.start_audits()

    def stop_audits(self) -> None:
        """Cancel the audit to come, or wait for the one under way; then make the last one."""
        with self._desk:
            self._open = False
            timer = self._next_audit
        timer.cancel()
        timer.join()
        self.audit()


def work(bank: Bank, teller: int, rounds: int, transfers: int, meeting: threading.Barrier) -> None:
    """Do one teller's transfers, `transfers` to a round, and meet the others after each round."""
    choose = random.Random(teller)
    customers = range(2, len(bank.accounts))
    try:
        for _ in range(rounds):
            entries = []
            for _ in range(transfers):
                payer, payee = choose.sample(customers, 2)
                entries.append(bank.transfer(payer, payee, choose.randint(1, 50_00)))
            entries.append(bank.pay_out(choose.choice(customers), 20_00))
            bank.ledger.record(entries)
            meeting.wait()
    except BaseException:
        meeting.abort()  # else the others would wait for this one for ever
        raise
    finally:
        bank.ledger.close()


def main() -> None:
    """Open the bank, let the tellers work, check the books, and print them."""
    parser = argparse.ArgumentParser(description="A bank with every tool of threading.")
    parser.add_argument("--tellers", type=int, default=8)
    parser.add_argument("--customers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--transfers", type=int, default=500, help="per teller and round")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        bank = Bank(options.customers, Ledger(Path(folder, "ledger.sqlite")))
        meeting = threading.Barrier(options.tellers, action=bank.book_interest)
        tellers = [
            threading.Thread(
                target=work,
                args=(bank, number, options.rounds, options.transfers, meeting),
                name=f"teller-{number}",
            )
            for number in range(options.tellers)
        ]
        bank.start_audits()
        try:
            for teller in tellers:
                teller.start()
            for teller in tellers:
                teller.join()
        finally:
            bank.stop_audits()  # else the timers would go on after a Ctrl-C
        entries, change = bank.ledger.changes()

    balances = [account.balance for account in bank.accounts]
    total = sum(balances)
    by_ledger = [OPENING_BALANCE + change.get(number, 0) for number in range(len(balances))]
    checks = {
        "money conserved": total == OPENING_BALANCE * len(balances) and not bank.missing_cents,
        "ledger agrees": balances == by_ledger,
        "ledger complete": entries
        == options.rounds * (options.tellers * (options.transfers + 1) + options.customers),
        "machines enough": bank.most_at_machines <= CASH_MACHINES,
    }
    print(f"{bank.audits} audits", file=sys.stderr)
    print(f"entries          {entries}")
    print(f"total            {total // 100}.{total % 100:02}")
    for name, holds in checks.items():
        print(f"{name:<15}  {'yes' if holds else 'NO'}")
    print(f"sha256           {hashlib.sha256(repr(balances).encode()).hexdigest()}")
    sys.exit(not all(checks.values()))


if __name__ == "__main__":
    main()
