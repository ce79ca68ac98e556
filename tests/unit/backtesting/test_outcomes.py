"""What came of a call, judged on its own: fills, costs, ends, and how much it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.outcomes import label_outcomes
from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import BarSeries
from finagent_model.policy.trained_state import HORIZON, dump_outcomes, load_outcomes

FREE = FillRules()


def market(*rows: tuple[float, float, float, float]) -> BarSeries:
    frame = pd.DataFrame(rows, columns=["open", "high", "low", "close"])
    frame["closed_at"] = pd.date_range("2020-01-01 21:00", periods=len(rows), freq="D", tz="UTC")
    return BarSeries.from_frame("X", frame)


def flat(count: int, price: float = 100.0) -> list[tuple[float, float, float, float]]:
    return [(price, price, price, price)] * count


def called(
    count: int, at: dict[int, int], stop: float = np.nan, target: float = np.nan
) -> tuple[Orders, Any]:
    """Calls by bar, their levels, and a confidence of 60."""
    action = np.zeros(count, dtype=np.int8)
    for bar, side in at.items():
        action[bar] = side
    levels = np.where(action != 0, 1.0, np.nan)
    return Orders(action, np.ones(count), levels * stop, levels * target), np.full(count, 60.0)


@pytest.mark.parametrize(
    ("bar", "side", "ended", "earned"),
    [
        ((100, 112, 99, 105), 1, "target", 0.10),
        ((100, 105, 88, 95), 1, "stop", -0.10),
        ((100, 112, 88, 100), 1, "stop", -0.10),
        ((85, 90, 84, 86), 1, "stop", -0.15),
        ((120, 121, 119, 120), 1, "target", 0.20),
        ((100, 105, 88, 95), -1, "target", 0.10),
        ((120, 121, 119, 120), -1, "stop", -0.20),
    ],
)
def test_outcome_ends_at_stop_or_target_as_in_backtest(
    bar: tuple[float, float, float, float], side: int, ended: str, earned: float
) -> None:
    bars = market(*flat(2), bar, *flat(3))
    stop, target = (90.0, 110.0) if side > 0 else (110.0, 90.0)
    orders, confidence = called(6, {0: side}, stop, target)
    [call] = label_outcomes(bars, orders, FREE, confidence)
    assert (call.ended, call.bars_held) == (ended, 2)
    assert call.earned == pytest.approx(earned)
    assert call.closed_at == bars.close_time(2)
    assert call.was_profitable == (earned > 0)


def test_outcome_without_level_ends_at_close_of_horizon() -> None:
    bars = market(*flat(HORIZON), (100, 103, 100, 103), *flat(5))
    orders, confidence = called(len(bars), {0: 1})
    [call] = label_outcomes(bars, orders, FREE, confidence)
    assert (call.ended, call.bars_held) == ("time", HORIZON)
    assert call.earned == pytest.approx(0.03)


def test_outcome_of_open_call_is_left_out() -> None:
    bars = market(*flat(HORIZON))
    orders, confidence = called(len(bars), {0: 1})
    assert label_outcomes(bars, orders, FREE, confidence) == ()
    longer = market(*flat(HORIZON + 1))
    assert len(label_outcomes(longer, *[called(len(longer), {0: 1})[0]], FREE, confidence)) == 1


def test_outcome_of_cancelled_entry_is_left_out() -> None:
    bars = market(*flat(1), *flat(30, 80.0))
    orders, confidence = called(31, {0: 1}, stop=90.0)
    assert label_outcomes(bars, orders, FREE, confidence) == ()


def test_outcome_of_flat_prices_costs_two_fills() -> None:
    bars = market(*flat(30))
    orders, confidence = called(30, {0: 1})
    [call] = label_outcomes(bars, orders, FillRules(0.001, 0.0005), confidence)
    assert call.earned == pytest.approx(-2 * 0.001 - 2 * 0.0005, rel=1e-2)
    assert not call.was_profitable


def test_outcome_of_lone_call_equals_its_backtest() -> None:
    bars = BundledBars().bars("AAPL")[:400]  # with a dividend-free stretch and a real crash
    rules = FillRules(0.001, 0.0005)
    growth = bars.adjust_to_first_bar()
    for at in range(5, 370, 13):
        close = growth.close[at]
        orders, confidence = called(400, {at: 1}, 0.93 * close, 1.1 * close)
        outcomes = label_outcomes(bars, orders, rules, confidence)
        result = run_orders(bars, orders, rules, cash=1.0, whole_shares=False)
        if not outcomes:
            assert len(result.trades) == 0
            continue
        [call] = outcomes
        if call.ended != "time":
            assert result.equity[-1] - 1 == pytest.approx(call.earned / 1.001, rel=1e-9)


def test_outcome_weight_is_shared_by_overlapping_calls_only() -> None:
    n = 200
    bars = market(*flat(n))
    orders, confidence = called(n, {0: 1, 1: 1, 100: 1})
    weights = [call.weight for call in label_outcomes(bars, orders, FREE, confidence)]
    half = (1 + (HORIZON - 1) / 2) / HORIZON
    assert weights == pytest.approx([half, half, 1.0])


def test_outcome_ignores_later_bars() -> None:
    bars = BundledBars().bars("IBM")[:500]
    rng = np.random.default_rng(4)
    side = {int(t): int(rng.choice([-1, 1])) for t in rng.choice(499, 200, replace=False)}
    orders, confidence = called(500, side)
    outcomes = label_outcomes(bars, orders, FREE, confidence)
    for cut in range(30, 500, 47):
        early = Orders(**{name: values[:cut] for name, values in vars(orders).items()})
        before = label_outcomes(bars[:cut], early, FREE, confidence[:cut])
        assert before == tuple(c for c in outcomes if c.closed_at <= bars.close_time(cut - 1))


def test_outcomes_survive_dump_to_the_bit() -> None:
    bars = BundledBars().bars("IBM")[:100]
    orders, confidence = called(100, dict.fromkeys(range(0, 100, 3), 1))
    calls = label_outcomes(bars, orders, FREE, confidence / 7)
    assert calls
    assert load_outcomes(dump_outcomes(calls)) == calls


@pytest.mark.parametrize("seed", range(20))
def test_outcome_weight_never_exceeds_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 2000)))
    days = pd.date_range("2000-01-01", periods=2000, tz="UTC")
    columns = dict.fromkeys(("open", "high", "low", "close"), close)
    bars = BarSeries.from_frame("X", pd.DataFrame({"closed_at": days, **columns}))
    action = rng.choice([0, 1], 2000, p=[0.97, 0.03]).astype(np.int8)
    none = np.full(2000, np.nan)
    orders = Orders(action, np.ones(2000), none, none)
    calls = label_outcomes(bars, orders, FillRules(), np.full(2000, 60.0))
    assert all(0 < call.weight <= 1 for call in calls)
    assert any(call.weight == pytest.approx(1) for call in calls)


def test_outcome_of_short_loses_no_more_than_was_put_in() -> None:
    bars = market(*flat(2), (350, 360, 340, 350), *flat(3))
    orders, confidence = called(6, {0: -1}, 110.0, 90.0)
    [call] = label_outcomes(bars, orders, FREE, confidence)
    assert (call.ended, call.earned) == ("stop", -1.0)
