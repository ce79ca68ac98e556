"""Resampling tests of luck: bootstrap intervals, Hansen's test, random entries and other costs.

Histories are resampled by Politis and Romano's stationary bootstrap (1994), which keeps how returns
hang together in time. Tests hold block lengths, intervals and p-values against `arch`. Every random
number comes from the `seed` that is passed in; undefined is nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finagent_model.backtesting.engine import BacktestResult, Orders, run_orders
from finagent_model.backtesting.kernel import FillRules
from finagent_model.backtesting.metrics import MIN_DEVIATION
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.market.timeframe import TRADING_DAYS_PER_YEAR
from finagent_model.statistics.autocorrelation import autocovariances

MIN_PERIODS = 20
"""Periods below which every statistic here is undefined."""
MAX_POSITIONS = 2**16
"""Positions of resampled histories that are drawn at a time: they fit into a core's cache."""
COST_CURVE_BP = (0, 1, 5, 10, 20, 50, 100)
"""Commissions of the cost curve, in basis points of every fill."""
MAX_COMMISSION = 0.1
"""Where the search for the break-even commission ends: nobody charges a tenth."""


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a statistic."""

    low: float
    high: float


def optimal_block_length(returns: Floats) -> float:
    """Mean block length that suits the returns' autocorrelation, at least 1; 1 where they don't
    vary.

    Politis and White (2004), as corrected by Patton, Politis and White (2009); equals
    `arch.bootstrap.optimal_block_length`.
    """
    n = len(returns)
    if n < MIN_PERIODS or not np.std(returns) > MIN_DEVIATION:
        return 1.0
    quiet_lags = max(5, int(math.log10(n)))
    max_lag = math.ceil(math.sqrt(n)) + quiet_lags
    covariances = autocovariances(returns)[: max_lag + 1]
    is_small = np.abs(covariances[1:]) / covariances[0] < 2 * math.sqrt(math.log10(n) / n)
    is_quiet = np.lib.stride_tricks.sliding_window_view(is_small, quiet_lags).all(axis=1)
    # The first lag from which on autocorrelation is within its noise.
    first_lag = int(np.argmax(is_quiet)) + 1 if is_quiet.any() else max_lag
    bandwidth = min(2 * first_lag, max_lag)
    lags = np.arange(1, bandwidth + 1)
    # A flat-top window: weight 1 up to half of the bandwidth, then falling to 0.
    weights = 2 * np.minimum(1.0, 2 * (1 - lags / bandwidth)) * covariances[1 : bandwidth + 1]
    spectrum, slope = covariances[0] + weights.sum(), float(np.sum(weights * lags))
    if not abs(spectrum) > 0:
        return 1.0
    length = (n * slope**2 / spectrum**2) ** (1 / 3)
    return float(min(max(length, 1.0), math.ceil(min(3 * math.sqrt(n), n / 3))))


def resample_histories(
    n: int, length: float, draws: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield positions (k, n) of `draws` resampled histories, some at a time: blocks of geometric
    length with mean `length`, wrapped around the end.

    How many come at a time changes no history.
    """
    # All decisions where a block ends are drawn before all of where one begins: two generators of
    # the same stream, one of them that many numbers ahead, need not hold either in memory.
    restarts, beginnings = np.random.PCG64(seed), np.random.PCG64(seed)
    beginnings.advance(draws * n)
    restart, begin = np.random.Generator(restarts), np.random.Generator(beginnings)
    day, rows = np.arange(n), max(MAX_POSITIONS // n, 1)
    for start in range(0, draws, rows):
        shape = min(rows, draws - start), n
        is_block_start = restart.random(shape) < 1 / length
        is_block_start[:, 0] = True
        first = begin.integers(n, size=shape).ravel()
        block = np.flatnonzero(is_block_start)
        shift = first[block] - block % n
        positions = np.repeat(shift, np.diff(block, append=first.size)).reshape(shape) + day
        positions[positions >= n] -= n
        yield positions


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], Floats],
    n: int,
    length: float,
    *,
    draws: int,
    seed: int,
) -> Floats:
    """Return `statistic` of each history (draws,); it maps positions (k, n) to values (k,)."""
    return np.concatenate([statistic(rows) for rows in resample_histories(n, length, draws, seed)])


