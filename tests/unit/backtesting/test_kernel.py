"""The backtest kernel: each rule on a few bars, an independent loop, and what backtesting.py 0.6.6
gives on the same bundled bars.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finagent_model.backtesting import kernel
from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.accounting import PlainOrders, simulate_account
from finagent_model.market.bars import Floats

NAN = float("nan")

FREE = kernel.FillRules()


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
    rules: kernel.FillRules = FREE

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
    trades = np.zeros(n + 1, dtype=kernel.TRADE_DTYPE)
    count, cancelled, _ = kernel.simulate(
        *columns,
        action,
        size,
        stop,
        target,
        np.full(n, run.lot),
        run.cash,
        run.rules,
        equity,
        position,
        trades,
    )
    return equity, trades[:count], int(cancelled)


def flat(price: float) -> tuple[float, float, float, float]:
    return (price, price, price, price)


SLIPS = kernel.FillRules(slippage=0.01)
CALM = [flat(100.0), flat(100.0), flat(100.0)]


def test_kernel_fills_at_next_open_never_at_own_close() -> None:
    _, [trade], _ = Run([flat(100), (110, 120, 110, 120), flat(120)], {0: 1}).go()
    assert (trade["entry_bar"], trade["entry_price"]) == (1, 110)


def test_kernel_leaves_last_decision_unfilled() -> None:
    equity, trades, _ = Run(CALM, {2: 1}).go()
    assert len(trades) == 0
    assert equity.tolist() == [1000, 1000, 1000]


def test_kernel_marks_open_position_at_last_close() -> None:
    _, [trade], _ = Run([flat(100), flat(100), (100, 130, 100, 130)], {0: 1}).go()
    assert (trade["exit_bar"], trade["exit_price"], trade["pnl"]) == (-1, 130, 300)


def test_kernel_buy_while_long_changes_nothing() -> None:
    _, trades, _ = Run([*CALM, flat(100)], {0: 1, 1: 1, 2: 1}).go()
    assert [trade["entry_bar"] for trade in trades] == [1]


def test_kernel_sell_opens_short_only_where_allowed() -> None:
    bars = [flat(100), flat(100), flat(90), flat(80)]
    _, trades, _ = Run(bars, {0: 1, 1: -1}).go()
    assert [(t["side"], t["exit_bar"], t["pnl"]) for t in trades] == [(1, 2, -100)]
    _, trades, _ = Run(bars, {0: 1, 1: -1}, rules=kernel.FillRules(allow_short=True)).go()
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
def test_kernel_level_fills_at_its_price_or_at_open_beyond_it(
    bar: tuple[float, float, float, float], price: float, reason: int
) -> None:
    _, [trade], _ = Run([flat(100), flat(100), bar], {0: 1}, stop=95, target=110).go()
    assert (trade["exit_bar"], trade["exit_price"], trade["reason"]) == (2, price, reason)


def test_kernel_stop_is_live_on_entry_bar() -> None:
    _, [trade], _ = Run([flat(100), (100, 101, 90, 100), flat(100)], {0: 1}, stop=95).go()
    assert (trade["exit_bar"], trade["exit_price"]) == (1, 95)


def test_kernel_counts_entry_cancelled_by_its_own_levels() -> None:
    for stop, target in ((105.0, 120.0), (80.0, 99.0), (100.0, 120.0)):
        _, trades, cancelled = Run(CALM, {0: 1}, stop=stop, target=target).go()
        assert (len(trades), cancelled) == (0, 1)


def test_kernel_market_exit_comes_before_stop_of_that_bar() -> None:
    bars = [flat(100), flat(100), (100, 100, 90, 95)]
    _, [trade], _ = Run(bars, {0: 1, 1: -1}, stop=95).go()
    assert (trade["exit_price"], trade["reason"]) == (100, kernel.SIGNAL)


def test_kernel_charges_commission_on_fills_slippage_on_market_fills() -> None:
    _, [trade], _ = Run([*CALM, flat(100)], {0: 1, 1: -1}, rules=kernel.FillRules(0.01, 0.02)).go()
    assert (trade["entry_price"], trade["exit_price"]) == (102, 98)
    assert trade["fees"] == pytest.approx(trade["units"] * (102 + 98) * 0.01)


def test_kernel_stop_slips_but_target_does_not() -> None:
    falls, rises = (100, 100, 90, 95), (100, 120, 100, 100)
    _, [stopped], _ = Run([*CALM, falls], {0: 1}, stop=95, target=110, rules=SLIPS).go()
    _, [reached], _ = Run([*CALM, rises], {0: 1}, stop=95, target=110, rules=SLIPS).go()
    assert stopped["exit_price"] == pytest.approx(95 * 0.99)
    assert reached["exit_price"] == 110


def test_kernel_fills_whole_lots() -> None:
    _, [trade], _ = Run([flat(100), flat(300), flat(300)], {0: 1}, lot=1.0).go()
    assert trade["units"] == 3


SHORTS = kernel.FillRules(allow_short=True)


def test_kernel_ruined_short_ends_all_trading() -> None:
    bars = [flat(100), flat(100), flat(300), flat(100), flat(100)]
    equity, trades, _ = Run(bars, {0: -1, 2: 1, 3: 1}, rules=SHORTS).go()
    assert [trade["reason"] for trade in trades] == [kernel.RUIN]
    assert equity.tolist() == [1000, 1000, 0, 0, 0]


@pytest.mark.parametrize(
    ("bar", "actions", "stop"),
    [
        pytest.param((110, 250, 105, 120), {}, NAN, id="high only"),
        pytest.param((110, 250, 105, 240), {}, NAN, id="high and close"),
        pytest.param((300, 320, 290, 310), {}, NAN, id="gap"),
        pytest.param((300, 320, 290, 310), {1: 1}, NAN, id="gap before market exit"),
        pytest.param((300, 320, 290, 310), {}, 150.0, id="gap beyond stop"),
        pytest.param((110, 250, 105, 120), {}, 220.0, id="stop beyond ruin"),
    ],
)
def test_kernel_ruined_short_is_closed_where_equity_is_gone(
    bar: tuple[float, float, float, float], actions: dict[int, int], stop: float
) -> None:
    costs = kernel.FillRules(0.01, 0.02, allow_short=True)
    run = Run([flat(100), flat(100), bar, flat(100)], {0: -1, **actions}, stop=stop, rules=costs)
    equity, [trade], _ = run.go()
    # Sold at 98 for 1000 / (98 * 1.01) units: 1000 + 990.099 - 9.901 buys them back at this price.
    level = (1000 + (1 - 0.01) * 1000 / 1.01) / (1000 / (98 * 1.01) * 1.01)
    assert (trade["exit_bar"], trade["reason"]) == (2, kernel.RUIN)
    assert trade["exit_price"] == pytest.approx(level)
    assert trade["pnl"] == pytest.approx(-1000)
    assert equity[2:].tolist() == [0, 0]


def test_kernel_short_stop_below_ruin_is_taken_first() -> None:
    bars = [flat(100), flat(100), (110, 250, 105, 240), flat(100)]
    equity, [trade], _ = Run(bars, {0: -1}, stop=150, rules=SHORTS).go()
    assert (trade["reason"], trade["exit_price"]) == (kernel.STOP, 150)
    assert equity[-1] == pytest.approx(500)


def test_kernel_counts_entry_whose_cash_buys_no_lot() -> None:
    columns = np.array([flat(2000)] * 3, dtype=np.float64).T.copy()
    action, none = np.array([1, 0, 0], dtype=np.int8), np.full(3, NAN)
    levels = (np.ones(3), none, none, np.ones(3))
    _, trades, unfilled = compiled(columns, action, Run([]), levels)
    assert (len(trades), unfilled) == (0, (0, 1))


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
    run = Run([], cash=cash, lot=1.0, rules=kernel.FillRules(commission))
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
def test_kernel_crossover_equals_backtesting_py_on_real_bars(
    cash: float, commission: float, final: float
) -> None:
    equity, trades = crossing(cash, commission)
    assert equity == pytest.approx(final, abs=1e-6)
    assert (trades["exit_bar"] >= 0).sum() == 32
    assert trades[-1]["entry_bar"] == 2088


def test_kernel_first_trades_equal_backtesting_py() -> None:
    _, trades = crossing(10_000, 0.002)
    first = [(t["units"], t["entry_bar"], t["exit_bar"]) for t in trades[:3]]
    assert first == [(53, 86, 113), (52, 119, 128), (53, 160, 243)]


@st.composite
def markets(draw: st.DrawFn) -> tuple[Floats, Any, Run, Any]:
    """Bars, decisions, an account, and per bar: size, stop and target prices (some nan) and lot."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    close = 100 * np.exp(np.cumsum(rng.normal(0, draw(st.sampled_from([0.01, 0.05, 0.3])), n)))
    opens = close * np.exp(rng.normal(0, 0.03, n))
    high = np.maximum(opens, close) * np.exp(np.abs(rng.normal(0, 0.02, n)))
    low = np.minimum(opens, close) * np.exp(-np.abs(rng.normal(0, 0.02, n)))
    if draw(st.booleans()):  # prices that coincide: touches, ties and gaps onto a level
        opens, high, low, close = (np.round(x, -1) for x in (opens, high, low, close))
        opens, high, low, close = (np.maximum(x, 10.0) for x in (opens, high, low, close))
    action = rng.choice([-1, 0, 1], n, p=[0.25, 0.5, 0.25]).astype(np.int8)
    side = np.where(action == 0, 1, action)
    stop, target = (
        np.where(rng.random(n) < 0.3, NAN, np.round(close * (1 + side * sign * width), 0))
        for sign, width in ((-1, rng.uniform(-0.01, 0.2, n)), (1, rng.uniform(-0.01, 0.3, n)))
    )
    fraction = st.sampled_from([0.0, 0.001, 0.02])
    distance = st.sampled_from([NAN, 0.01, 0.05, 0.2])
    rules = kernel.FillRules(
        draw(fraction),
        draw(fraction),
        draw(st.booleans()),
        draw(distance),
        draw(distance),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.booleans()),
    )
    lot = np.full(n, draw(st.sampled_from([0.0, 1.0, 7.0])))
    run = Run([], cash=draw(st.sampled_from([1.0, 1000.0, 12345.67])), rules=rules)
    return np.array([opens, high, low, close]), action, run, (rng.random(n), stop, target, lot)


