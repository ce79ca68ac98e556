"""The kernel beside two other engines, trade for trade: each with the switches that make its rules.

Neither engine is needed to run this package; their licences keep them out of the runtime set.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting.crossover import Crossover
from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import BarSeries

pytestmark = pytest.mark.slow
CASH = 10_000.0


def prices(symbol: str) -> tuple[BarSeries, pd.DataFrame]:
    """Growth bars, so that no engine sees a split, and the same as a frame."""
    bars = hourly_bars() if symbol == "EURUSD" else BundledBars().bars(symbol)
    growth = bars.adjust_to_first_bar()
    columns = {name.title(): getattr(growth, name) for name in ("open", "high", "low", "close")}
    index = pd.DatetimeIndex(growth.closed_at)
    return growth, pd.DataFrame(columns | {"Volume": growth.volume}, index=index)


def hourly_bars() -> BarSeries:
    """Hours of EUR/USD that come with backtesting.py, 2017 to 2018; in cents, of which whole units
    are bought.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backtesting.test import EURUSD
    frame = EURUSD.rename(columns=str.lower)[["open", "high", "low", "close", "volume"]]
    frame[["open", "high", "low", "close"]] *= 100
    closed_at = frame.index.tz_localize("UTC") + pd.Timedelta(hours=1)
    bars = BarSeries.from_frame("EURUSD", frame.reset_index(drop=True).assign(closed_at=closed_at))
    assert (bars.timeframe.name, bars.calendar.name) == ("1h", "weekdays")
    return bars


def ours(bars: BarSeries, rule: Crossover, rules: FillRules) -> BacktestResult:
    none = np.full(len(bars), np.nan)
    orders = Orders(
        rule.crossings(bars.adjust_to_first_bar().close), np.ones(len(bars)), none, none
    )
    return run_orders(bars, orders, rules, cash=CASH, whole_shares=True)


def trade_rows(trades: pd.DataFrame, names: list[str]) -> list[tuple[float, ...]]:
    return [tuple(float(v) for v in row) for row in trades[names].to_numpy()]


CONFIGURATIONS = [
    {
        "symbol": ("GOOG", "AAPL", "MSFT", "IBM")[i % 4],
        "fast": int(rng.integers(3, 30)),
        "slow": int(rng.integers(31, 120)),
        "commission": float(rng.choice([0.0, 0.001, 0.002, 0.01])),
        "stop": float(rng.choice([math.nan, 0.03, 0.05, 0.1])),
        "target": float(rng.choice([math.nan, 0.05, 0.1, 0.3])),
        "short": bool(rng.integers(0, 2)),
        "at_close": bool(i % 5 == 0),
    }
    for i in range(60)
    for rng in [np.random.default_rng(i)]
]


HOURLY = [
    config
    | {
        "symbol": "EURUSD",
        # Hours move by a tenth of a day's size.
        "stop": config["stop"] / 10,
        "target": config["target"] / 10,
        "commission": config["commission"] / 10,
    }
    for config in CONFIGURATIONS[:12]
]


@pytest.mark.parametrize("config", [*CONFIGURATIONS, *HOURLY], ids=str)
def test_run_rule_makes_same_trades_as_backtesting_py(config: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backtesting import Backtest, Strategy
    bars, frame = prices(config["symbol"])
    rule = Crossover(config["fast"], config["slow"])
    actions = rule.crossings(bars.close)
    fills = np.r_[bars.open[1:], bars.close[-1]] if not config["at_close"] else bars.close
    stop, target, short = config["stop"], config["target"], config["short"]
    sides = np.where(actions == 0, 1, actions)
    # backtesting.py refuses an order whose levels, which hang on the fill, don't bracket the last
    # close: such an entry is left out of both.
    losing, winning = ((bars.close - fills * (1 + sides * d)) * sides for d in (-stop, target))
    refused = (losing <= 0) | (winning >= 0)

    class Crossing(Strategy):  # type: ignore[misc,no-any-unimported]
        def init(self) -> None: ...

        def next(self) -> None:
            i = len(self.data) - 1
            action = int(actions[i])
            if not action:
                return
            held = 1 if self.position.is_long else -1 if self.position.is_short else 0
            if held == action:
                return
            self.position.close()
            if (action > 0 or short) and not refused[i]:
                fill = float(fills[i])  # where it will be filled: levels hang on the fill
                levels = {
                    name: None if math.isnan(distance) else fill * (1 + action * sign * distance)
                    for name, distance, sign in (("sl", stop, -1), ("tp", target, 1))
                }
                (self.buy if action > 0 else self.sell)(**levels)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = Backtest(
            frame,
            Crossing,
            cash=CASH,
            commission=config["commission"],
            trade_on_close=config["at_close"],
            finalize_trades=False,
        )
        theirs = engine.run()
    rules = FillRules(
        commission=config["commission"],
        allow_short=short,
        stop_distance=stop,
        target_distance=target,
        fill_at_close=config["at_close"],
    )
    none = np.full(len(bars), np.nan)
    orders = Orders(actions, np.where(refused, 0.0, 1.0), none, none)
    result = run_orders(bars, orders, rules, cash=CASH, whole_shares=True)
    closed = result.trades[result.trades["exit_bar"] >= 0]
    signed = closed["shares"] * np.where(closed["side"] == "long", 1, -1)
    mine = trade_rows(
        closed.assign(size=signed),
        ["size", "entry_bar", "exit_bar", "entry_price", "exit_price"],
    )
    expected = trade_rows(
        theirs._trades, ["Size", "EntryBar", "ExitBar", "EntryPrice", "ExitPrice"]
    )
    assert len(mine) >= 3
    for one, other in zip(sorted(mine), sorted(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-12)
    assert result.equity[-1] == pytest.approx(theirs["Equity Final [$]"], rel=1e-12)


def test_run_orders_ends_with_same_money_as_vectorbt() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vectorbt as vbt
    bars, frame = prices("GOOG")
    grid = [Crossover(fast, slow) for fast in range(3, 30, 2) for slow in range(31, 121, 10)]
    actions = np.array([rule.crossings(bars.close) for rule in grid]).T
    late = np.vstack([np.zeros((1, len(grid)), dtype=np.int8), actions[:-1]])
    wide = pd.DataFrame(late, index=frame.index)
    for stop, target in ((math.nan, math.nan), (0.05, 0.1), (0.03, math.nan), (math.nan, 0.2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = vbt.Portfolio.from_signals(
                frame["Close"],
                wide > 0,
                wide < 0,
                price=frame["Open"],
                open=frame["Open"],
                high=frame["High"],
                low=frame["Low"],
                size=np.inf,
                size_granularity=1.0,
                fees=0.002,
                init_cash=CASH,
                direction="longonly",
                stop_entry_price="fillprice",
                sl_stop=None if math.isnan(stop) else stop,
                tp_stop=None if math.isnan(target) else target,
                freq="1D",
            )
            final, count = theirs.final_value().to_numpy(), theirs.trades.closed.count().to_numpy()
        rules = FillRules(
            commission=0.002,
            stop_distance=stop,
            target_distance=target,
            entry_bar_stops=False,
            open_exit_first=False,
        )
        results = [ours(bars, rule, rules) for rule in grid]
        assert [r.equity[-1] for r in results] == pytest.approx(final, rel=1e-12)
        assert [(r.trades["exit_bar"] >= 0).sum() for r in results] == count.tolist()