def sharpe_interval(
    returns: Floats,
    *,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
    periods: float = TRADING_DAYS_PER_YEAR,
) -> Interval:
    """Percentile interval of the annual Sharpe ratio of returns of which a year has `periods`; nan
    where they don't vary or are fewer than `MIN_PERIODS`.
    """
    if len(returns) < MIN_PERIODS or not np.std(returns) > MIN_DEVIATION:
        return Interval(math.nan, math.nan)
    length = optimal_block_length(returns)

    def ratio(positions: npt.NDArray[np.int64]) -> Floats:
        histories = returns[positions]
        deviation = histories.std(axis=1, ddof=1)
        # A history of one repeated return has no ratio; the quantiles leave it out.
        deviation = np.where(deviation > MIN_DEVIATION, deviation, np.nan)
        ratios: Floats = histories.mean(axis=1) / deviation * math.sqrt(periods)
        return ratios

    ratios = bootstrap(ratio, len(returns), length, draws=draws, seed=seed)
    low, high = np.nanquantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def superior_predictive_ability(gains: Floats, *, seed: int, draws: int = 1000) -> float:
    """p-value of Hansen's test (2005) that no model beats the benchmark.

    `gains` (T, K) are each model's returns less the benchmark's; the null is that no column has a
    positive mean. nan where a column does not vary or there are fewer than `MIN_PERIODS` rows.
    """
    n = len(gains)
    if n < MIN_PERIODS or not (np.std(gains, axis=0) > MIN_DEVIATION).all():
        return math.nan
    length = max(optimal_block_length(column) for column in gains.T)
    scale = np.array([_long_run_deviation(column, 1 / length) for column in gains.T])
    if not (scale > MIN_DEVIATION).all():
        return math.nan
    # The statistic is studentised and its threshold the consistent one. `arch` 8.0 studentises the
    # threshold only, and loses a clear winner among noisy models.
    scores = gains.mean(axis=0) * math.sqrt(n) / scale
    is_hopeless = scores < -math.sqrt(2 * math.log(math.log(n)))
    centre = np.where(is_hopeless, 0.0, scores)

    def best_score(positions: npt.NDArray[np.int64]) -> Floats:
        best = np.full(len(positions), -np.inf)
        for k, column in enumerate(gains.T):
            resampled_scores = column[positions].mean(axis=1) * math.sqrt(n) / scale[k]
            best = np.maximum(best, resampled_scores - centre[k])
        return best

    best = bootstrap(best_score, n, length, draws=draws, seed=seed)
    return float(np.mean(best > scores.max()))


def annual_return_difference(
    ours: Floats, theirs: Floats, periods: float = TRADING_DAYS_PER_YEAR
) -> float:
    """Mean return of `ours` less that of `theirs`, times `periods` a year; nan without any."""
    return float(np.mean(ours - theirs)) * periods if len(ours) else math.nan


def return_difference_interval(
    ours: Floats,
    theirs: Floats,
    *,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
    periods: float = TRADING_DAYS_PER_YEAR,
) -> Interval:
    """Percentile interval of `annual_return_difference`, resampling both on the same bars.

    Of width 0 where the difference never varies; nan below `MIN_PERIODS` returns.
    """
    gains = ours - theirs
    if len(gains) < MIN_PERIODS:
        return Interval(math.nan, math.nan)
    if not np.std(gains) > MIN_DEVIATION:
        mean = annual_return_difference(ours, theirs, periods)
        return Interval(mean, mean)
    length = optimal_block_length(gains)
    means = _bootstrap_mean(gains, length, draws, seed) * periods
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def return_decay_interval(
    before: Floats,
    after: Floats,
    *,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
    periods: float = TRADING_DAYS_PER_YEAR,
) -> Interval:
    """Percentile interval of the mean of `before` less that of `after`, times `periods` a year.

    The two are gains on different bars, each resampled in blocks of its own; nan where one has
    fewer than `MIN_PERIODS`.
    """
    if min(len(before), len(after)) < MIN_PERIODS:
        return Interval(math.nan, math.nan)
    # Seeds of their own: equal draws would tie the two parts together.
    early, late = (
        _bootstrap_mean(gains, optimal_block_length(gains), draws, seed + offset)
        for offset, gains in enumerate((before, after))
    )
    decay = (early - late) * periods
    low, high = np.quantile(decay, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def random_entry_returns(
    bars: BarSeries, result: BacktestResult, rules: FillRules, *, seed: int, draws: int = 1000
) -> Floats:
    """Total returns (draws,) of the result's own trades entered at random bars; nan without a
    trade.

    Each draw keeps the trades' sides, sizes and holding times, one at a time. A trade goes in at an
    open and out at an open, after costs. Sizes are the fractions of equity that the trades put in.
    """
    trades = result.trades
    if trades.empty:
        return np.full(draws, math.nan)
    n, growth = len(bars), bars.adjust_to_first_bar()
    entry_bar = trades["entry_bar"].to_numpy()
    exit_bar = trades["exit_bar"].to_numpy()
    holding = np.maximum(np.where(exit_bar < 0, n, exit_bar) - entry_bar, 1)
    side = np.where(trades["side"] == "long", 1, -1)
    size = _entry_sizes(bars, result)
    # One price more than bars: a trade that is still open leaves at the last close.
    price = np.append(growth.open, growth.close[-1])
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(len(holding)), (draws, 1)), axis=1)
    holding, side, size = holding[order], side[order], size[order]
    # The idle bars are dealt out as gaps before the trades, so that no two trades overlap.
    idle = max(n - int(holding[0].sum()), 0)
    gaps = np.sort(rng.integers(0, idle + 1, size=holding.shape), axis=1)
    stop = np.minimum(gaps + np.cumsum(holding, axis=1), n)
    start = np.minimum(stop - holding, n - 1)
    entry_price = price[start] * (1 + side * rules.slippage)
    exit_price = price[stop] * (1 - side * rules.slippage)
    ratio = exit_price / entry_price
    gain = size * (side * (ratio - 1) - rules.commission * (1 + ratio))
    total: Floats = np.prod(np.maximum(1 + gain, 0.0), axis=1) - 1
    return total


