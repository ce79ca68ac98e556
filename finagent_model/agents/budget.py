"""Budgets in tokens and US dollars: an amount is reserved before a call and settled after it.

A reservation counts as spent until it is settled, so that concurrent calls can't overspend
together. `Budget` holds for a decision, or for a run of one process and of those that it forks;
`DailyBudget` is a SQLite file that all processes of a machine share.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from math import inf
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from finagent_model._local_files import begin_immediate, make_private_file
from finagent_model.agents._shared_numbers import Numbers, SharedNumbers
from finagent_model.errors import LocalStateError

LOCK_TIMEOUT_S = 5.0
"""How long to wait for the file of a day's spending: a request to a server waits with it."""


@dataclass(frozen=True)
class Amount:
    """What a call takes, or may take."""

    tokens: int
    usd: float | None
    """None where the price is unknown; such a call counts tokens only."""


class OverBudgetError(Exception):
    """A call could exceed what a budget has left; the message names the limit."""


class SpendingLimit(Protocol):
    """A budget that amounts are reserved from."""

    def reserve(self, amount: Amount) -> None:
        """Take `amount`. Raises OverBudgetError, and then takes nothing."""

    def settle(self, reserved: Amount, spent: Amount) -> None:
        """Put back the part of `reserved` that was not spent."""

    def remaining(self) -> tuple[float, float]:
        """Return the tokens and dollars left; infinite where there is no limit."""


@dataclass
class Budget:
    """A budget of this process, safe to use from several threads. A limit of 0 is none."""

    name: str
    """What it holds for, as messages say it: a decision, a run."""
    max_tokens: int
    max_usd: float
    spent: Numbers = field(default_factory=lambda: Numbers(2))
    """Tokens and dollars so far. A process that dies leaves what it had reserved as spent."""

    def share(self) -> Budget:
        """Return the budget as it stands, shared with the processes that are forked from now on."""
        shared = SharedNumbers(2)
        with self.spent.locked() as ours:
            tokens, usd = ours
        with shared.locked() as theirs:
            theirs[0], theirs[1] = tokens, usd
        return replace(self, spent=shared)

    def reserve(self, amount: Amount) -> None:
        with self.spent.locked() as spent:
            tokens, usd = spent[0] + amount.tokens, spent[1] + (amount.usd or 0.0)
            if self.max_tokens and tokens > self.max_tokens:
                raise OverBudgetError(f"the {self.max_tokens} tokens of a {self.name}")
            if self.max_usd and usd > self.max_usd:
                raise OverBudgetError(f"the {self.max_usd:g} USD of a {self.name}")
            spent[0], spent[1] = tokens, usd

    def settle(self, reserved: Amount, spent: Amount) -> None:
        with self.spent.locked() as numbers:
            numbers[0] += spent.tokens - reserved.tokens
            numbers[1] += (spent.usd or 0.0) - (reserved.usd or 0.0)

    def remaining(self) -> tuple[float, float]:
        with self.spent.locked() as (tokens, usd):
            return (
                self.max_tokens - tokens if self.max_tokens else inf,
                self.max_usd - usd if self.max_usd else inf,
            )


