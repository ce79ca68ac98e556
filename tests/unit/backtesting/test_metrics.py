"""Each metric against empyrical-reloaded, and what is undefined."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from finagent_model.backtesting import metrics
from finagent_model.backtesting.engine import BacktestResult, Costs, buy_and_hold
from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import Floats

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its imports, not ours
    import empyrical


def google() -> Floats:
    return BundledBars().bars("GOOG").close


def random(seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    steps = rng.standard_t(4, int(rng.integers(2, 600))) * 0.01 + rng.normal(0.0, 0.001)
    growth: Floats = 10_000.0 * np.cumprod(1.0 + np.maximum(np.r_[0.0, steps], -0.5))
    return growth


CURVES = [pytest.param(google(), id="GOOG")] + [
    pytest.param(random(seed), id=f"random {seed}") for seed in range(8)
]


@pytest.fixture(params=CURVES)
def equity(request: pytest.FixtureRequest) -> Floats:
    curve: Floats = request.param
    return curve


@pytest.fixture
def returns(equity: Floats) -> Floats:
    return metrics.simple_returns(equity)


def test_simple_returns_are_changes_over_value_before() -> None:
    np.testing.assert_allclose(metrics.simple_returns(np.array([100.0, 110.0, 99.0])), [0.1, -0.1])


def test_simple_returns_equal_pandas(equity: Floats, returns: Floats) -> None:
    np.testing.assert_allclose(returns, pd.Series(equity).pct_change().iloc[1:], atol=1e-14)


def test_total_return_equals_empyrical(equity: Floats, returns: Floats) -> None:
    assert metrics.total_return(equity) == pytest.approx(empyrical.cum_returns_final(returns))


def test_cagr_equals_empyrical(equity: Floats, returns: Floats) -> None:
    assert metrics.cagr(equity) == pytest.approx(empyrical.cagr(returns))


def test_volatility_equals_empyrical(returns: Floats) -> None:
    assert metrics.volatility(returns) == pytest.approx(empyrical.annual_volatility(returns))


def test_sharpe_equals_empyrical(returns: Floats) -> None:
    assert metrics.sharpe(returns) == pytest.approx(empyrical.sharpe_ratio(returns))


def test_sortino_equals_empyrical(returns: Floats) -> None:
    assert metrics.sortino(returns) == pytest.approx(empyrical.sortino_ratio(returns))


def test_max_drawdown_equals_minus_empyrical(equity: Floats, returns: Floats) -> None:
    assert metrics.max_drawdown(equity) == pytest.approx(-empyrical.max_drawdown(returns))


def test_max_drawdown_is_deepest_not_last() -> None:
    assert metrics.max_drawdown(np.array([100.0, 60.0, 200.0, 150.0])) == pytest.approx(0.4)


def test_max_drawdown_of_rising_curve_is_zero() -> None:
    assert metrics.max_drawdown(np.array([1.0, 2.0, 3.0])) == 0.0


@pytest.mark.parametrize("short", [np.array([]), np.array([100.0])])
def test_metrics_are_undefined_below_two_points(short: Floats) -> None:
    returns = metrics.simple_returns(short)
    values = [
        metrics.total_return(short),
        metrics.cagr(short),
        metrics.max_drawdown(short),
        metrics.volatility(returns),
        metrics.sharpe(returns),
        metrics.sortino(returns),
    ]
    assert all(math.isnan(value) for value in values)


def test_volatility_is_undefined_for_one_return() -> None:
    one = np.array([0.01])
    ratios = [f(one) for f in (metrics.volatility, metrics.sharpe, metrics.sortino)]
    assert all(math.isnan(value) for value in ratios)


def test_cagr_is_undefined_once_all_is_lost() -> None:
    assert math.isnan(metrics.cagr(np.array([100.0, 50.0, -10.0])))
    assert math.isnan(metrics.cagr(np.array([100.0, 0.0])))


@pytest.mark.parametrize("value", [0.0, 0.5, 0.01, 0.1, -0.003])
@pytest.mark.parametrize("bars", [3, 10, 500])
def test_sharpe_is_undefined_where_nothing_varied(value: float, bars: int) -> None:
    assert math.isnan(metrics.sharpe(np.full(bars, value)))


def test_sortino_is_undefined_without_loss() -> None:
    assert math.isnan(metrics.sortino(np.array([0.0, 0.01, 0.02])))


def test_hit_rate_is_share_of_winning_trades() -> None:
    assert metrics.hit_rate(np.array([10.0, -5.0, 0.0, 2.0])) == 0.5


def test_hit_rate_is_undefined_without_trade() -> None:
    assert math.isnan(metrics.hit_rate(np.array([])))


def test_profit_factor_is_money_won_over_money_lost() -> None:
    assert metrics.profit_factor(np.array([10.0, -5.0, 0.0, 2.0])) == pytest.approx(2.4)
    assert metrics.profit_factor(np.array([-5.0, -1.0])) == 0.0


@pytest.mark.parametrize("pnl", [np.array([]), np.array([3.0, 0.0])])
def test_profit_factor_is_undefined_where_none_lost(pnl: Floats) -> None:
    assert math.isnan(metrics.profit_factor(pnl))


NAMES = {
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "max_drawdown",
    "exposure",
    "turnover",
    "hit_rate",
    "profit_factor",
    "closed_trades",
    "max_drawdown_bars",
    "calmar",
    "value_at_risk_95",
    "expected_shortfall_95",
    "expectancy",
    "cancelled_entries",
}


def result(equity: list[float], invested: list[float], pnl: dict[int, float]) -> BacktestResult:
    """`pnl` by exit bar."""
    return BacktestResult(
        equity=np.array(equity),
        invested=np.array(invested),
        trades=pd.DataFrame({"exit_bar": list(pnl), "pnl": list(pnl.values())}),
        notional=300.0,
        cancelled=2,
    )


def test_summarise_returns_every_metric_by_name() -> None:
    summary = metrics.summarise(
        buy_and_hold(BundledBars().bars("GOOG"), Costs.model_validate({}), cash=1000.0)
    )
    assert set(summary) == NAMES
    assert all(type(value) is float for value in summary.values())


def test_summarise_counts_closed_trades_only() -> None:
    summary = metrics.summarise(
        result([100.0, 90.0, 110.0], [0.0, 1.0, 0.5], {1: 20.0, 2: -10.0, -1: 99.0})
    )
    assert (summary["closed_trades"], summary["hit_rate"]) == (2.0, 0.5)
    assert summary["profit_factor"] == pytest.approx(2.0)
    assert summary["cancelled_entries"] == 2.0


def test_exposure_is_share_of_bars_with_position() -> None:
    summary = metrics.summarise(result([100.0] * 4, [0.0, 1.0, -0.5, 0.0], {}))
    assert summary["exposure"] == 0.5


def test_turnover_is_notional_over_mean_equity_a_year() -> None:
    summary = metrics.summarise(result([100.0] * 253, [0.0] * 253, {}))
    assert summary["turnover"] == pytest.approx(3.0)


def test_summarise_without_trades_is_undefined_never_zero() -> None:
    summary = metrics.summarise(result([100.0] * 10, [0.0] * 10, {}))
    undefined = {name for name, value in summary.items() if math.isnan(value)}
    assert undefined == {
        *("sharpe", "sortino", "calmar", "hit_rate", "profit_factor", "expectancy"),
    }


def test_summarise_of_single_bar_is_undefined_except_counts() -> None:
    summary = metrics.summarise(result([100.0], [0.0], {}))
    defined = {name for name, value in summary.items() if not math.isnan(value)}
    assert defined == {"exposure", "closed_trades", "cancelled_entries"}


def test_calmar_equals_empyrical(equity: Floats, returns: Floats) -> None:
    expected = empyrical.calmar_ratio(returns)
    assert metrics.calmar(equity) == pytest.approx(expected, nan_ok=True)


def test_value_at_risk_equals_minus_empyrical(returns: Floats) -> None:
    assert metrics.value_at_risk(returns) == pytest.approx(-empyrical.value_at_risk(returns))


def test_expected_shortfall_equals_minus_empyrical(returns: Floats) -> None:
    expected = -empyrical.conditional_value_at_risk(returns)
    assert metrics.expected_shortfall(returns) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("equity", "bars"),
    [
        ([1.0, 2.0, 3.0], 1),
        ([3.0, 2.0, 1.0], 2),
        ([1.0, 3.0, 2.0, 2.5, 3.0, 4.0], 3),
        ([1.0, 2.0, 1.5, 2.0, 1.0, 1.0, 1.0], 3),
    ],
)
def test_max_drawdown_bars_counts_until_peak_is_reached(equity: list[float], bars: int) -> None:
    """A new peak on the next bar is one bar away."""
    assert metrics.max_drawdown_bars(np.array(equity)) == bars


def test_expectancy_is_mean_of_closed_trades() -> None:
    assert metrics.expectancy(np.array([3.0, -1.0])) == 1.0


def test_tail_metrics_are_undefined_without_data() -> None:
    none, flat = np.array([]), np.array([1.0, 1.0, 1.0])
    assert math.isnan(metrics.calmar(flat))
    assert math.isnan(metrics.max_drawdown_bars(flat[:1]))
    assert math.isnan(metrics.value_at_risk(none))
    assert math.isnan(metrics.expected_shortfall(none))
    assert math.isnan(metrics.expectancy(none))