def monte_carlo_p_value(observed: float, draws: Floats) -> float:
    """Share of draws at least as good as the observation; nan without draws.

    The observation counts as one of them: Davison and Hinkley, Bootstrap Methods (1997), eq. 4.11.
    """
    if not math.isfinite(observed) or np.isnan(draws).any():
        return math.nan
    return float((1 + np.sum(draws >= observed)) / (1 + len(draws)))


def cost_curve(
    bars: BarSeries, orders: Orders, rules: FillRules, commissions: Sequence[float]
) -> list[float]:
    """Total return of the orders at each commission (a fraction of every fill)."""
    return [_total_return(bars, orders, rules, commission) for commission in commissions]


def break_even_commission(bars: BarSeries, orders: Orders, rules: FillRules) -> float:
    """Commission, as a fraction of every fill, at which the orders earn nothing; `MAX_COMMISSION`
    where they gain even then, nan where they lose without any.
    """
    low, high = 0.0, MAX_COMMISSION
    if _total_return(bars, orders, rules, low) <= 0:
        return math.nan
    if _total_return(bars, orders, rules, high) > 0:
        return MAX_COMMISSION
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _total_return(bars, orders, rules, middle) > 0:
            low = middle
        else:
            high = middle
    return low


def _total_return(bars: BarSeries, orders: Orders, rules: FillRules, commission: float) -> float:
    rules = rules._replace(commission=commission)
    return float(run_orders(bars, orders, rules, cash=1.0, whole_shares=False).equity[-1] - 1.0)


def _entry_sizes(bars: BarSeries, result: BacktestResult) -> Floats:
    """Return the fraction of the equity before it that each trade put in."""
    factor = bars.growth_factor
    entry_bar = result.trades["entry_bar"].to_numpy()
    price = result.trades["entry_price"].to_numpy() * factor[entry_bar]
    units = result.trades["shares"].to_numpy() / factor[entry_bar]
    equity_before = result.equity[np.maximum(entry_bar - 1, 0)]
    sizes: Floats = units * price / equity_before
    return sizes


def _bootstrap_mean(values: Floats, length: float, draws: int, seed: int) -> Floats:
    """Return the mean (draws,) of each resampled history of `values`."""

    def mean(positions: npt.NDArray[np.int64]) -> Floats:
        means: Floats = values[positions].mean(axis=1)
        return means

    return bootstrap(mean, len(values), length, draws=draws, seed=seed)


def _long_run_deviation(gains: Floats, restart: float) -> float:
    """Root of the stationary bootstrap's own variance of the mean (Hansen 2005, eq. 5); `restart`
    is the probability that a block ends.
    """
    n, covariances = len(gains), autocovariances(gains)
    lags = np.arange(1, n)
    weights = (1 - lags / n) * (1 - restart) ** lags + lags / n * (1 - restart) ** (n - lags)
    variance = covariances[0] + 2 * float(np.sum(weights * covariances[1:]))
    return math.sqrt(max(variance, 0.0))
