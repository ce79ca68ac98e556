"""Plain statistics equal those that measure a training, on accounts of every kind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import summarise
from finagent_model.backtesting.portfolio import pool_by_day
from finagent_model.config.rules import GateRules
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.accounting import (
    Account,
    PlainOrders,
    adjust_plainly,
    simulate_account,
)
from finagent_model.evaluation.evidence import GRADES
from finagent_model.evaluation.plain_statistics import (
    alpha_by_day,
    count_bars_per_year,
    grade_plainly,
    hac_t_ratio,
    measure_account,
    pool_plainly,
)
from finagent_model.market.bars import BarSeries
from finagent_model.market.timeframe import bars_per_year
from finagent_model.statistics.skill import alpha_contributions, mean_t_ratio

SHORTS = FillRules(0.001, 0.0005, allow_short=True)
APPLE = BundledBars().bars("AAPL")[:600]


def trade(bars: BarSeries, orders: Orders) -> Account:
    plain = adjust_plainly(bars)
    columns = [getattr(orders, name).tolist() for name in ("action", "size", "stop", "target")]
    lot = [0.0] * len(bars)
    return simulate_account(plain[:4], PlainOrders(*columns), lot, 1000.0, SHORTS)


@pytest.mark.parametrize("bars", [2, 30, 600])
@pytest.mark.parametrize("kind", ["both sides", "idle", "ruined"])
def test_measure_account_equals_recorded_metrics(bars: int, kind: str) -> None:
    series, rng = APPLE[:bars], np.random.default_rng(bars)
    action = rng.choice([-1, 0, 1], bars).astype(np.int8)
    if kind == "ruined":  # a short that its market doubles
        action[:] = 0
        action[0] = -1
        jump = np.where(np.arange(bars) >= bars // 2, 3.0, 1.0)
        prices = {name: getattr(series, name) * jump for name in ("open", "high", "low", "close")}
        series = replace(series, **prices)
    orders = Orders.all_in(np.zeros(bars, np.int8) if kind == "idle" else action)
    result = run_orders(series, orders, SHORTS, cash=1000.0, whole_shares=False)
    plain = measure_account(trade(series, orders), series)
    assert plain == pytest.approx(summarise(result), rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("count", [10, 400])
def test_alpha_and_its_t_ratio_equal_those_of_the_evidence(count: int) -> None:
    rng = np.random.default_rng(1)
    held = rng.normal(0.0005, 0.01, count)
    ours = 0.4 * held + rng.normal(0.0002, 0.005, count)
    ours[1:] += 0.3 * ours[:-1]
    skill = alpha_contributions(ours, held)
    assert alpha_by_day(ours, held) == pytest.approx(skill, rel=1e-9, abs=1e-12, nan_ok=True)
    assert hac_t_ratio(skill) == pytest.approx(mean_t_ratio(skill), rel=1e-9, nan_ok=True)


def test_pool_plainly_leaves_out_symbols_without_the_day() -> None:
    days = [np.array([1, 2, 4]), np.array([2, 3])]
    values = [np.array([0.1, 0.2, 0.4]), np.array([0.4, 0.3])]
    pooled = pool_plainly(list(zip([d.tolist() for d in days], values, strict=True)))
    assert pooled.tolist() == [0.1, pytest.approx(0.3), 0.3, 0.4]
    assert pooled == pytest.approx(pool_by_day(days, values)[1])


STRONG = {
    "p_alpha": 0.001,
    "p_random_entry": 0.001,
    "t_alpha": 4.0,
    "probabilistic_sharpe": 0.99,
    "p_sharpe_difference": 0.01,
    "deflated_sharpe": 0.9,
    "cost_margin": math.inf,
    "p_delay": 1.0,
}


def test_grade_plainly_is_strong_with_every_number() -> None:
    assert grade_plainly(STRONG, GateRules()) == GRADES[2]


@pytest.mark.parametrize("name", STRONG)
def test_grade_plainly_falls_with_any_undefined_number(name: str) -> None:
    grade = "none" if name in ("p_alpha", "p_random_entry") else "weak"
    assert grade_plainly(STRONG | {name: math.nan}, GateRules()) == grade


@pytest.mark.parametrize("freq", ["B", "D", "h", "5min", "W-FRI", "MS", "QE", "C"])
@pytest.mark.parametrize("count", [1, 2, 7, 30, 700])
def test_count_bars_per_year_equals_that_of_the_metrics(freq: str, count: int) -> None:
    index = pd.date_range("2001-01-01 14:30", periods=2 * count, freq=freq)
    # With days that are missing, and a gap of a year.
    kept = index[np.random.default_rng(count).random(2 * count) < 0.9][:count]
    kept = kept[: count // 2].append(kept[count // 2 :] + pd.Timedelta(days=365))
    counted = count_bars_per_year(kept.as_unit("ms").asi8.tolist())
    closed_at = kept.to_numpy().astype("datetime64[us]")
    assert counted == pytest.approx(bars_per_year(closed_at), rel=1e-12)
