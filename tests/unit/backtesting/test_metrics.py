"""Each metric against empyrical-reloaded, and what is undefined."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from finagent_model.backtesting import metrics
from finagent_model.backtesting.engine import BacktestResult, Costs, buy_and_hold
from finagent_model.data.bundled import BundledBars
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import bars_per_year

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


def years_of(equity: Floats) -> float:
    """Years as empyrical counts them: 252 bars each."""
    return (len(equity) - 1) / 252


def days(first: str, count: int, step: str = "B") -> npt.NDArray[np.datetime64]:
    """Return `count` closes from `first` on; `step` is a frequency of pandas."""
    stamps = pd.date_range(first, periods=count, freq=step).to_numpy()
    return stamps.astype("datetime64[us]")


def test_simple_returns_are_changes_over_value_before() -> None:
    np.testing.assert_allclose(metrics.simple_returns(np.array([100.0, 110.0, 99.0])), [0.1, -0.1])


def test_simple_returns_equal_pandas(equity: Floats, returns: Floats) -> None:
    np.testing.assert_allclose(returns, pd.Series(equity).pct_change().iloc[1:], atol=1e-14)


def test_total_return_equals_empyrical(equity: Floats, returns: Floats) -> None:
    assert metrics.total_return(equity) == pytest.approx(empyrical.cum_returns_final(returns))


def test_cagr_equals_empyrical(equity: Floats, returns: Floats) -> None:
    expected = empyrical.cagr(returns) if years_of(equity) >= metrics.MIN_YEARS else math.nan
    assert metrics.cagr(equity, years_of(equity)) == pytest.approx(expected, nan_ok=True)


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
        metrics.cagr(short, 2.0),
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
    assert math.isnan(metrics.cagr(np.array([100.0, 50.0, 0.0]), 2.0))


def test_simple_returns_are_undefined_once_all_is_lost() -> None:
    returns = metrics.simple_returns(np.array([100.0, 50.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(returns, [-0.5, -1.0, math.nan, math.nan])


def test_measure_curve_ratios_are_undefined_once_all_is_lost() -> None:
    equity = np.r_[np.linspace(100, 120, 300), np.zeros(100)]
    summary = metrics.measure_curve(equity, days("2020-01-01", 400))
    assert (summary["total_return"], summary["max_drawdown"]) == (-1.0, 1.0)
    undefined = {name for name, value in summary.items() if math.isnan(value)}
    ratios = {"cagr", "volatility", "sharpe", "sortino", "calmar"}
    assert undefined == {*ratios, "value_at_risk_95", "expected_shortfall_95"}


@pytest.mark.parametrize(
    ("closed_at", "expected"),
    [
        (days("2020-01-01", 500), 252),
        (days("2020-01-06", 2), 252),
        (days("2020-01-06", 5), 252),
        (days("2020-01-06", 8), 252),
        (days("2020-01-01", 500, "D"), 365),
        (days("2020-01-04", 3, "D"), 365),
        (days("2020-01-01", 120, "ME"), 12),
        (days("2020-01-01", 120, "W-FRI"), 52),
        (days("2020-01-01", 20, "QE"), 4),
        (days("2020-01-01", 20, "YE"), 1),
        (days("2020-01-01", 1), 252),
        (np.r_[days("2020-01-01", 100), days("2021-01-01", 100)], 252),
        (np.r_[days("2020-01-01", 100, "D"), days("2023-01-01", 100, "D")], 365),
        (days("2020-01-01", 24 * 365, "h"), 24 * 365),
        (days("2020-01-06", 24 * 5, "h"), 24 * 252),
        (days("2020-01-01 17:00", 24 * 40, "h"), 24 * 365),  # the days at the ends are parts
        (days("2020-01-01", 500, "D") - (np.arange(500) > 90) * np.timedelta64(1, "h"), 365),
        (days("2020-01-06 14:35", 78, "5min"), 78 * 252),
        (days("2020-01-01", 500, "D")[np.arange(500) % 7 != 3], 365.25 * 6 / 7),
    ],
)
def test_bars_per_year_is_measured_from_dates(
    closed_at: npt.NDArray[np.datetime64], expected: float
) -> None:
    assert bars_per_year(closed_at) == pytest.approx(expected, rel=0.001)


def test_bars_per_year_of_bundled_stocks_is_252() -> None:
    assert {bars_per_year(BundledBars().bars(s).closed_at) for s in ("GOOG", "FB")} == {252}


@pytest.mark.parametrize(
    ("first", "count", "step"),
    [("2010-01-31", 120, "ME"), ("2020-01-01", 800, "D"), ("2015-01-01", 600, "B")],
)
def test_cagr_goes_by_calendar_years(first: str, count: int, step: str) -> None:
    closed_at = days(first, count, step)
    years = float((closed_at[-1] - closed_at[0]) / np.timedelta64(1, "D")) / 365.25
    equity = 100 * 1.1 ** np.linspace(0, years, count)
    assert metrics.measure_curve(equity, closed_at)["cagr"] == pytest.approx(0.1)


def test_cagr_counts_gap_in_bars_as_time() -> None:
    closed_at = np.r_[days("2020-01-01", 130), days("2021-01-01", 130)]
    years = float((closed_at[-1] - closed_at[0]) / np.timedelta64(1, "D")) / 365.25
    summary = metrics.measure_curve(np.linspace(100, 130, 260), closed_at)
    assert summary["cagr"] == pytest.approx(1.3 ** (1 / years) - 1)


@pytest.mark.parametrize("count", [2, 60, 250])
def test_annual_rates_are_undefined_below_a_year(count: int) -> None:
    summary = metrics.summarise(result([100.0] * (count - 1) + [120.0], [1.0] * count, {}))
    assert all(math.isnan(summary[name]) for name in ("cagr", "calmar", "turnover"))


@pytest.mark.parametrize("count", [2, 3, 20])
def test_deviations_a_year_are_undefined_below_a_month(count: int) -> None:
    equity = 100 + np.arange(count) % 2
    summary = metrics.measure_curve(equity.astype(float), days("2020-01-01", count))
    assert all(math.isnan(summary[name]) for name in ("volatility", "sharpe", "sortino"))


def test_volatility_is_scaled_by_bars_of_a_year() -> None:
    monthly = np.array([0.01, -0.01, 0.02])
    assert metrics.volatility(monthly, 12) == pytest.approx(np.std(monthly, ddof=1) * 12**0.5)


def dust(bars: int) -> Floats:
    """A curve whose only changes are rounding."""
    rng = np.random.default_rng(1)
    return 10_000.0 * (1 + np.cumsum(rng.choice([-2e-16, 0.0, 2e-16], bars)))


def test_ratios_of_rounding_are_undefined() -> None:
    summary = metrics.measure_curve(dust(3000), days("2000-01-03", 3000))
    assert all(math.isnan(summary[name]) for name in ("sharpe", "sortino", "calmar"))


def test_drawdown_of_rounding_is_none() -> None:
    assert (metrics.max_drawdown(dust(3000)), metrics.max_drawdown_bars(dust(3000))) == (0, 0)


def test_trade_ratios_of_rounding_are_undefined() -> None:
    summary = metrics.summarise(result([1e4] * 300, [1.0] * 300, {1: 2e-12, 2: -3e-12}))
    assert (summary["hit_rate"], summary["expectancy"]) == (0, 0)
    assert math.isnan(summary["profit_factor"])


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
        closed_at=days("2020-01-01", len(equity)),
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
    run = result([100.0] * 523, [0.0] * 523, {})
    assert metrics.summarise(run)["turnover"] == pytest.approx(1.5, rel=0.01)


def test_summarise_without_trades_is_undefined_never_zero() -> None:
    summary = metrics.summarise(result([100.0] * 10, [0.0] * 10, {}))
    undefined = {name for name, value in summary.items() if math.isnan(value)}
    assert undefined == {
        *("sharpe", "sortino", "calmar", "hit_rate", "profit_factor", "expectancy"),
        *("cagr", "turnover", "volatility"),  # ten bars are neither a year nor a month
    }


def test_summarise_of_single_bar_is_undefined_except_counts() -> None:
    summary = metrics.summarise(result([100.0], [0.0], {}))
    defined = {name for name, value in summary.items() if not math.isnan(value)}
    assert defined == {"exposure", "closed_trades", "cancelled_entries"}


def test_calmar_equals_empyrical(equity: Floats, returns: Floats) -> None:
    years = years_of(equity)
    expected = empyrical.calmar_ratio(returns) if years >= metrics.MIN_YEARS else math.nan
    assert metrics.calmar(equity, years) == pytest.approx(expected, nan_ok=True)


def test_value_at_risk_equals_minus_empyrical(returns: Floats) -> None:
    assert metrics.value_at_risk(returns) == pytest.approx(-empyrical.value_at_risk(returns))


def test_expected_shortfall_equals_minus_empyrical(returns: Floats) -> None:
    expected = -empyrical.conditional_value_at_risk(returns)
    assert metrics.expected_shortfall(returns) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("equity", "bars"),
    [
        ([1.0, 2.0, 3.0], 0),
        ([1.0, 1.0, 1.0], 0),
        ([2.0, 1.0], 1),
        ([2.0, 1.0, 2.0], 2),
        ([3.0, 2.0, 1.0], 2),
        ([1.0, 3.0, 2.0, 2.5, 3.0, 4.0], 3),
        ([1.0, 2.0, 1.5, 2.0, 1.0, 1.0, 1.0], 3),
    ],
)
def test_max_drawdown_bars_counts_until_peak_is_reached(equity: list[float], bars: int) -> None:
    assert metrics.max_drawdown_bars(np.array(equity)) == bars


def test_expectancy_is_mean_of_closed_trades() -> None:
    assert metrics.expectancy(np.array([3.0, -1.0])) == 1.0


def test_tail_metrics_are_undefined_without_data() -> None:
    none, flat = np.array([]), np.array([1.0, 1.0, 1.0])
    assert math.isnan(metrics.calmar(flat, 2.0))
    assert math.isnan(metrics.max_drawdown_bars(flat[:1]))
    assert math.isnan(metrics.value_at_risk(none))
    assert math.isnan(metrics.expected_shortfall(none))
    assert math.isnan(metrics.expectancy(none))


def reasons(equity: Floats) -> dict[str, str]:
    return metrics.explain_undefined(metrics.measure_curve(equity, days("2020-01-01", len(equity))))


def test_explain_undefined_names_the_shortest_span() -> None:
    short = reasons(np.array([100.0, 90.0, 95.0]))
    assert short["sharpe"] == short["volatility"] == "less than a month of bars"
    assert short["calmar"] == short["cagr"] == "less than a year of bars"


def test_explain_undefined_names_what_a_ratio_is_missing() -> None:
    flat = reasons(np.full(400, 100.0))
    assert flat["sharpe"] == "the returns don't vary"
    assert flat["calmar"] == "the equity never fell"


def test_explain_undefined_names_the_loss_of_everything() -> None:
    lost = reasons(np.r_[np.linspace(100, 120, 300), np.zeros(100)])
    assert set(lost.values()) == {"all was lost"}
