"""Resampled histories that keep how returns hang together in time: Politis and Romano's stationary
bootstrap (1994). Tests hold block lengths, intervals and p-values against `arch`.

How two histories of returns over the same days differ, and how far that may be chance.

What the same number of trades would have earned at other times, and at other costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import Rules
from finagent_model.market.bars import BarSeries, Floats

YEAR = 252
STILL = 1e-12
"""Spread below which returns count as not varying."""
FEWEST = 20
"""Periods below which nothing is said."""


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a statistic."""

    low: float
    high: float


def block_length(returns: Floats) -> float:
    """Mean length of blocks that suits the returns' autocorrelation, at least 1; 1 where they don't
    vary. Politis and White (2004), as corrected by Patton, Politis and White (2009).
    """
    n = len(returns)
    if n < FEWEST or not np.std(returns) > STILL:
        return 1.0
    quiet = max(5, int(math.log10(n)))
    longest = math.ceil(math.sqrt(n)) + quiet
    covariances = _autocovariances(returns)[: longest + 1]
    small = np.abs(covariances[1:]) / covariances[0] < 2 * math.sqrt(math.log10(n) / n)
    runs = np.lib.stride_tricks.sliding_window_view(small, quiet).all(axis=1)
    first = int(np.argmax(runs)) + 1 if runs.any() else longest  # lag from which on it is quiet
    width = min(2 * first, longest)
    lags = np.arange(1, width + 1)
    weights = 2 * np.minimum(1.0, 2 * (1 - lags / width)) * covariances[1 : width + 1]
    spectrum, slope = covariances[0] + weights.sum(), float(np.sum(weights * lags))
    if not abs(spectrum) > 0:
        return 1.0
    length = (n * slope**2 / spectrum**2) ** (1 / 3)
    return float(min(max(length, 1.0), math.ceil(min(3 * math.sqrt(n), n / 3))))


def resampled(n: int, length: float, draws: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions (draws, n) of stationary bootstrap histories: blocks of geometric length, wrapped
    around the end.
    """
    rng = np.random.default_rng(seed)
    fresh = rng.random((draws, n)) < 1 / length
    fresh[:, 0] = True
    begun = np.maximum.accumulate(np.where(fresh, np.arange(n), 0), axis=1)
    first = np.take_along_axis(rng.integers(n, size=(draws, n)), begun, axis=1)
    return (first + np.arange(n) - begun) % n


def sharpe_interval(
    returns: Floats, *, seed: int, confidence: float = 0.95, draws: int = 1000
) -> Interval:
    """Of the annual Sharpe ratio; nan where returns don't vary or are fewer than `FEWEST`."""
    if len(returns) < FEWEST or not np.std(returns) > STILL:
        return Interval(math.nan, math.nan)
    drawn = returns[resampled(len(returns), block_length(returns), draws, seed)]
    spread = drawn.std(axis=1, ddof=1)
    ratios = drawn.mean(axis=1) / np.where(spread > STILL, spread, np.nan) * math.sqrt(YEAR)
    low, high = np.nanquantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def superior_predictive_ability(gains: Floats, *, seed: int, draws: int = 1000) -> float:
    """p-value of Hansen's test (2005) that no column of `gains` (T, K), each a model's return less
    the benchmark's, has a positive mean; nan where one does not vary or there are fewer than
    `FEWEST`.

    The statistic is studentised and its threshold the consistent one. (`arch` 8.0 studentises the
    threshold alone, and loses a clear winner among noisy models.)
    """
    n = len(gains)
    if n < FEWEST or not (np.std(gains, axis=0) > STILL).all():
        return math.nan
    length = max(block_length(column) for column in gains.T)
    scale = np.array([_long_run_deviation(column, 1 / length) for column in gains.T])
    if not (scale > STILL).all():
        return math.nan
    scores = gains.mean(axis=0) * math.sqrt(n) / scale
    hopeless = scores < -math.sqrt(2 * math.log(math.log(n)))
    centre = np.where(hopeless, 0.0, scores)
    positions = resampled(n, length, draws, seed)
    best = np.full(draws, -np.inf)
    for k, column in enumerate(gains.T):
        drawn = column[positions].mean(axis=1) * math.sqrt(n) / scale[k]
        best = np.maximum(best, drawn - centre[k])
    return float(np.mean(best > scores.max()))


def _autocovariances(values: Floats) -> Floats:
    """At lags 0, 1, ... n - 1, all divided by n."""
    n = len(values)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(values - values.mean(), size)) ** 2
    found: Floats = np.fft.irfft(spectrum, size)[:n] / n
    return found


def _long_run_deviation(gains: Floats, restart: float) -> float:
    """Root of the stationary bootstrap's own variance of the mean (Hansen 2005, eq. 5)."""
    n, covariances = len(gains), _autocovariances(gains)
    lags = np.arange(1, n)
    kernel = (1 - lags / n) * (1 - restart) ** lags + lags / n * (1 - restart) ** (n - lags)
    variance = covariances[0] + 2 * float(np.sum(kernel * covariances[1:]))
    return math.sqrt(max(variance, 0.0))


