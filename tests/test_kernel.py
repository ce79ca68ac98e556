"""The backtest kernel: each rule on a few bars, an independent loop, and what backtesting.py 0.6.6
gives on the same bundled bars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.backtest import kernel
from finagent_model.data.bundled import BundledBars
from finagent_model.domain.bars import Floats

NAN = float("nan")


@dataclass
class Run:
    """Bars as (open, high, low, close), decisions by bar, and what came of them."""

    bars: list[tuple[float, float, float, float]]
    actions: dict[int, int] = field(default_factory=dict)
    size: float = 1.0
    stop: float = NAN
    target: float = NAN
    lot: float = 0.0
    cash: float = 1000.0
    commission: float = 0.0
    slippage: float = 0.0
    allow_short: bool = False

    def go(self) -> tuple[Floats, Any, int]:
        n = len(self.bars)
        columns = np.array(self.bars, dtype=np.float64).T.copy()
        action = np.zeros(n, dtype=np.int8)
        for bar, side in self.actions.items():
            action[bar] = side
        return simulate(
            columns,
            action,
            np.full(n, self.size),
            np.full(n, self.stop),
            np.full(n, self.target),
            self,
        )


def simulate(
    columns: Floats, action: Any, size: Floats, stop: Floats, target: Floats, run: Run
) -> tuple[Floats, Any, int]:
    n = len(action)
    equity, position = np.empty(n), np.empty(n)
    trades = np.zeros(n + 1, dtype=kernel.TRADE)
    count, cancelled = kernel.simulate(
        *columns,
        action,
        size,
        stop,
        target,
        np.full(n, run.lot),
        run.cash,
        run.commission,
        run.slippage,
        run.allow_short,
        equity,
        position,
        trades,
    )
    return equity, trades[:count], int(cancelled)


def flat(price: float) -> tuple[float, float, float, float]:
    return (price, price, price, price)


CALM = [flat(100.0), flat(100.0), flat(100.0)]


def test_a_decision_fills_at_the_next_open_never_at_its_own_close() -> None:
    _, [trade], _ = Run([flat(100), (110, 120, 110, 120), flat(120)], {0: 1}).go()
    assert (trade["entry_bar"], trade["entry_price"]) == (1, 110)


def test_the_last_decision_is_not_filled() -> None:
    equity, trades, _ = Run(CALM, {2: 1}).go()
    assert len(trades) == 0
    assert equity.tolist() == [1000, 1000, 1000]


def test_a_position_still_open_is_marked_at_the_last_close() -> None:
    _, [trade], _ = Run([flat(100), flat(100), (100, 130, 100, 130)], {0: 1}).go()
    assert (trade["exit_bar"], trade["exit_price"], trade["pnl"]) == (-1, 130, 300)


def test_buying_while_long_changes_nothing() -> None:
    _, trades, _ = Run([*CALM, flat(100)], {0: 1, 1: 1, 2: 1}).go()
    assert [trade["entry_bar"] for trade in trades] == [1]


def test_selling_closes_and_opens_a_short_only_where_allowed() -> None:
    bars = [flat(100), flat(100), flat(90), flat(80)]
    _, trades, _ = Run(bars, {0: 1, 1: -1}).go()
    assert [(t["side"], t["exit_bar"], t["pnl"]) for t in trades] == [(1, 2, -100)]
    _, trades, _ = Run(bars, {0: 1, 1: -1}, allow_short=True).go()
    assert [(t["side"], t["exit_bar"]) for t in trades] == [(1, 2), (-1, -1)]
    assert trades[1]["pnl"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("bar", "price", "reason"),
    [
        ((100, 101, 95, 99), 95, kernel.STOP),
        ((90, 91, 89, 90), 90, kernel.STOP),
        ((100, 111, 94, 100), 95, kernel.STOP),
        ((100, 110, 99, 105), 110, kernel.TARGET),
        ((115, 116, 112, 113), 115, kernel.TARGET),
    ],
    ids=["touch", "gap below", "both: the stop", "target", "gap above"],
)
def test_stops_and_targets_fill_at_their_price_or_at_the_open_beyond_it(
    bar: tuple[float, float, float, float], price: float, reason: int
) -> None:
    _, [trade], _ = Run([flat(100), flat(100), bar], {0: 1}, stop=95, target=110).go()
    assert (trade["exit_bar"], trade["exit_price"], trade["reason"]) == (2, price, reason)


def test_a_stop_is_live_on_the_entry_bar() -> None:
    _, [trade], _ = Run([flat(100), (100, 101, 90, 100), flat(100)], {0: 1}, stop=95).go()
    assert (trade["exit_bar"], trade["exit_price"]) == (1, 95)


def test_an_entry_beyond_its_own_levels_is_cancelled_and_counted() -> None:
    for stop, target in ((105.0, 120.0), (80.0, 99.0), (100.0, 120.0)):
        _, trades, cancelled = Run(CALM, {0: 1}, stop=stop, target=target).go()
        assert (len(trades), cancelled) == (0, 1)


def test_a_market_exit_at_the_open_comes_before_a_stop_of_that_bar() -> None:
    bars = [flat(100), flat(100), (100, 100, 90, 95)]
    _, [trade], _ = Run(bars, {0: 1, 1: -1}, stop=95).go()
    assert (trade["exit_price"], trade["reason"]) == (100, kernel.SIGNAL)


def test_every_fill_pays_commission_and_market_fills_slip() -> None:
    _, [trade], _ = Run([*CALM, flat(100)], {0: 1, 1: -1}, commission=0.01, slippage=0.02).go()
    assert (trade["entry_price"], trade["exit_price"]) == (102, 98)
    assert trade["fees"] == pytest.approx(trade["units"] * (102 + 98) * 0.01)


def test_a_stop_slips_and_a_target_does_not() -> None:
    falls, rises = (100, 100, 90, 95), (100, 120, 100, 100)
    _, [stopped], _ = Run([*CALM, falls], {0: 1}, stop=95, target=110, slippage=0.01).go()
    _, [reached], _ = Run([*CALM, rises], {0: 1}, stop=95, target=110, slippage=0.01).go()
    assert stopped["exit_price"] == pytest.approx(95 * 0.99)
    assert reached["exit_price"] == 110


def test_lots_are_whole() -> None:
    _, [trade], _ = Run([flat(100), flat(300), flat(300)], {0: 1}, lot=1.0).go()
    assert trade["units"] == 3


def test_a_ruined_short_ends_all_trading() -> None:
    bars = [flat(100), flat(100), flat(300), flat(100), flat(100)]
    equity, trades, _ = Run(bars, {0: -1, 2: 1, 3: 1}, allow_short=True).go()
    assert [trade["reason"] for trade in trades] == [kernel.RUIN]
    assert equity[-1] == equity[2] == pytest.approx(-1000)


def crossing(cash: float, commission: float) -> tuple[float, Any]:
    """SMA(10) crossing SMA(30) on GOOG, whole shares, next open; final equity and trades."""
    bars = BundledBars().bars("GOOG")
    assert (bars.growth_factor == 1).all()
    close = bars.close
    fast, slow = (
        np.r_[np.full(w - 1, np.nan), np.convolve(close, np.ones(w) / w, "valid")] for w in (10, 30)
    )
    up = np.r_[False, (fast[:-1] < slow[:-1]) & (fast[1:] > slow[1:])]
    down = np.r_[False, (fast[:-1] > slow[:-1]) & (fast[1:] < slow[1:])]
    action = (up.astype(int) - down.astype(int)).astype(np.int8)
    none = np.full(len(close), np.nan)
    columns = np.array([bars.open, bars.high, bars.low, close])
    run = Run([], cash=cash, commission=commission, lot=1.0)
    equity, trades, _ = simulate(columns, action, np.ones(len(close)), none, none, run)
    return float(equity[-1]), trades


@pytest.mark.parametrize(
    ("cash", "commission", "final"),
    [
        (10_000, 0.0, 57_746.46),
        (10_000, 0.0001, 57_521.132801),
        (10_000, 0.001, 54_094.98627),
        (10_000, 0.002, 50_626.81324),
        (10_000, 0.01, 30_043.6558),
        (1_000_000, 0.002, 5_115_516.33636),
    ],
)
def test_a_crossover_on_real_bars_ends_where_backtesting_py_ends(
    cash: float, commission: float, final: float
) -> None:
    equity, trades = crossing(cash, commission)
    assert equity == pytest.approx(final, abs=1e-6)
    assert (trades["exit_bar"] >= 0).sum() == 32
    assert trades[-1]["entry_bar"] == 2088


def test_its_first_trades_are_those_of_backtesting_py() -> None:
    _, trades = crossing(10_000, 0.002)
    first = [(t["units"], t["entry_bar"], t["exit_bar"]) for t in trades[:3]]
    assert first == [(53, 86, 113), (52, 119, 128), (53, 160, 243)]


def reference(columns: Floats, action: Any, size: float, run: Run) -> tuple[list[float], int]:
    """The documented rules once more, long only, in plain Python."""
    opens, highs, lows, closes = columns.tolist()
    cash, units, equity, cancelled = run.cash, 0.0, [], 0
    for t in range(len(closes)):
        wanted = int(action[t - 1]) if t else 0
        if wanted < 0 and units:
            cash += units * opens[t] * (1 - run.slippage) * (1 - run.commission)
            units = 0.0
        if wanted > 0 and not units:
            price = opens[t] * (1 + run.slippage)
            if run.stop < price < run.target:
                spent = size * cash
                units = spent / (price * (1 + run.commission))
                cash -= spent
            else:
                cancelled += 1
        if units:
            fill = None
            if opens[t] <= run.stop:
                fill = opens[t] * (1 - run.slippage)
            elif opens[t] >= run.target:
                fill = opens[t]
            elif lows[t] <= run.stop:
                fill = run.stop * (1 - run.slippage)
            elif highs[t] >= run.target:
                fill = run.target
            if fill is not None:
                cash, units = cash + units * fill * (1 - run.commission), 0.0
        equity.append(cash + units * closes[t])
    return equity, cancelled


@st.composite
def markets(draw: st.DrawFn) -> tuple[Floats, Any, Run]:
    n = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.04, n)))
    opens = close * np.exp(rng.normal(0, 0.03, n))
    high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.02, n)))
    low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.02, n)))
    action = rng.integers(-1, 2, n).astype(np.int8)
    run = Run(
        [],
        size=draw(st.floats(0.05, 1.0)),
        stop=draw(st.floats(60, 99)),
        target=draw(st.floats(101, 160)),
        commission=draw(st.floats(0, 0.02)),
        slippage=draw(st.floats(0, 0.02)),
    )
    return np.array([opens, high, low, close]), action, run


@settings(max_examples=80, deadline=None, derandomize=True)
@given(markets())
def test_an_independent_loop_gives_the_same_equity(market: tuple[Floats, Any, Run]) -> None:
    columns, action, run = market
    n = len(action)
    args = (np.full(n, run.size), np.full(n, run.stop), np.full(n, run.target))
    equity, trades, cancelled = simulate(columns, action, *args, run)
    expected, refused = reference(columns, action, run.size, run)
    assert equity == pytest.approx(np.array(expected), rel=1e-9)
    assert cancelled == refused
    assert trades["pnl"].sum() == pytest.approx(equity[-1] - run.cash, abs=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(markets(), st.integers(1, 39))
def test_later_bars_change_no_earlier_equity(market: tuple[Floats, Any, Run], cut: int) -> None:
    columns, action, run = market
    n, m = len(action), min(cut, len(action))
    args = [np.full(n, v) for v in (run.size, run.stop, run.target)]
    whole, _, _ = simulate(columns, action, *args, run)
    short, _, _ = simulate(columns[:, :m].copy(), action[:m], *(a[:m] for a in args), run)
    assert whole[:m].tolist() == short.tolist()
