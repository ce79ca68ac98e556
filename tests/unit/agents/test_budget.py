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


def test_budget_settle_returns_unspent_part_of_reservation() -> None:
    budget = Budget("run", 100, 1.0)
    budget.reserve(Amount(60, 0.5))
    assert budget.remaining() == (40, 0.5)
    with pytest.raises(OverBudgetError, match="100 tokens of a run"):
        budget.reserve(Amount(41, 0.1))
    with pytest.raises(OverBudgetError, match="1 USD of a run"):
        budget.reserve(Amount(1, 0.51))
    budget.settle(Amount(60, 0.5), Amount(10, 0.1))
    assert budget.remaining() == (90, pytest.approx(0.9))


def test_budget_of_zero_is_no_limit() -> None:
    budget = Budget("run", 0, 0.0)
    budget.reserve(Amount(10**9, 10.0**6))
    assert budget.remaining() == (float("inf"), float("inf"))


def test_budgets_are_reserved_all_or_none(tmp_path: Path) -> None:
    rich, poor = Budget("run", 1000, 0.0), DailyBudget(tmp_path / "s.sqlite", TODAY, 50, 0.0)
    budgets: list[SpendingLimit] = [rich, poor]
    with pytest.raises(OverBudgetError, match="50 tokens of a day"):
        reserve(budgets, Amount(60, None))
    assert rich.remaining()[0] == 1000
    reserve(budgets, Amount(40, None))
    assert remaining(budgets)[0] == 10
    settle(budgets, Amount(40, None), Amount(5, None))
    assert (rich.remaining()[0], poor.remaining()[0]) == (995, 45)


def test_budget_holds_under_64_concurrent_reservations(tmp_path: Path) -> None:
    budget: list[SpendingLimit] = [
        Budget("run", 1000, 0.0),
        DailyBudget(tmp_path / "s.sqlite", TODAY, 700, 0.0),
    ]

    async def one() -> int:
        try:
            reserve(budget, Amount(100, None))
        except OverBudgetError:
            return 0
        await asyncio.sleep(0)
        settle(budget, Amount(100, None), Amount(100, None))
        return 100

    async def all_of_them() -> list[int]:
        return list(await asyncio.gather(*(one() for _ in range(64))))

    assert sum(asyncio.run(all_of_them())) == 700
    with ThreadPoolExecutor(8) as pool:
        more = pool.map(lambda _: asyncio.run(one()), range(64))
    assert sum(more) == 0


def _spend(path: Path) -> int:
    budget, spent = DailyBudget(path, TODAY, 1000, 0.0), 0
    for _ in range(50):
        try:
            budget.reserve(Amount(7, None))
        except OverBudgetError:
            continue
        spent += 7
    return spent


@pytest.mark.slow
def test_daily_budget_is_shared_by_processes(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        spent = pool.map(_spend, [tmp_path / "s.sqlite"] * 4)
    assert sum(spent) == 994
    tomorrow = DailyBudget(tmp_path / "s.sqlite", date(2026, 1, 3), 1000, 0.0)
    assert tomorrow.remaining()[0] == 1000


def test_daily_budget_unwritable_file_raises() -> None:
    with pytest.raises(BadInputError, match="set FINAGENT_HOME"):
        DailyBudget(Path("/proc/nowhere/s.sqlite"), TODAY, 1, 0.0)
