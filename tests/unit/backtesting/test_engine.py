"""Signals become orders: levels, corporate actions, and what the result reports as traded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.engine import BacktestResult, Costs, buy_and_hold, run_backtest
from finagent_model.data.bundled import BundledBars
from finagent_model.decision.signal import Action, TradingSignal
from finagent_model.market.bars import BarSeries

FREE = Costs(commission=0.0, slippage=0.0)


def series(closes: Sequence[float], **columns: Sequence[float]) -> BarSeries:
    """Flat bars (open = high = low = close) unless a column says otherwise."""
    days = pd.date_range("2024-01-01", periods=len(closes), tz="UTC")
    prices = {name: closes for name in ("open", "high", "low", "close")}
    return BarSeries.from_frame("X", pd.DataFrame({"closed_at": days} | prices | columns))


def signal(bars: BarSeries, i: int, action: Action = "HOLD", **given: Any) -> TradingSignal:
    """A valid signal as of bar `i`, with levels far off unless given."""
    close, side = float(bars.close[i]), {"BUY": 1, "SELL": -1, "HOLD": 0}[action]
    levels = {
        "suggested_entry_price": close,
        "suggested_stop_loss": close * (1 - 0.9 * side),
        "suggested_take_profit": close * (1 + 0.9 * side),
        "position_size_percent": 100.0,
    }
    return TradingSignal.model_validate(
        {
            "symbol": "X",
            "action": action,
            "confidence": "LOW",
            "confidence_score": 40.0,
            "raw_confidence_score": 40.0,
            "calibrated": False,
            "status": "ok",
            "reasoning": "written by hand",
            "model_used": "rules",
            "generated_at": bars.close_time(i),
            "as_of": bars.close_time(i),
            "conversation_id": "c",
            "tokens": 0,
            **(levels if side else {}),
            **given,
        }
    )


def traded(
    bars: BarSeries, orders: dict[int, TradingSignal], costs: Costs = FREE, **given: Any
) -> BacktestResult:
    signals = [orders.get(i, signal(bars, i)) for i in range(len(bars))]
    return run_backtest(bars, signals, costs, cash=1000.0, **given)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_there_must_be_one_signal_a_bar(count: int) -> None:
    bars = series([100.0, 101.0, 102.0])
    with pytest.raises(ValueError, match=f"{count} signals for 3 bars; give one a bar"):
        run_backtest(bars, [signal(bars, 0)] * count, FREE, cash=1000.0)


def test_holding_throughout_leaves_the_cash() -> None:
    found = traded(series([100.0, 120.0, 80.0]), {})
    assert found.equity.tolist() == [1000.0] * 3
    assert found.invested.tolist() == [0.0] * 3
    assert (len(found.trades), found.notional, found.cancelled) == (0, 0.0, 0)


def test_a_signal_becomes_a_trade_at_the_next_open() -> None:
    bars = series([100.0, 100.0, 120.0, 110.0])
    found = traded(bars, {0: signal(bars, 0, "BUY"), 2: signal(bars, 2, "SELL")})
    assert found.trades.to_dict("records") == [
        {
            "entry_bar": 1,
            "exit_bar": 3,
            "side": "long",
            "shares": 10.0,
            "entry_price": 100.0,
            "exit_price": 110.0,
            "fees": 0.0,
            "pnl": 100.0,
            "reason": "signal",
        }
    ]
    assert found.equity.tolist() == [1000.0, 1000.0, 1200.0, 1100.0]
    assert found.invested.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert found.notional == 10 * 100.0 + 10 * 110.0


def test_an_open_position_counts_its_entry_alone_as_traded() -> None:
    bars = series([100.0, 100.0, 120.0])
    found = traded(bars, {0: signal(bars, 0, "BUY")})
    assert (found.notional, found.trades["exit_bar"].tolist()) == (1000.0, [-1])


def test_position_size_is_a_percentage_of_equity() -> None:
    bars = series([100.0, 100.0, 120.0])
    found = traded(bars, {0: signal(bars, 0, "BUY", position_size_percent=25.0)})
    assert found.trades["shares"].tolist() == [2.5]
    assert found.invested[1] == pytest.approx(0.25)


@pytest.mark.parametrize(("closing", "reason"), [(94.0, "stop"), (121.0, "target")])
def test_the_levels_of_a_signal_end_its_trade(closing: float, reason: str) -> None:
    bars = series([100.0, 100.0, closing])
    levels = {"suggested_stop_loss": 95.0, "suggested_take_profit": 120.0}
    found = traded(bars, {0: signal(bars, 0, "BUY", **levels)})
    assert found.trades["reason"].tolist() == [reason]
    assert found.trades["exit_price"].tolist() == [closing]


def test_a_short_needs_to_be_allowed() -> None:
    bars = series([100.0, 100.0, 90.0])
    orders = {0: signal(bars, 0, "SELL")}
    assert len(traded(bars, orders).trades) == 0
    found = traded(bars, orders, allow_short=True)
    assert found.trades["side"].tolist() == ["short"]
    assert found.equity[-1] == pytest.approx(1100.0)
    assert found.invested[-1] == pytest.approx(-900.0 / 1100.0)


def test_an_entry_beyond_its_own_stop_is_counted_as_cancelled() -> None:
    bars = series([100.0, 90.0, 100.0])
    found = traded(bars, {0: signal(bars, 0, "BUY", suggested_stop_loss=95.0)})
    assert (found.cancelled, len(found.trades)) == (1, 0)


def test_costs_are_charged_in_money() -> None:
    bars = series([100.0, 100.0, 110.0, 110.0])
    costs = Costs(commission=0.01, slippage=0.0)
    found = traded(bars, {0: signal(bars, 0, "BUY"), 1: signal(bars, 1, "SELL")}, costs)
    shares = 1000.0 / 101.0
    assert found.trades["fees"].tolist() == pytest.approx([shares * 0.01 * (100.0 + 110.0)])
    assert found.equity[-1] == pytest.approx(1000.0 + found.trades["pnl"].sum())


def test_a_split_does_not_move_equity() -> None:
    bars = series([100.0, 100.0, 50.0, 50.0], split=[1.0, 1.0, 2.0, 1.0])
    found = traded(bars, {0: signal(bars, 0, "BUY")})
    assert found.equity.tolist() == [1000.0] * 4


def test_a_split_does_not_touch_a_stop_given_before_it() -> None:
    bars = series([100.0, 100.0, 50.0, 47.0], split=[1.0, 1.0, 2.0, 1.0])
    found = traded(bars, {0: signal(bars, 0, "BUY", suggested_stop_loss=95.0)})
    assert found.trades["exit_bar"].tolist() == [3]  # 95 before the split is 47.50 after it
    assert found.trades["exit_price"].tolist() == [47.0]


def test_prices_and_shares_of_a_trade_are_as_traded() -> None:
    bars = series([100.0, 100.0, 50.0, 60.0, 66.0], split=[1.0, 1.0, 2.0, 1.0, 1.0])
    orders = {0: signal(bars, 0, "BUY"), 2: signal(bars, 2, "SELL"), 3: signal(bars, 3, "BUY")}
    found = traded(bars, orders)
    assert found.trades["shares"].tolist() == [10.0, pytest.approx(1200.0 / 66.0)]
    assert found.trades["entry_price"].tolist() == [100.0, 66.0]
    assert found.trades["exit_price"].tolist() == [60.0, 66.0]
    assert found.trades["pnl"].tolist() == pytest.approx([200.0, 0.0])


def test_whole_shares_are_whole_as_traded_also_after_a_split() -> None:
    bars = series([300.0, 150.0, 150.0, 150.0], split=[1.0, 2.0, 1.0, 1.0])
    found = traded(bars, {1: signal(bars, 1, "BUY")}, whole_shares=True)
    assert found.trades["shares"].tolist() == [6.0]
    assert found.invested[-1] == pytest.approx(0.9)


def test_a_dividend_is_earned_by_who_held_before_it() -> None:
    bars = series([100.0, 100.0, 98.0, 98.0], dividend=[0.0, 0.0, 2.0, 0.0])
    found = traded(bars, {0: signal(bars, 0, "BUY")})
    assert found.equity.tolist() == pytest.approx([1000.0] * 4)


def test_a_dividend_is_not_earned_by_who_buys_on_its_day() -> None:
    bars = series([100.0, 100.0, 98.0, 99.0], dividend=[0.0, 0.0, 2.0, 0.0])
    found = traded(bars, {1: signal(bars, 1, "BUY")})
    assert found.equity[-1] == pytest.approx(1000.0 * 99.0 / 98.0)


def test_a_short_pays_the_dividend() -> None:
    bars = series([100.0, 100.0, 100.0], dividend=[0.0, 0.0, 2.0])
    found = traded(bars, {0: signal(bars, 0, "SELL")}, allow_short=True)
    assert found.equity[-1] < 1000.0


def test_buy_and_hold_buys_at_the_second_open() -> None:
    found = buy_and_hold(
        series([100.0, 110.0, 120.0], open=[100.0, 105.0, 110.0], low=[90.0] * 3), FREE, cash=1000.0
    )
    assert found.trades["entry_bar"].tolist() == [1]
    assert found.trades["entry_price"].tolist() == [105.0]
    assert found.equity[-1] == pytest.approx(1000.0 * 120.0 / 105.0)


def test_buy_and_hold_pays_its_costs_once() -> None:
    costs = Costs(commission=0.01, slippage=0.02)
    found = buy_and_hold(series([100.0, 100.0, 120.0]), costs, cash=1000.0)
    assert found.equity[-1] == pytest.approx(1000.0 / (1.02 * 1.01) * 1.2)


def test_buy_and_hold_of_a_single_bar_is_cash() -> None:
    assert buy_and_hold(series([100.0]), FREE, cash=1000.0).equity.tolist() == [1000.0]


def test_holding_apple_earns_its_adjusted_growth() -> None:
    apple = BundledBars().bars("AAPL")
    found = buy_and_hold(apple, FREE, cash=1000.0)
    growth = apple.adjust_to_first_bar()
    earned = found.equity / 1000.0
    np.testing.assert_allclose(earned[1:], growth.close[1:] / growth.open[1], rtol=1e-12)
    # +1241 % from the first close to the last; the second open was a little above that close.
    since_first_close = earned[-1] * growth.open[1] / growth.close[0]
    assert since_first_close - 1 == pytest.approx(12.41, abs=0.005)


@pytest.mark.parametrize("name", ["commission", "slippage"])
@pytest.mark.parametrize("bad", [-0.001, 0.1, float("nan")])
def test_costs_out_of_range_are_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        Costs.model_validate({name: bad})
