"""Estimate how much autocorrelation changes the variance of a mean.

Heteroskedasticity and autocorrelation consistent (HAC). Sources: Newey and West, A Simple, Positive
Semi-Definite, Heteroskedasticity and Autocorrelation Consistent Covariance Matrix (1987); Andrews,
Heteroskedasticity and Autocorrelation Consistent Covariance Matrix Estimation (1991) for the
bandwidth. Tests hold the estimate against `arch`.
"""

from __future__ import annotations

import math

import numpy as np

from finagent_model.market.bars import Floats


def autocovariances(values: Floats) -> Floats:
    """Return the autocovariances at lags 0, 1, ... n - 1, all divided by n."""
    n = len(values)
    # By the Wiener-Khinchin theorem; zero padding keeps the ends from wrapping into each other.
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(values - values.mean(), size)) ** 2
    covariances: Floats = np.fft.irfft(spectrum, size)[:n] / n
    return covariances


def long_run_variance(values: Floats) -> float:
    """Return n times the variance of the mean of `values` (n,); nan below two values.

    Bartlett's kernel with Andrews' bandwidth for a first-order autoregression. It equals the
    variance (ddof 0) where neighbours are not correlated.
    """
    n = len(values)
    if n < 2:
        return math.nan
    covariances = autocovariances(values)
    if not covariances[0] > 0:
        return 0.0
    bandwidth = bartlett_bandwidth(covariances)
    lags = np.arange(1, min(int(bandwidth), n - 1) + 1)
    weights = 1 - lags / (bandwidth + 1)
    return float(covariances[0] + 2 * np.sum(weights * covariances[lags]))


def bartlett_bandwidth(covariances: Floats) -> float:
    """Return Andrews' bandwidth (1991, eq. 6.2 and 6.4) from autocovariances at lags 0 to n - 1."""
    ratio = float(np.clip(covariances[1] / covariances[0], -0.97, 0.97))
    growth = 4 * ratio**2 / (1 - ratio**2) ** 2
    bandwidth: float = 1.1447 * (growth * len(covariances)) ** (1 / 3)
    return bandwidth
