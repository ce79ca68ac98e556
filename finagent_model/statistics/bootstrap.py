"""Resampled histories that keep how returns hang together in time: Politis and Romano's stationary
bootstrap, by `arch`. It is imported where it is used: the import makes folders for Matplotlib.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from finagent_model.domain.bars import Floats

YEAR = 252


@dataclass(frozen=True)
class Interval:
    """Percentile interval of a statistic."""

    low: float
    high: float


def block_length(returns: Floats) -> float:
    """Mean length of blocks (Politis and White 2004, corrected 2009), at least 1; 1 where the
    returns don't vary.
    """
    if len(returns) < 10 or not np.std(returns) > 1e-12:
        return 1.0
    from arch.bootstrap import optimal_block_length

    return max(float(optimal_block_length(returns)["stationary"].iloc[0]), 1.0)


def sharpe_interval(
    returns: Floats, *, seed: int, confidence: float = 0.95, draws: int = 1000
) -> Interval:
    """Of the annual Sharpe ratio; nan where returns don't vary or are fewer than 20."""
    if len(returns) < 20 or not np.std(returns) > 1e-12:
        return Interval(math.nan, math.nan)
    from arch.bootstrap import StationaryBootstrap

    resampled = StationaryBootstrap(round(block_length(returns)), returns, seed=seed)
    low, high = resampled.conf_int(_sharpe, reps=draws, method="percentile", size=confidence)
    return Interval(float(low[0]), float(high[0]))


def superior_predictive_ability(gains: Floats, *, seed: int, draws: int = 1000) -> float:
    """p-value of Hansen's test (2005) that no column of `gains` (T, K), each a model's return less
    the benchmark's, has a positive mean; nan where nothing varies.

    The columns are scaled by their long-run deviation first: `arch` studentises the threshold but
    not the statistic, and would lose a clear winner among noisy models.
    """
    if len(gains) < 20:
        return math.nan
    length = max(block_length(column) for column in gains.T)
    scales = np.array([_long_run_deviation(column, 1 / length) for column in gains.T])
    if not (scales > 1e-12).all():
        return math.nan
    from arch.bootstrap import SPA

    test = SPA(
        np.zeros(len(gains)), -gains / scales, block_size=round(length), reps=draws, seed=seed
    )
    test.compute()
    return float(test.pvalues["consistent"])


def _sharpe(returns: Floats) -> Floats:
    ratio: Floats = np.mean(returns) / np.std(returns, ddof=1) * np.sqrt(YEAR)
    return np.atleast_1d(ratio)


def _long_run_deviation(gains: Floats, restart: float) -> float:
    """Root of the stationary bootstrap's own variance of the mean (Hansen 2005, eq. 5)."""
    n, centred = len(gains), gains - np.mean(gains)
    lags = np.arange(1, n)
    weights = (1 - lags / n) * (1 - restart) ** lags + lags / n * (1 - restart) ** (n - lags)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size)) ** 2
    covariances = np.fft.irfft(spectrum, size)[:n] / n
    variance = covariances[0] + 2 * float(np.sum(weights * covariances[1:]))
    return math.sqrt(max(variance, 0.0))
