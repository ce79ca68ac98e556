"""Tell skill from exposure: does a desk earn what its time in the market does not explain?

*Alpha* is the intercept of a regression of the desk's returns on those of holding (Jensen, The
Performance of Mutual Funds in the Period 1945-1964, 1968). A desk that is in the market by chance,
however often and at whatever size, has none, in rising and in falling markets. Its ratio to what
the market leaves unexplained is the appraisal ratio (Treynor and Black, How to Use Security
Analysis to Improve Portfolio Selection, 1973), which is the same at any size.

*Sharpe ratios are compared* by the studentised circular block bootstrap of Ledoit and Wolf, Robust
Performance Hypothesis Testing with the Sharpe Ratio (2008): at equal risk, not by raw return.

Returns are per day (n,), the desk's and the benchmark's on the same days. Undefined is nan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from finagent_model.backtesting.metrics import MIN_DEVIATION, sharpe
from finagent_model.market.bars import Floats
from finagent_model.market.timeframe import TRADING_DAYS_PER_YEAR
from finagent_model.statistics.autocorrelation import long_run_variance
from finagent_model.statistics.resampling import (
    MAX_POSITIONS,
    MIN_PERIODS,
    Interval,
    optimal_block_length,
)

NORMAL = NormalDist()
SAME_RATIO = 1e-8
"""Difference of two annual Sharpe ratios that only rounding left."""
MIN_DELAYED_SHARE = 0.5
"""Share of its Sharpe ratio that an honest strategy keeps when it acts a bar later."""


def alpha_contributions(returns: Floats, benchmark: Floats) -> Floats:
    """Return each day's contribution (n,) to alpha; their mean is alpha per day.

    A contribution is alpha plus the day's influence on its estimate, so that the variance of their
    mean is that of alpha, the estimated beta included. All nan below `MIN_PERIODS` days and where
    the benchmark does not vary; all 0 for a desk that never traded.
    """
    n = len(returns)
    if n < MIN_PERIODS or not np.std(benchmark) > MIN_DEVIATION:
        return np.full(n, math.nan)
    market = benchmark - benchmark.mean()
    variance = float(np.mean(market**2))
    beta = float(np.mean(market * returns)) / variance
    residual = returns - returns.mean() - beta * market
    # What rounding leaves of a desk that only holds is no residual.
    residual = np.where(np.abs(residual) > MIN_DEVIATION, residual, 0.0)
    alpha = float(returns.mean() - beta * benchmark.mean())
    contributions: Floats = alpha + residual * (1 - benchmark.mean() / variance * market)
    return contributions


def mean_t_ratio(values: Floats) -> float:
    """Return the mean of `values` (n,) over its HAC standard error.

    nan below `MIN_PERIODS` values, where one is nan, and where they don't vary.
    """
    if len(values) < MIN_PERIODS or not np.std(values) > MIN_DEVIATION:
        return math.nan
    variance = long_run_variance(values)
    if not variance > 0:
        return math.nan
    return float(values.mean()) * math.sqrt(len(values) / variance)


def positive_mean_p_value(values: Floats) -> float:
    """Return the one-sided p-value that the mean of `values` (n,) is not above 0.

    nan where `mean_t_ratio` is.
    """
    return 1 - NORMAL.cdf(mean_t_ratio(values))


def sharpe_difference_p_value(
    ours: Floats, theirs: Floats, *, seed: int, draws: int = 1000
) -> float:
    """Return the one-sided p-value that the Sharpe ratio of `ours` is not above that of `theirs`.

    nan below `MIN_PERIODS` days, where either does not vary, and where they are the same.
    """
    found = _bootstrap_sharpe_difference(ours, theirs, seed=seed, draws=draws)
    if found is None:
        return math.nan
    # A history without variance has no ratio, and counts against us.
    observed = found.difference / found.deviation
    return float((1 + np.sum(~(found.centred < observed))) / (1 + draws))


def sharpe_difference_interval(
    ours: Floats,
    theirs: Floats,
    *,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
    periods: float = TRADING_DAYS_PER_YEAR,
) -> Interval:
    """Return the interval of the annual Sharpe ratio of `ours` less that of `theirs`, of returns of
    which a year has `periods`.

    Symmetric and studentised, as the paper's two-sided test. Of width 0 where both ratios are the
    same but for rounding; nan where `sharpe_difference_p_value` is otherwise.
    """
    n = len(ours)
    found = _bootstrap_sharpe_difference(ours, theirs, seed=seed, draws=draws)
    if found is None:
        # Curves that differ by rounding, and those that differ in size alone.
        distance = abs(sharpe(ours, periods) - sharpe(theirs, periods))
        is_same = n >= MIN_PERIODS and distance <= SAME_RATIO
        return Interval(0.0, 0.0) if is_same else Interval(math.nan, math.nan)
    # A history without variance counts as far away.
    distances = np.nan_to_num(np.abs(found.centred), nan=math.inf)
    reach = float(np.quantile(distances, confidence, method="higher")) * found.deviation
    # Annual, and with the deviations of `sharpe`, which divide by one less.
    scale = math.sqrt(periods * (n - 1) / n)
    return Interval((found.difference - reach) * scale, (found.difference + reach) * scale)


@dataclass(frozen=True, eq=False)
class _SharpeBootstrap:
    """Difference of two Sharpe ratios per period, its standard error, and resampled histories."""

    difference: float
    deviation: float
    centred: Floats
    """Each history's difference less the observed one, in its own standard errors."""


