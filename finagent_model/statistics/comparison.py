"""Compare two curves on the same days: each metric with an interval, and their difference with one.

Both are resampled together (Politis and Romano's stationary bootstrap, on the same days), so that
what the market did to both cancels out of the difference. Sharpe ratios are compared by Ledoit and
Wolf's studentised bootstrap instead. A difference counts as one only where its interval excludes 0.

Returns are simple, per day (n,). Undefined is nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from finagent_model.backtesting.metrics import MIN_DEVIATION, sharpe
from finagent_model.market.bars import Floats
from finagent_model.statistics.resampling import (
    MIN_PERIODS,
    Interval,
    optimal_block_length,
    resample_histories,
    sharpe_interval,
)
from finagent_model.statistics.skill import sharpe_difference_interval

CurveMetric = Literal["total_return", "annual_return", "volatility", "sharpe", "max_drawdown"]
BETTER: Mapping[CurveMetric, int] = {
    "total_return": 1,
    "annual_return": 1,
    "volatility": 0,
    "sharpe": 1,
    "max_drawdown": -1,
}
"""1: more is better; -1: less is; 0: neither, as for risk that is paid for or is not."""
UNDEFINED = Interval(math.nan, math.nan)


@dataclass(frozen=True)
class MetricEstimate:
    """A number and its interval."""

    value: float
    interval: Interval

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0, and not by rounding alone; False where it is
        undefined.
        """
        return self.interval.low > MIN_DEVIATION or self.interval.high < -MIN_DEVIATION


@dataclass(frozen=True)
class MetricComparison:
    """One metric of two curves, and the second's less the first's."""

    name: CurveMetric
    first: MetricEstimate
    second: MetricEstimate
    difference: MetricEstimate

    @property
    def verdict(self) -> Literal["better", "worse", "differs"] | None:
        """What the second is beside the first; None: the interval does not tell."""
        if not self.difference.excludes_zero:
            return None
        sign = BETTER[self.name] * (1 if self.difference.value > 0 else -1)
        return "better" if sign > 0 else "worse" if sign < 0 else "differs"


def compare_curves(
    first: Floats,
    second: Floats,
    *,
    periods: float,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
) -> tuple[MetricComparison, ...]:
    """Return every metric of two curves' returns on the same days, of which a year has `periods`.

    Intervals are undefined below `MIN_PERIODS` days. Raises ValueError for arrays of two lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} returns are not of the same days")
    measures = _measures(periods)
    drawn = _draw(first, second, measures, seed, draws)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]

    def interval(values: Floats | None) -> Interval:
        if values is None or not np.isfinite(values).any():
            return UNDEFINED
        low, high = np.nanquantile(values, ends)
        return Interval(float(low), float(high))

    compared = []
    for name, measure in measures.items():
        ours, theirs = (
            float(measure(each[None, :])[0]) if len(each) > 1 else math.nan
            for each in (first, second)
        )
        a, b = drawn[name] if drawn else (None, None)
        compared.append(
            MetricComparison(
                name,
                MetricEstimate(ours, interval(a)),
                MetricEstimate(theirs, interval(b)),
                MetricEstimate(theirs - ours, interval(None if a is None or b is None else b - a)),
            )
        )
    own, other = (
        MetricEstimate(
            sharpe(each, periods),
            sharpe_interval(each, seed=seed, confidence=confidence, draws=draws, periods=periods),
        )
        for each in (first, second)
    )
    between = sharpe_difference_interval(
        second, first, seed=seed, confidence=confidence, draws=draws, periods=periods
    )
    difference = MetricEstimate(other.value - own.value, between)
    compared.append(MetricComparison("sharpe", own, other, difference))
    order = list(BETTER)
    return tuple(sorted(compared, key=lambda each: order.index(each.name)))


_Measure = Callable[[Floats], Floats]
"""From returns (draws, n) to a value each."""


def _measures(periods: float) -> dict[CurveMetric, _Measure]:
    # All histories at a time; tests hold each against `backtesting.metrics`.
    return {
        "total_return": lambda returns: np.prod(1.0 + returns, axis=1) - 1.0,
        "annual_return": lambda returns: returns.mean(axis=1) * periods,
        "volatility": lambda returns: returns.std(axis=1, ddof=1) * math.sqrt(periods),
        "max_drawdown": _max_drawdowns,
    }


def _max_drawdowns(returns: Floats) -> Floats:
    equity = np.cumprod(1.0 + returns, axis=1)
    # From 1, which the curve begins with, on.
    peak = np.maximum(np.maximum.accumulate(equity, axis=1), 1.0)
    falls: Floats = (1.0 - equity / peak).max(axis=1)
    return falls


def _draw(
    first: Floats,
    second: Floats,
    measures: Mapping[CurveMetric, _Measure],
    seed: int,
    draws: int,
) -> dict[CurveMetric, tuple[Floats, Floats]] | None:
    """Return each metric of resampled histories, both curves on the same days of each."""
    n = len(first)
    if n < MIN_PERIODS or not np.isfinite(first).all() or not np.isfinite(second).all():
        return None
    length = max(optimal_block_length(each) for each in (first, second, second - first))
    parts: dict[CurveMetric, list[tuple[Floats, Floats]]] = {name: [] for name in measures}
    for positions in resample_histories(n, length, draws, seed):
        ours, theirs = first[positions], second[positions]
        for name, measure in measures.items():
            parts[name].append((measure(ours), measure(theirs)))
    return {
        name: (np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found]))
        for name, found in parts.items()
    }
