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


def signal(bars: BarSeries, i: int, action: Action = "HOLD", **options: Any) -> TradingSignal:
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
            **options,
        }
    )


def traded(
    bars: BarSeries, orders: dict[int, TradingSignal], costs: Costs = FREE, **options: Any
) -> BacktestResult:
    signals = [orders.get(i, signal(bars, i)) for i in range(len(bars))]
    return run_backtest(bars, signals, costs, cash=1000.0, **options)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_run_backtest_refuses_other_than_one_signal_a_bar(count: int) -> None:
    bars = series([100.0, 101.0, 102.0])
    with pytest.raises(ValueError, match=f"{count} signals for 3 bars; give one a bar"):
        run_backtest(bars, [signal(bars, 0)] * count, FREE, cash=1000.0)


def test_run_backtest_of_holds_leaves_cash() -> None:
    result = traded(series([100.0, 120.0, 80.0]), {})
    assert result.equity.tolist() == [1000.0] * 3
    assert result.invested.tolist() == [0.0] * 3
    assert (len(result.trades), result.notional, result.cancelled) == (0, 0.0, 0)


def test_run_backtest_trades_signal_at_next_open() -> None:
    bars = series([100.0, 100.0, 120.0, 110.0])
    result = traded(bars, {0: signal(bars, 0, "BUY"), 2: signal(bars, 2, "SELL")})
    assert result.trades.to_dict("records") == [
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
    assert result.equity.tolist() == [1000.0, 1000.0, 1200.0, 1100.0]
    assert result.invested.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert result.notional == 10 * 100.0 + 10 * 110.0


def test_notional_of_open_position_is_its_entry_only() -> None:
    bars = series([100.0, 100.0, 120.0])
    result = traded(bars, {0: signal(bars, 0, "BUY")})
    assert (result.notional, result.trades["exit_bar"].tolist()) == (1000.0, [-1])


def test_run_backtest_size_is_percentage_of_equity() -> None:
    bars = series([100.0, 100.0, 120.0])
    result = traded(bars, {0: signal(bars, 0, "BUY", position_size_percent=25.0)})
    assert result.trades["shares"].tolist() == [2.5]
    assert result.invested[1] == pytest.approx(0.25)


@pytest.mark.parametrize(("closing", "reason"), [(94.0, "stop"), (121.0, "target")])
def test_run_backtest_exits_at_levels_of_signal(closing: float, reason: str) -> None:
    bars = series([100.0, 100.0, closing])
    levels = {"suggested_stop_loss": 95.0, "suggested_take_profit": 120.0}
    result = traded(bars, {0: signal(bars, 0, "BUY", **levels)})
    assert result.trades["reason"].tolist() == [reason]
    assert result.trades["exit_price"].tolist() == [closing]


def test_run_backtest_short_needs_to_be_allowed() -> None:
    bars = series([100.0, 100.0, 90.0])
    orders = {0: signal(bars, 0, "SELL")}
    assert len(traded(bars, orders).trades) == 0
    result = traded(bars, orders, allow_short=True)
    assert result.trades["side"].tolist() == ["short"]
    assert result.equity[-1] == pytest.approx(1100.0)
    assert result.invested[-1] == pytest.approx(-900.0 / 1100.0)


def test_run_backtest_counts_entry_beyond_its_stop_as_cancelled() -> None:
    bars = series([100.0, 90.0, 100.0])
    result = traded(bars, {0: signal(bars, 0, "BUY", suggested_stop_loss=95.0)})
    assert (result.cancelled, len(result.trades)) == (1, 0)


def test_costs_are_charged_in_money() -> None:
    bars = series([100.0, 100.0, 110.0, 110.0])
    costs = Costs(commission=0.01, slippage=0.0)
    result = traded(bars, {0: signal(bars, 0, "BUY"), 1: signal(bars, 1, "SELL")}, costs)
    shares = 1000.0 / 101.0
    assert result.trades["fees"].tolist() == pytest.approx([shares * 0.01 * (100.0 + 110.0)])
    assert result.equity[-1] == pytest.approx(1000.0 + result.trades["pnl"].sum())


def test_run_backtest_split_does_not_move_equity() -> None:
    bars = series([100.0, 100.0, 50.0, 50.0], split=[1.0, 1.0, 2.0, 1.0])
    result = traded(bars, {0: signal(bars, 0, "BUY")})
    assert result.equity.tolist() == [1000.0] * 4


def test_run_backtest_split_does_not_touch_earlier_stop() -> None:
    bars = series([100.0, 100.0, 50.0, 47.0], split=[1.0, 1.0, 2.0, 1.0])
    result = traded(bars, {0: signal(bars, 0, "BUY", suggested_stop_loss=95.0)})
    assert result.trades["exit_bar"].tolist() == [3]  # 95 before the split is 47.50 after it
    assert result.trades["exit_price"].tolist() == [47.0]


def test_run_backtest_reports_trades_as_traded() -> None:
    bars = series([100.0, 100.0, 50.0, 60.0, 66.0], split=[1.0, 1.0, 2.0, 1.0, 1.0])
    orders = {0: signal(bars, 0, "BUY"), 2: signal(bars, 2, "SELL"), 3: signal(bars, 3, "BUY")}
    result = traded(bars, orders)
    assert result.trades["shares"].tolist() == [10.0, pytest.approx(1200.0 / 66.0)]
    assert result.trades["entry_price"].tolist() == [100.0, 66.0]
    assert result.trades["exit_price"].tolist() == [60.0, 66.0]
    assert result.trades["pnl"].tolist() == pytest.approx([200.0, 0.0])


def test_whole_shares_are_whole_as_traded_after_split() -> None:
    bars = series([300.0, 150.0, 150.0, 150.0], split=[1.0, 2.0, 1.0, 1.0])
    result = traded(bars, {1: signal(bars, 1, "BUY")}, whole_shares=True)
    assert result.trades["shares"].tolist() == [6.0]
    assert result.invested[-1] == pytest.approx(0.9)


def test_dividend_is_earned_by_holder_before_it() -> None:
    bars = series([100.0, 100.0, 98.0, 98.0], dividend=[0.0, 0.0, 2.0, 0.0])
    result = traded(bars, {0: signal(bars, 0, "BUY")})
    assert result.equity.tolist() == pytest.approx([1000.0] * 4)


def test_dividend_is_not_earned_by_buyer_on_its_day() -> None:
    bars = series([100.0, 100.0, 98.0, 99.0], dividend=[0.0, 0.0, 2.0, 0.0])
    result = traded(bars, {1: signal(bars, 1, "BUY")})
    assert result.equity[-1] == pytest.approx(1000.0 * 99.0 / 98.0)


def test_dividend_is_paid_by_short() -> None:
    bars = series([100.0, 100.0, 100.0], dividend=[0.0, 0.0, 2.0])
    result = traded(bars, {0: signal(bars, 0, "SELL")}, allow_short=True)
    assert result.equity[-1] < 1000.0


def test_buy_and_hold_buys_at_the_second_open() -> None:
    result = buy_and_hold(
        series([100.0, 110.0, 120.0], open=[100.0, 105.0, 110.0], low=[90.0] * 3), FREE, cash=1000.0
    )
    assert result.trades["entry_bar"].tolist() == [1]
    assert result.trades["entry_price"].tolist() == [105.0]
    assert result.equity[-1] == pytest.approx(1000.0 * 120.0 / 105.0)


def test_buy_and_hold_pays_its_costs_once() -> None:
    costs = Costs(commission=0.01, slippage=0.02)
    result = buy_and_hold(series([100.0, 100.0, 120.0]), costs, cash=1000.0)
    assert result.equity[-1] == pytest.approx(1000.0 / (1.02 * 1.01) * 1.2)


def test_buy_and_hold_of_single_bar_is_cash() -> None:
    assert buy_and_hold(series([100.0]), FREE, cash=1000.0).equity.tolist() == [1000.0]


def test_buy_and_hold_of_apple_equals_adjusted_growth() -> None:
    apple = BundledBars().bars("AAPL")
    result = buy_and_hold(apple, FREE, cash=1000.0)
    growth = apple.adjust_to_first_bar()
    earned = result.equity / 1000.0
    np.testing.assert_allclose(earned[1:], growth.close[1:] / growth.open[1], rtol=1e-12)
    # +1241 % from the first close to the last; the second open was a little above that close.
    since_first_close = earned[-1] * growth.open[1] / growth.close[0]
    assert since_first_close - 1 == pytest.approx(12.41, abs=0.005)


@pytest.mark.parametrize("name", ["commission", "slippage"])
@pytest.mark.parametrize("bad", [-0.001, 0.1, float("nan")])
def test_costs_out_of_range_are_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        Costs.model_validate({name: bad})


def ruined() -> BacktestResult:
    """A short from 100 that a rise to 300 takes everything from, on the third of four days."""
    bars = series([100.0, 100.0, 300.0, 100.0])
    sell = signal(bars, 0, "SELL", suggested_stop_loss=1000.0, suggested_take_profit=1.0)
    return traded(bars, {0: sell}, allow_short=True)


def test_result_of_ruin_has_no_position_after_it() -> None:
    result = ruined()
    assert (result.ruined_at, result.trades["reason"].tolist()) == (2, ["ruin"])
    assert result.invested[2:].tolist() == result.equity[2:].tolist() == [0, 0]
    assert result.trades["pnl"].sum() == pytest.approx(-result.equity[0])


def test_result_of_ruin_says_when() -> None:
    [note] = ruined().notes()
    assert note.startswith("a short lost all equity on 2024-01-03: nothing was traded after it")


def test_result_says_that_a_share_costs_more_than_the_cash() -> None:
    bars = series([1300.0, 1200.0, 500.0])
    result = traded(bars, {0: signal(bars, 0, "BUY")}, whole_shares=True)
    assert (result.unaffordable, len(result.trades)) == (1, 0)
    [note] = result.notes()
    assert note.startswith("1 entry bought nothing: a share costs more than the cash")
    assert "--fractional" in note


def test_result_of_whole_trading_has_no_notes() -> None:
    bars = series([700.0, 600.0, 500.0])
    assert traded(bars, {0: signal(bars, 0, "BUY")}, whole_shares=True).notes() == []