class DailyBudget:
    """The budget of one day on this machine, shared by threads and processes. A limit of 0 is none.

    It is one row of a SQLite file. A reservation of a process that died stays taken until the day
    is over. All methods raise LocalStateError where the file can't be read or written.
    """

    def __init__(self, path: Path, day: date, max_tokens: int, max_usd: float) -> None:
        self._path, self._day = path, day.isoformat()
        self._max_tokens, self._max_usd = max_tokens, max_usd
        # SQL compares with numbers, so "no limit" is a number that no day reaches.
        self._token_bound, self._usd_bound = max_tokens or 2**62, max_usd or inf
        with self._connect() as connection:
            connection.execute(
                "create table if not exists spent (day text primary key, tokens int, usd real)"
            )
            connection.execute("insert or ignore into spent values (?, 0, 0.0)", (self._day,))

    def reserve(self, amount: Amount) -> None:
        tokens, usd = amount.tokens, amount.usd or 0.0
        with self._connect() as connection:
            # Check and update in one statement: between two, another process could spend.
            cursor = connection.execute(
                "update spent set tokens = tokens + ?, usd = usd + ? "
                "where day = ? and tokens + ? <= ? and usd + ? <= ?",
                (tokens, usd, self._day, tokens, self._token_bound, usd, self._usd_bound),
            )
        if cursor.rowcount == 0:
            limits = [f"{self._max_tokens} tokens"] * bool(self._max_tokens)
            limits += [f"{self._max_usd:g} USD"] * bool(self._max_usd)
            raise OverBudgetError(f"the {' or '.join(limits)} of a day")

    def settle(self, reserved: Amount, spent: Amount) -> None:
        usd = (spent.usd or 0.0) - (reserved.usd or 0.0)
        with self._connect() as connection:
            connection.execute(
                "update spent set tokens = tokens + ?, usd = usd + ? where day = ?",
                (spent.tokens - reserved.tokens, usd, self._day),
            )

    def remaining(self) -> tuple[float, float]:
        with self._connect() as connection:
            tokens, usd = connection.execute(
                "select tokens, usd from spent where day = ?", (self._day,)
            ).fetchone()
        return self._token_bound - tokens, self._usd_bound - usd

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection for one short transaction. Raises LocalStateError."""
        # Opened anew each time, so that forks and threads share none; a call to a model takes a
        # thousand times as long.
        try:
            make_private_file(self._path)
            connection = sqlite3.connect(self._path, isolation_level=None)
            try:
                begin_immediate(connection, LOCK_TIMEOUT_S)
                yield connection
                connection.execute("commit")
            finally:
                connection.close()
        except (OSError, sqlite3.Error) as error:
            # Money is not spent uncounted: without the file no call is made.
            raise LocalStateError(
                f"the day's spending can't be counted in {self._path}: {error}; "
                "set FINAGENT_HOME to a folder that can be written"
            ) from None


@dataclass(frozen=True)
class DaySpending:
    """What was spent on one day of UTC on this machine, under a budget of a day."""

    day: str
    tokens: int
    usd: float


def read_daily_spending(path: Path, days: int) -> list[DaySpending]:
    """Return the last `days` days that were counted, oldest first; empty where none was.

    Days are counted where a desk has a budget of a day. Raises LocalStateError.
    """
    if not path.exists():
        return []
    try:
        # Read only: who looks creates no file and waits for nobody.
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        try:
            query = "select day, tokens, usd from spent order by day desc limit ?"
            rows = connection.execute(query, (days,)).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise LocalStateError(f"the days' spending can't be read from {path}: {error}") from None
    return [DaySpending(str(day), int(tokens), float(usd)) for day, tokens, usd in reversed(rows)]


def reserve(budgets: Sequence[SpendingLimit], amount: Amount) -> None:
    """Take `amount` from every budget, or from none. Raises OverBudgetError."""
    charged: list[SpendingLimit] = []
    try:
        for budget in budgets:
            budget.reserve(amount)
            charged.append(budget)
    except OverBudgetError:
        for budget in charged:
            budget.settle(amount, Amount(0, 0.0))
        raise


def settle(budgets: Sequence[SpendingLimit], reserved: Amount, spent: Amount) -> None:
    """Return the unused part of a reservation to every budget."""
    for budget in budgets:
        budget.settle(reserved, spent)


def remaining(budgets: Sequence[SpendingLimit]) -> tuple[float, float]:
    """Return the tokens and dollars that every one of `budgets` still has."""
    rests = [budget.remaining() for budget in budgets]
    return min(tokens for tokens, _ in rests), min(usd for _, usd in rests)
