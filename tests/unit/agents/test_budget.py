"""Money and tokens: reserved before a call, settled after it, never overspent together."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from finagent_model.agents.budget import (
    Amount,
    Budget,
    DailyBudget,
    OverBudgetError,
    SpendingLimit,
    remaining,
    reserve,
    settle,
)
from finagent_model.errors import BadInputError

TODAY = date(2026, 1, 2)


def test_what_is_reserved_is_taken_and_what_was_not_spent_comes_back() -> None:
    purse = Budget("run", 100, 1.0)
    purse.reserve(Amount(60, 0.5))
    assert purse.left() == (40, 0.5)
    with pytest.raises(OverBudgetError, match="100 tokens of a run"):
        purse.reserve(Amount(41, 0.1))
    with pytest.raises(OverBudgetError, match="1 USD of a run"):
        purse.reserve(Amount(1, 0.51))
    purse.settle(Amount(60, 0.5), Amount(10, 0.1))
    assert purse.left() == (90, pytest.approx(0.9))


def test_a_limit_of_zero_is_none() -> None:
    purse = Budget("run", 0, 0.0)
    purse.reserve(Amount(10**9, 10.0**6))
    assert purse.left() == (float("inf"), float("inf"))


def test_several_accounts_are_charged_together_or_not_at_all(tmp_path: Path) -> None:
    rich, poor = Budget("run", 1000, 0.0), DailyBudget(tmp_path / "s.sqlite", TODAY, 50, 0.0)
    accounts: list[SpendingLimit] = [rich, poor]
    with pytest.raises(OverBudgetError, match="50 tokens of a day"):
        reserve(accounts, Amount(60, None))
    assert rich.left()[0] == 1000
    reserve(accounts, Amount(40, None))
    assert remaining(accounts)[0] == 10
    settle(accounts, Amount(40, None), Amount(5, None))
    assert (rich.left()[0], poor.left()[0]) == (995, 45)


def test_sixty_four_at_once_cannot_overspend_together(tmp_path: Path) -> None:
    purse: list[SpendingLimit] = [
        Budget("run", 1000, 0.0),
        DailyBudget(tmp_path / "s.sqlite", TODAY, 700, 0.0),
    ]

    async def one() -> int:
        try:
            reserve(purse, Amount(100, None))
        except OverBudgetError:
            return 0
        await asyncio.sleep(0)
        settle(purse, Amount(100, None), Amount(100, None))
        return 100

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*(one() for _ in range(64))))

    assert sum(asyncio.run(all_of_them())) == 700
    with ThreadPoolExecutor(8) as pool:
        more = pool.map(lambda _: asyncio.run(one()), range(64))
    assert sum(more) == 0


def _spend(path: Path) -> int:
    purse, spent = DailyBudget(path, TODAY, 1000, 0.0), 0
    for _ in range(50):
        try:
            purse.reserve(Amount(7, None))
        except OverBudgetError:
            continue
        spent += 7
    return spent


@pytest.mark.slow
def test_processes_share_a_day(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        spent = pool.map(_spend, [tmp_path / "s.sqlite"] * 4)
    assert sum(spent) == 994
    tomorrow = DailyBudget(tmp_path / "s.sqlite", date(2026, 1, 3), 1000, 0.0)
    assert tomorrow.left()[0] == 1000


def test_a_day_that_cannot_be_counted_is_not_spent() -> None:
    with pytest.raises(BadInputError, match="set FINAGENT_HOME"):
        DailyBudget(Path("/proc/nowhere/s.sqlite"), TODAY, 1, 0.0)
