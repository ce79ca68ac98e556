"""Two curves on the same days: known answers, stated error rates, and what is undefined."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finagent_model.backtesting.metrics import max_drawdown, sharpe, total_return, volatility
from finagent_model.market.bars import Floats
from finagent_model.statistics.comparison import BETTER, MetricComparison, compare_curves
from finagent_model.statistics.resampling import Interval
from finagent_model.statistics.skill import sharpe_difference_interval, sharpe_difference_p_value


def pair(seed: int, extra: float = 0.0, days: int = 500) -> tuple[Floats, Floats]:
    """Two desks in one market; the second earns `extra` a day more."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0.0003, 0.01, days)
    first, second = (0.5 * market + rng.normal(0, 0.003, days) for _ in range(2))
    return first, second + extra


def compared(first: Floats, second: Floats) -> dict[str, MetricComparison]:
    found = compare_curves(first, second, periods=252, seed=7, draws=400)
    return {each.name: each for each in found}


def test_compare_curves_equals_metrics_of_each_curve() -> None:
    first, second = pair(1)
    found = compared(first, second)
    assert list(found) == list(BETTER)
    for values, side in ((first, "first"), (second, "second")):
        equity = np.cumprod(np.append(1.0, 1.0 + values))
        expected = {
            "total_return": total_return(equity),
            "annual_return": values.mean() * 252,
            "volatility": volatility(values),
            "sharpe": sharpe(values),
            "max_drawdown": max_drawdown(equity),
        }
        assert {n: getattr(c, side).value for n, c in found.items()} == pytest.approx(expected)
    for each in found.values():
        assert each.difference.value == pytest.approx(each.second.value - each.first.value)
        for estimate in (each.first, each.second, each.difference):
            assert estimate.interval.low <= estimate.interval.high


def test_compare_curves_claims_only_what_the_interval_shows() -> None:
    first, second = pair(2, extra=0.002)
    verdicts = {name: each.verdict for name, each in compared(first, second).items()}
    assert verdicts["sharpe"] == verdicts["annual_return"] == "better"
    turned = {name: each.verdict for name, each in compared(second, first).items()}
    assert turned["sharpe"] == turned["annual_return"] == "worse"


def test_compare_curves_of_one_curve_shows_no_difference() -> None:
    first, _ = pair(2)
    same = compared(first, first)
    assert {each.verdict for each in same.values()} == {None}
    ends = {(c.difference.interval.low, c.difference.interval.high) for c in same.values()}
    assert ends == {(0.0, 0.0)}


@pytest.mark.parametrize("dust", [1e-15, -1e-15, 1e-14])
def test_compare_curves_that_differ_by_rounding_shows_no_difference(dust: float) -> None:
    first, _ = pair(2)
    twin = compared(first, (1 + first) * (1 + dust) - 1)
    assert {each.verdict for each in twin.values()} == {None}
    assert twin["sharpe"].difference.interval == Interval(0.0, 0.0)


def test_compare_curves_of_half_the_size_differ_in_risk_alone() -> None:
    first, _ = pair(3)
    found = compared(first, 0.5 * first)
    assert found["volatility"].verdict == "differs", "less risk is neither better nor worse"
    assert found["max_drawdown"].verdict == "better"
    assert found["sharpe"].verdict is None
    assert found["sharpe"].difference.interval == Interval(0.0, 0.0), "the same ratio"


def test_compare_curves_rarely_find_what_is_not_there() -> None:
    found = [compared(*pair(seed))["annual_return"].verdict for seed in range(60)]
    assert sum(verdict is not None for verdict in found) <= 8, "5 % are to be expected"


def test_compare_curves_of_few_days_have_no_interval() -> None:
    first, second = pair(4, days=19)
    for each in compared(first, second).values():
        assert math.isfinite(each.difference.value)
        assert math.isnan(each.difference.interval.low)
        assert each.verdict is None
    assert math.isnan(compared(first[:0], second[:0])["total_return"].first.value)


def test_compare_curves_refuse_different_days() -> None:
    first, second = pair(4, days=19)
    with pytest.raises(ValueError, match="19 and 18 returns"):
        compare_curves(first, second[1:], periods=252, seed=1)


@pytest.mark.parametrize("extra", [0.0, 0.0004, 0.001, 0.002])
def test_sharpe_difference_interval_agrees_with_its_test(extra: float) -> None:
    first, second = pair(5, extra)
    interval = sharpe_difference_interval(second, first, seed=7)
    middle = (interval.low + interval.high) / 2
    assert middle == pytest.approx(sharpe(second) - sharpe(first))
    p_value = sharpe_difference_p_value(second, first, seed=7)
    # Two-sided at 95 %, the test one-sided: 2.5 % on a side, up to the skew of the draws.
    assert (interval.low > 0) <= (p_value < 0.05)
    assert (p_value > 0.1) <= (interval.low < 0)