def _bootstrap_sharpe_difference(
    ours: Floats, theirs: Floats, *, seed: int, draws: int
) -> _SharpeBootstrap | None:
    """Return Ledoit and Wolf's bootstrap; None below `MIN_PERIODS` days, where either does not
    vary, and where they are the same.
    """
    n = len(ours)
    if n < MIN_PERIODS or not min(np.std(ours), np.std(theirs)) > MIN_DEVIATION:
        return None
    # Columns: both returns and their squares, whose means make the ratios and all derivatives.
    columns = np.column_stack([ours, theirs, ours**2, theirs**2])
    difference, gradient = _sharpe_difference(columns.mean(axis=0))
    influence = (columns - columns.mean(axis=0)) @ gradient
    variance = long_run_variance(influence)
    # In units of standard deviations: two curves that differ by rounding are the same.
    if not variance > 1e-12:
        return None
    length = min(max(round(optimal_block_length(influence)), 1), n // 10)
    blocks = n // length
    # Sums over the block that begins on each day; the end is joined to the beginning.
    circle = np.vstack([columns, columns[: length - 1]])
    padded = np.vstack([np.zeros(4), np.cumsum(circle, axis=0)])
    sums = padded[length:] - padded[:-length]
    rng, rows = np.random.default_rng(seed), max(MAX_POSITIONS // blocks, 1)
    parts = []
    for start in range(0, draws, rows):
        drawn = sums[rng.integers(n, size=(min(rows, draws - start), blocks))]
        means = drawn.sum(axis=1) / (blocks * length)
        differences, gradients = _sharpe_difference(means)
        # Variance between blocks, as the paper's natural estimator in the bootstrap world (Götze
        # and Künsch 1996).
        scores = np.einsum("mbk,mk->mb", drawn - length * means[:, None], gradients)
        deviations = np.sqrt((scores**2).mean(axis=1) / length / (blocks * length))
        with np.errstate(divide="ignore", invalid="ignore"):
            parts.append((differences - difference) / deviations)
    centred = np.concatenate(parts)
    return _SharpeBootstrap(float(difference), math.sqrt(variance / n), centred)


def delay_p_value(returns: Floats, delayed: Floats, *, seed: int) -> float:
    """Return the one-sided p-value that acting a bar later costs nothing of the Sharpe ratio.

    `delayed` are the returns of the same orders, each a bar later. 1 where the ratio is not above 0
    or at least `MIN_DELAYED_SHARE` of it is kept: an honest strategy loses something too. nan where
    either does not vary.
    """
    ratio, delayed_ratio = sharpe(returns), sharpe(delayed)
    if not (math.isfinite(ratio) and math.isfinite(delayed_ratio)):
        return math.nan
    if ratio <= 0 or delayed_ratio >= MIN_DELAYED_SHARE * ratio:
        return 1.0
    return sharpe_difference_p_value(returns, delayed, seed=seed, draws=2000)


def _sharpe_difference(means: Floats) -> tuple[Floats, Floats]:
    """Return the difference of two Sharpe ratios and its gradient by the means (..., 4) of both
    returns and of their squares.
    """
    a, b, aa, bb = np.moveaxis(means, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        a_variance, b_variance = aa - a**2, bb - b**2
        difference = a / np.sqrt(a_variance) - b / np.sqrt(b_variance)
        gradient = np.stack(
            [
                aa / a_variance**1.5,
                -bb / b_variance**1.5,
                -a / (2 * a_variance**1.5),
                b / (2 * b_variance**1.5),
            ],
            axis=-1,
        )
    return difference, gradient
