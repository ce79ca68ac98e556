"""Resampled histories that keep how returns hang together in time: Politis and Romano's stationary
bootstrap (1994). Tests hold block lengths, intervals and p-values against `arch`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finagent_model.domain.bars import Floats

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
