"""The variance of a mean of values that hang together in time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finagent_model.market.bars import Floats
from finagent_model.statistics.autocorrelation import (
    autocovariances,
    bartlett_bandwidth,
    long_run_variance,
)


def autoregressive(ratio: float, n: int = 1500, seed: int = 0) -> Floats:
    noise = np.random.default_rng(seed).standard_normal(n)
    for t in range(1, n):
        noise[t] += ratio * noise[t - 1]
    return noise


@pytest.mark.parametrize("ratio", [-0.4, 0.0, 0.5])
def test_long_run_variance_equals_arch(ratio: float) -> None:
    from arch.covariance.kernel import Bartlett

    values = autoregressive(ratio)
    bandwidth = bartlett_bandwidth(autocovariances(values))
    theirs = Bartlett(values, bandwidth=bandwidth, center=True).cov.long_run
    assert long_run_variance(values) == pytest.approx(float(np.squeeze(theirs)))


def test_long_run_variance_of_first_order_autoregression() -> None:
    # 1 / (1 - ratio)^2 of unit shocks.
    estimates = [long_run_variance(autoregressive(0.3, 4000, seed)) for seed in range(10)]
    assert np.mean(estimates) == pytest.approx(1 / 0.7**2, rel=0.08)


def test_long_run_variance_of_few_or_equal_values() -> None:
    assert math.isnan(long_run_variance(np.array([1.0])))
    assert long_run_variance(np.zeros(50)) == 0