def compiled(
    columns: Floats, action: Any, run: Run, levels: Any
) -> tuple[Floats, Any, tuple[int, int]]:
    size, stop, target, lot = levels
    n = len(action)
    equity, position = np.empty(n), np.empty(n)
    trades = np.zeros(n + 1, dtype=kernel.TRADE_DTYPE)
    count, *unfilled = kernel.simulate(
        *columns, action, size, stop, target, lot, run.cash, run.rules, equity, position, trades
    )
    return equity, trades[:count], (int(unfilled[0]), int(unfilled[1]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(markets())
def test_kernel_equals_plain_loop_to_the_bit(market: tuple[Floats, Any, Run, Any]) -> None:
    columns, action, run, levels = market
    equity, trades, unfilled = compiled(columns, action, run, levels)
    size, stop, target, lot = (column.tolist() for column in levels)
    orders = PlainOrders(action.tolist(), size, stop, target)
    account = simulate_account(columns.tolist(), orders, lot, run.cash, run.rules)
    assert account.equity == equity.tolist()
    assert account.trades == trades.tolist()
    assert (account.cancelled, account.unaffordable) == unfilled


@settings(max_examples=150, deadline=None, derandomize=True)
@given(markets())
def test_kernel_conserves_money_between_trades(
    market: tuple[Floats, Any, Run, Any],
) -> None:
    columns, action, run, levels = market
    equity, trades, _ = compiled(columns, action, run, levels)
    assert trades["pnl"].sum() == pytest.approx(equity[-1] - run.cash, rel=1e-9, abs=1e-6)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(markets())
def test_kernel_long_never_makes_cash_negative(market: tuple[Floats, Any, Run, Any]) -> None:
    columns, action, run, levels = market
    equity, trades, _ = compiled(
        columns, action, replace(run, rules=run.rules._replace(allow_short=False)), levels
    )
    assert (equity >= -1e-9 * run.cash).all()
    for trade in trades:
        before = equity[trade["entry_bar"] - 1] if trade["entry_bar"] else run.cash
        spent = trade["units"] * trade["entry_price"] * (1 + run.rules.commission)
        if not run.rules.fill_at_close:
            assert spent <= before * (1 + 1e-9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(markets())
def test_kernel_equity_is_never_negative(market: tuple[Floats, Any, Run, Any]) -> None:
    columns, action, run, levels = market
    shorts = replace(run, rules=run.rules._replace(allow_short=True))
    equity, trades, _ = compiled(columns, action, shorts, levels)
    ruined = trades["exit_bar"][trades["reason"] == kernel.RUIN]
    assert (equity >= -1e-9 * run.cash).all()
    assert all((equity[bar:] == 0).all() for bar in ruined)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(markets(), st.integers(1, 59))
def test_kernel_equity_ignores_later_bars(market: tuple[Floats, Any, Run, Any], cut: int) -> None:
    columns, action, run, levels = market
    m = min(cut, len(action))
    whole, _, _ = compiled(columns, action, run, levels)
    cut_off = [column[:m].copy() for column in levels]
    short, _, _ = compiled(columns[:, :m].copy(), action[:m].copy(), run, cut_off)
    assert whole[:m].tolist() == short.tolist()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(markets(), st.sampled_from([0.5, 2.0, 1024.0]))
def test_kernel_equity_is_proportional_to_cash(
    market: tuple[Floats, Any, Run, Any], times: float
) -> None:
    columns, action, run, levels = market
    fractional = (*levels[:3], np.zeros(len(action)))
    once, _, _ = compiled(columns, action, run, fractional)
    more, _, _ = compiled(columns, action, replace(run, cash=run.cash * times), fractional)
    assert more.tolist() == (once * times).tolist()


def test_kernel_distances_are_measured_from_fill() -> None:
    bars = [flat(100), flat(80), (80, 80, 77, 78), (80, 89, 80, 80)]
    rules = kernel.FillRules(stop_distance=0.05, target_distance=0.1)
    _, [trade], _ = Run(bars, {0: 1}, rules=rules).go()
    assert (trade["exit_bar"], trade["exit_price"], trade["reason"]) == (3, 88, kernel.TARGET)
    shorts = rules._replace(allow_short=True)
    _, [trade], _ = Run([flat(100), flat(80), (80, 85, 80, 80)], {0: -1}, rules=shorts).go()
    assert (trade["exit_price"], trade["reason"]) == (84, kernel.STOP)
