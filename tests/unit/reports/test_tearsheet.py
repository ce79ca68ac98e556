"""Months, drawdowns, rolling ratios, contributions and the CSV agree with the daily returns."""

from __future__ import annotations

import io
import math

import empyrical
import numpy as np
import pandas as pd
import pytest

from finagent_model.data.bundled import BundledBars
from finagent_model.evaluation.evidence import SymbolFacts
from finagent_model.reports.tearsheet import (
    DailyReturns,
    contributions,
    monthly_returns,
    rolling_ratios,
    trade_rows,
    worst_drawdowns,
)

DAYS = pd.bdate_range("2010-11-15 21:00", periods=320).to_numpy().astype("datetime64[ms]")
RETURNS = np.random.default_rng(7).normal(0.002, 0.01, len(DAYS))


def facts(symbol: str, returns: list[float], first: int = 0) -> SymbolFacts:
    days = DAYS[first : first + len(returns)].astype(np.int64)
    return SymbolFacts(
        symbol=symbol,
        closed_at=tuple(days.tolist()),
        returns=tuple(returns),
        benchmark_returns=tuple(0.0 for _ in returns),
        total_return=0.0,
        random_returns=None,
        delayed_returns=None,
        cost_curve=(),
        break_even_commission=None,
        commission=0.0,
        slippage=0.0,
        lagged_sharpe=None,
    )


def test_monthly_returns_equal_empyrical() -> None:
    years = monthly_returns(RETURNS, DAYS)
    series = pd.Series(RETURNS, pd.DatetimeIndex(DAYS))
    wanted = empyrical.aggregate_returns(series, "monthly")
    for each in years:
        for month, value in enumerate(each.months, 1):
            if value is None:
                assert (each.year, month) not in wanted.index
            else:
                assert value == pytest.approx(wanted[(each.year, month)])
    yearly = empyrical.aggregate_returns(series, "yearly")
    assert {each.year: each.whole for each in years} == pytest.approx(yearly.to_dict())
    assert years[0].months[:10] == (None,) * 10


def test_worst_drawdowns_begin_with_the_deepest() -> None:
    curve = np.cumprod(np.append(1.0, 1.0 + RETURNS))
    days = [str(day) for day in np.append(DAYS[0] - 86_400_000, DAYS).astype("datetime64[D]")]
    falls = worst_drawdowns(curve, days, count=100)
    assert falls[0].depth == pytest.approx(empyrical.max_drawdown(pd.Series(RETURNS)))
    assert [fall.depth for fall in falls] == sorted(fall.depth for fall in falls)
    for fall in falls:
        assert fall.peak < fall.trough < (fall.recovered or "9999")
    assert len(worst_drawdowns(curve, days)) == 5


@pytest.mark.parametrize(
    ("curve", "found"),
    [
        ([1.0, 1.1, 1.2], []),
        ([1.0], []),
        ([1.0, 1.0 - 1e-13, 1.0], []),
        ([1.0, 0.8, 0.9], [("2010-01-01", "2010-01-02", None, 2)]),
        ([1.0, 0.8, 1.0, 0.9], [("2010-01-01", "2010-01-02", "2010-01-03", 2)]),
        ([1.0, 0.0, 0.0], [("2010-01-01", "2010-01-02", None, 2)]),
    ],
)
def test_worst_drawdowns_of_short_curves(curve: list[float], found: list[object]) -> None:
    days = [f"2010-01-{day:02}" for day in range(1, len(curve) + 1)]
    falls = worst_drawdowns(np.array(curve), days)
    assert [(f.peak, f.trough, f.recovered, f.days) for f in falls][: len(found)] == found
    assert bool(falls) == bool(found)


def test_rolling_ratios_equal_empyrical_at_the_end() -> None:
    sharpe, volatility = rolling_ratios(RETURNS, DAYS)
    last = pd.Series(RETURNS[-126:])
    assert sharpe[-1] == pytest.approx(empyrical.sharpe_ratio(last))
    assert volatility[-1] == pytest.approx(empyrical.annual_volatility(last))
    assert np.isnan(sharpe[:125]).all()
    assert np.isfinite(sharpe[125:]).all()


def test_rolling_ratio_where_nothing_varied_is_undefined() -> None:
    flat = np.append(RETURNS[:100], np.zeros(200))
    sharpe, volatility = rolling_ratios(flat, DAYS[:300])
    assert math.isnan(sharpe[-1])
    assert volatility[-1] == pytest.approx(0.0, abs=1e-8)


def test_contributions_add_up_to_the_pool() -> None:
    rng = np.random.default_rng(3)
    some = [
        facts("A", rng.normal(0, 0.02, 90).tolist()),
        facts("B", rng.normal(0, 0.02, 40).tolist(), 50),
        facts("C", rng.normal(0, 0.02, 10).tolist()),
    ]
    pool = DailyReturns.pool(some)
    assert sum(contributions(some)) == pytest.approx(pool.curve(pool.desk)[-1] - 1)
    assert contributions(some[:1]) == pytest.approx(
        [float(np.prod(1 + np.array(some[0].returns)) - 1)]
    )


def test_returns_csv_is_read_back_by_pandas() -> None:
    pool = DailyReturns(DAYS, RETURNS, -RETURNS)
    frame = pd.read_csv(io.StringIO(pool.to_csv()), index_col="date", parse_dates=True)
    assert list(frame.columns) == ["desk", "buy_and_hold"]
    assert frame["desk"].to_numpy() == pytest.approx(RETURNS, rel=1e-9)
    assert frame.index.is_monotonic_increasing
    assert empyrical.cum_returns_final(frame["desk"]) == pytest.approx(np.prod(1 + RETURNS) - 1)


def test_returns_csv_has_one_row_for_two_closes_of_a_day() -> None:
    closed_at = np.array(["2010-01-04T00:30", "2010-01-04T23:30"], "datetime64[ms]")
    pool = DailyReturns(closed_at, np.array([0.1, 0.1]), np.array([0.0, -0.5]))
    assert pool.to_csv() == "date,desk,buy_and_hold\n2010-01-04,0.21,-0.5\n"


def test_trade_rows_name_the_cause_of_exit() -> None:
    bars = BundledBars().bars("FB")
    trades = pd.DataFrame(
        {
            "entry_bar": [9, 1],
            "exit_bar": [-1, 4],
            "side": ["short", "long"],
            "shares": [2.0, 10.0],
            "entry_price": [30.0, 40.0],
            "exit_price": [31.0, 44.0],
            "fees": [0.0, 1.0],
            "pnl": [-2.0, 39.0],
            "reason": ["open", "target"],
        }
    )
    first, second = trade_rows(bars, trades)
    assert (first.cause, first.bars, first.earned) == ("target", 3, pytest.approx(39 / 400))
    assert first.exited == f"{bars.close_time(4):%Y-%m-%d}"
    assert (second.cause, second.exited, second.bars) == ("open", None, len(bars) - 10)
