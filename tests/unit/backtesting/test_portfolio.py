"""A pool of accounts: its curve, and the metrics that follow from it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finagent_model.backtesting.metrics import measure_curve, total_return
from finagent_model.backtesting.portfolio import (
    PooledAccount,
    pool_by_day,
    pool_metrics,
    pool_returns,
)

DAYS = np.arange("2020-01-01", "2022-01-01", dtype="datetime64[D]")


def account(pnl: list[float], decisions: int = 10, **metrics: float) -> PooledAccount:
    """An account of 100 whose own numbers are all 0.5 unless given."""
    names = ("turnover", "hold_share", "failed_share", "benchmark_turnover", "cancelled_entries")
    costs = {"model_cost_usd": 2.0, "total_return_after_model_cost": 0.5}
    return PooledAccount(
        {**dict.fromkeys(names, 0.5), **costs, **metrics}, np.array(pnl), 100.0, decisions
    )


def pooled(*accounts: PooledAccount) -> dict[str, float]:
    steps = np.random.default_rng(1).normal(0, 0.01, len(DAYS) - 1)
    return pool_metrics(accounts, DAYS, steps, 2 * steps)


def test_pool_returns_is_mean_of_accounts_with_a_bar() -> None:
    calendar, returns = pool_returns(
        [DAYS[:3], DAYS[1:4]], [np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.1, -0.2])]
    )
    assert calendar.tolist() == DAYS[:4].tolist()
    assert returns == pytest.approx([0.1, 0.3, 0.2, -0.2])


def test_pool_returns_leaves_ruined_account_out() -> None:
    lost, kept = np.array([-1.0, math.nan, math.nan]), np.array([0.2, 0.1, 0.1])
    _, returns = pool_returns([DAYS[:3], DAYS[:3]], [lost, kept])
    assert returns == pytest.approx([-0.4, 0.1, 0.1])


def test_pool_metrics_are_those_of_the_pooled_curve() -> None:
    steps = np.random.default_rng(1).normal(0, 0.01, len(DAYS) - 1)
    curve = np.cumprod(np.append(1.0, 1 + steps))
    metrics = pooled(account([]), account([]))
    assert metrics["total_return"] == pytest.approx(total_return(curve))
    for name, value in measure_curve(curve, DAYS).items():
        assert metrics[name] == pytest.approx(value), name
    assert metrics["benchmark_volatility"] == pytest.approx(2 * metrics["volatility"])


def test_pool_metrics_of_trades_are_those_of_all_trades() -> None:
    metrics = pooled(account([10.0, -5.0]), account([20.0]), account([]))
    assert (metrics["closed_trades"], metrics["hit_rate"]) == (3, pytest.approx(2 / 3))
    assert metrics["profit_factor"] == pytest.approx(6)


def test_pool_metrics_add_up_counts_and_costs() -> None:
    metrics = pooled(account([], cancelled_entries=3.0), account([], cancelled_entries=4.0))
    assert (metrics["cancelled_entries"], metrics["model_cost_usd"]) == (7, 4)
    after = metrics["total_return"] - 4 / 200
    assert metrics["total_return_after_model_cost"] == pytest.approx(after)


def test_pool_metrics_weigh_shares_by_decisions() -> None:
    one, three = account([], 10, failed_share=1.0), account([], 30, failed_share=0.0)
    assert pooled(one, three)["failed_share"] == pytest.approx(0.25)


def test_pool_metrics_of_one_account_are_its_own() -> None:
    only = account([1.0])
    assert pooled(only) == only.metrics


def test_pool_metrics_of_unknown_cost_is_undefined() -> None:
    metrics = pooled(account([]), account([], model_cost_usd=math.nan))
    assert math.isnan(metrics["model_cost_usd"])
    assert math.isnan(metrics["total_return_after_model_cost"])


def test_pool_by_day_leaves_out_missing_days() -> None:
    days = [np.array([1, 2, 3]), np.array([2, 3, 9])]
    calendar, mean = pool_by_day(days, [np.array([1.0, 1.0, 1.0]), np.array([3.0, 5.0, 7.0])])
    assert calendar.tolist() == [1, 2, 3, 9]
    assert mean.tolist() == [1, 2, 3, 7]
    _, columns = pool_by_day(days, [np.ones((3, 2)), np.zeros((3, 2))])
    assert columns.tolist() == [[1, 1], [0.5, 0.5], [0.5, 0.5], [0, 0]]