def annual_difference(ours: Floats, theirs: Floats) -> float:
    """Mean daily return of `ours` less that of `theirs`, times 252; nan without days."""
    return float(np.mean(ours - theirs)) * YEAR if len(ours) else math.nan


def difference_interval(
    ours: Floats, theirs: Floats, *, seed: int, confidence: float = 0.95, draws: int = 1000
) -> Interval:
    """Percentile interval of `annual_difference` by the stationary bootstrap of the paired days;
    (0, 0) where they never differ, nan below `FEWEST` days.
    """
    gains = ours - theirs
    if len(gains) < FEWEST:
        return Interval(math.nan, math.nan)
    if not np.std(gains) > STILL:
        mean = annual_difference(ours, theirs)
        return Interval(mean, mean)
    positions = resampled(len(gains), block_length(gains), draws, seed)
    means = gains[positions].mean(axis=1) * YEAR
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


COSTS_BP = (0, 1, 5, 10, 20, 50, 100)
"""Commissions of the cost curve, in basis points of every fill."""
HIGHEST = 0.1
"""Where the search for the break-even commission ends: nobody charges a tenth."""


def random_entries(
    bars: BarSeries, result: BacktestResult, rules: Rules, *, seed: int, draws: int = 1000
) -> Floats:
    """Total returns (draws,) of the result's own trades, with their sides, sizes and holding times,
    put at random places, one at a time; nan where there is no trade.

    A trade goes in at an open and out at an open, after costs. Sizes are the fractions of equity
    that were invested at the first close.
    """
    trades = result.trades
    if trades.empty:
        return np.full(draws, math.nan)
    n, growth = len(bars), bars.adjust_to_first_bar()
    entry = trades["entry_bar"].to_numpy()
    left = trades["exit_bar"].to_numpy()
    held = np.maximum(np.where(left < 0, n, left) - entry, 1)
    side = np.where(trades["side"] == "long", 1, -1)
    size = _sizes(bars, result)
    price = np.append(growth.open, growth.close[-1])
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(held)), (draws, 1)), axis=1)
    held, side, size = held[order], side[order], size[order]
    idle = max(n - int(held[0].sum()), 0)
    gaps = np.sort(rng.integers(0, idle + 1, size=held.shape), axis=1)
    stop = np.minimum(gaps + np.cumsum(held, axis=1), n)
    start = np.minimum(stop - held, n - 1)
    bought = price[start] * (1 + side * rules.slippage)
    sold = price[stop] * (1 - side * rules.slippage)
    gain = size * (side * (sold / bought - 1) - rules.commission * (1 + sold / bought))
    total: Floats = np.prod(np.maximum(1 + gain, 0.0), axis=1) - 1
    return total


def p_value(observed: float, drawn: Floats) -> float:
    """Share of draws at least as good, the observation counted as one of them; nan without draws.
    Davison and Hinkley, Bootstrap Methods (1997), eq. 4.11.
    """
    if not math.isfinite(observed) or np.isnan(drawn).any():
        return math.nan
    return float((1 + np.sum(drawn >= observed)) / (1 + len(drawn)))


def cost_curve(
    bars: BarSeries, orders: Orders, rules: Rules, commissions: Sequence[float]
) -> list[float]:
    """Total return of the same orders at each commission."""
    return [_earned(bars, orders, rules, commission) for commission in commissions]


def break_even_commission(bars: BarSeries, orders: Orders, rules: Rules) -> float:
    """The commission, as a fraction of every fill, at which the orders earn nothing; `HIGHEST`
    where they gain even then, nan where they lose without any.
    """
    low, high = 0.0, HIGHEST
    if _earned(bars, orders, rules, low) <= 0:
        return math.nan
    if _earned(bars, orders, rules, high) > 0:
        return HIGHEST
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _earned(bars, orders, rules, middle) > 0:
            low = middle
        else:
            high = middle
    return low


def _earned(bars: BarSeries, orders: Orders, rules: Rules, commission: float) -> float:
    changed = rules._replace(commission=commission)
    return float(run_orders(bars, orders, changed, cash=1.0, whole_shares=False).equity[-1] - 1.0)


def _sizes(bars: BarSeries, result: BacktestResult) -> Floats:
    """Fraction of the equity before it that each trade put in."""
    factor = bars.growth_factor
    entry = result.trades["entry_bar"].to_numpy()
    price = result.trades["entry_price"].to_numpy() * factor[entry]
    units = result.trades["shares"].to_numpy() / factor[entry]
    before = result.equity[np.maximum(entry - 1, 0)]
    sizes: Floats = units * price / before
    return sizes
