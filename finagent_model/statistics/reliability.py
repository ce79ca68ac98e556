"""Measure whether stated probabilities are calibrated: do 60 % calls come true 60 % of the time?

`probability`, `outcome` (1 came true, 0 did not) and `weight` are arrays (n,). Weights are average
uniqueness: overlapping outcomes count as what they are worth. Undefined is nan. Sources: Brier,
Verification of Forecasts Expressed in Terms of Probability (1950); Naeini, Cooper and Hauskrecht,
Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015) for the expected calibration
error; Cox, Two Further Applications of a Model for Binary Regression (1958) for the test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import chi2

from finagent_model.market.bars import Floats

BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """One tenth of the probability scale, with the outcomes that fell into it."""

    probability: float
    """Mean stated probability."""
    outcome: float
    """Share that came true."""
    weight: float
    """Independent outcomes."""


def brier_score(probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Weighted mean squared error of stated probabilities; nan without any.

    0 is perfect, 0.25 is always saying a half.
    """
    if not len(probability):
        return math.nan
    return float(np.average((probability - outcome) ** 2, weights=weight))


def reliability_bins(
    probability: Floats, outcome: Floats, weight: Floats
) -> tuple[ReliabilityBin, ...]:
    """Group outcomes by tenths of stated probability, lowest first; empty tenths are left out."""
    # A probability of exactly 1 belongs to the last tenth.
    which = np.minimum((probability * BINS).astype(int), BINS - 1)
    bins = []
    for number in np.unique(which):
        rows = which == number
        bins.append(
            ReliabilityBin(
                probability=float(np.average(probability[rows], weights=weight[rows])),
                outcome=float(np.average(outcome[rows], weights=weight[rows])),
                weight=float(weight[rows].sum()),
            )
        )
    return tuple(bins)


def expected_calibration_error(probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Weighted mean distance of stated probability and share over the bins; nan without any."""
    bins = reliability_bins(probability, outcome, weight)
    total = sum(b.weight for b in bins)
    if not bins:
        return math.nan
    return sum(b.weight * abs(b.probability - b.outcome) for b in bins) / total


def calibration_p_value(probability: Floats, outcome: Floats, weight: Floats) -> float:
    """p-value of the hypothesis that stated probabilities are the true ones; nan without any.

    A likelihood ratio test against log odds that are shifted and stretched, two degrees of freedom.
    Raises ValueError for a stated probability of 0 or 1.
    """
    if not len(probability):
        return math.nan
    # One contrary outcome would make the likelihood of a certainty zero: the test can't grade it.
    if not ((probability > 0) & (probability < 1)).all():
        raise ValueError("a stated probability of 0 or 1 can't be tested")
    log_odds = logit(probability)

    def loss(at: Floats) -> tuple[float, Floats]:
        z = at[0] + at[1] * log_odds
        error = weight * (expit(z) - outcome)
        gradient = np.array([error.sum(), error @ log_odds])
        return float(weight @ (np.logaddexp(0.0, z) - outcome * z)), gradient

    # Shift 0 and stretch 1 are the stated probabilities themselves.
    stated_loss, _ = loss(np.array([0.0, 1.0]))
    fit = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=[(-20, 20), (-20, 20)])
    return float(chi2.sf(max(2 * (stated_loss - fit.fun), 0.0), df=2))
