"""What calls may take, in tokens and money: reserved before each call, settled after it.

A reservation counts as spent until it is settled, so that calls at the same time can't overspend
together. One purse holds a decision, one a run; the day's is a file that all processes share.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from math import inf
from pathlib import Path
from typing import Protocol

from finagent_model.errors import LocalStateError

LOCKED_S = 5.0
"""How long a file that another process holds is waited for; a statement takes milliseconds."""


@dataclass(frozen=True)
class Amount:
    """Tokens, and US dollars where the price is known."""

    tokens: int
    usd: float | None


class OverBudgetError(Exception):
    """The call could exceed what is left; the message says of what."""


class SpendingLimit(Protocol):
    """Somewhere that amounts are taken from."""

    def reserve(self, amount: Amount) -> None:
        """Take the amount; raises OverBudgetError and takes nothing."""

    def settle(self, reserved: Amount, spent: Amount) -> None:
        """Put back what was not spent."""

    def left(self) -> tuple[float, float]:
        """Tokens and dollars; infinite where there is no limit."""


@dataclass
class Budget:
    """An account of this process. A limit of 0 is none."""

    name: str
    max_tokens: int
    max_usd: float
    tokens: int = 0
    usd: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, amount: Amount) -> None:
        with self._lock:
            tokens, usd = self.tokens + amount.tokens, self.usd + (amount.usd or 0.0)
            if self.max_tokens and tokens > self.max_tokens:
                raise OverBudgetError(f"the {self.max_tokens} tokens of a {self.name}")
            if self.max_usd and usd > self.max_usd:
                raise OverBudgetError(f"the {self.max_usd:g} USD of a {self.name}")
            self.tokens, self.usd = tokens, usd

    def settle(self, reserved: Amount, spent: Amount) -> None:
        with self._lock:
            self.tokens += spent.tokens - reserved.tokens
            self.usd += (spent.usd or 0.0) - (reserved.usd or 0.0)

    def left(self) -> tuple[float, float]:
        with self._lock:
            return (
                self.max_tokens - self.tokens if self.max_tokens else inf,
                self.max_usd - self.usd if self.max_usd else inf,
            )


class DailyBudget:
    """An account of one day on this machine: a row of a SQLite file, for threads and processes. A
    reservation of a process that died stays taken until the day is over.
    """

    def __init__(self, path: Path, day: date, max_tokens: int, max_usd: float) -> None:
        """Raises HomeError, as all its methods do, where the file can't be written: money is not
        spent uncounted.
        """
        self._path, self._day = path, day.isoformat()
        self._limits = (max_tokens or 2**62, max_usd or inf)
        self._said = (max_tokens, max_usd)
        with self._open() as file:
            file.execute(
                "create table if not exists spent (day text primary key, tokens int, usd real)"
            )
            file.execute("insert or ignore into spent values (?, 0, 0.0)", (self._day,))

    def reserve(self, amount: Amount) -> None:
        usd = amount.usd or 0.0
        with self._open() as file:
            taken = file.execute(
                "update spent set tokens = tokens + ?, usd = usd + ? "
                "where day = ? and tokens + ? <= ? and usd + ? <= ?",
                (
                    amount.tokens,
                    usd,
                    self._day,
                    amount.tokens,
                    self._limits[0],
                    usd,
                    self._limits[1],
                ),
            )
        if taken.rowcount == 0:
            tokens, dollars = self._said
            limits = [f"{tokens} tokens"] * bool(tokens) + [f"{dollars:g} USD"] * bool(dollars)
            raise OverBudgetError(f"the {' or '.join(limits)} of a day")

    def settle(self, reserved: Amount, spent: Amount) -> None:
        usd = (spent.usd or 0.0) - (reserved.usd or 0.0)
        with self._open() as file:
            file.execute(
                "update spent set tokens = tokens + ?, usd = usd + ? where day = ?",
                (spent.tokens - reserved.tokens, usd, self._day),
            )

    def left(self) -> tuple[float, float]:
        with self._open() as file:
            tokens, usd = file.execute(
                "select tokens, usd from spent where day = ?", (self._day,)
            ).fetchone()
        return self._limits[0] - tokens, self._limits[1] - usd

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one statement; a call to a model takes a thousand times as long."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path, timeout=LOCKED_S, isolation_level=None)
            try:
                yield connection
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            raise LocalStateError(
                f"the day's spending can't be counted in {self._path}: {error}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None


def reserve(accounts: Sequence[SpendingLimit], amount: Amount) -> None:
    """From all of them or from none. Raises OverBudgetError."""
    taken: list[SpendingLimit] = []
    try:
        for account in accounts:
            account.reserve(amount)
            taken.append(account)
    except OverBudgetError:
        for account in taken:
            account.settle(amount, Amount(0, 0.0))
        raise


def settle(accounts: Sequence[SpendingLimit], reserved: Amount, spent: Amount) -> None:
    """In all of them."""
    for account in accounts:
        account.settle(reserved, spent)


def remaining(accounts: Sequence[SpendingLimit]) -> tuple[float, float]:
    """Tokens and dollars that the poorest has."""
    rests = [account.left() for account in accounts]
    return min(tokens for tokens, _ in rests), min(usd for _, usd in rests)
