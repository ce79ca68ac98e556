"""Does confidence mean what it says? Stated probabilities held against what came true.

Sources: Brier, Verification of Forecasts Expressed in Terms of Probability (1950); Naeini, Cooper
and Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015) for the
expected calibration error; Cox, Two Further Applications of a Model for Binary Regression (1958)
for the test. Weights are average uniqueness: overlapping outcomes count as what they are worth.
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
class Bin:
    """One tenth of the scale that was used."""

    said: float
    """Mean stated probability."""
    true: float
    """Share that came true."""
    weight: float
    """Independent outcomes."""


def brier_score(said: Floats, true: Floats, weight: Floats) -> float:
    """Weighted mean squared error of stated probabilities: 0 is perfect, 0.25 is always saying a
    half; nan without any.
    """
    return float(np.average((said - true) ** 2, weights=weight)) if len(said) else math.nan


def reliability_bins(said: Floats, true: Floats, weight: Floats) -> tuple[Bin, ...]:
    """Tenths of the scale from 0 to 1, those that were used."""
    which = np.minimum((said * BINS).astype(int), BINS - 1)
    found = []
    for b in np.unique(which):
        here = which == b
        mean = [float(np.average(values[here], weights=weight[here])) for values in (said, true)]
        found.append(Bin(mean[0], mean[1], float(weight[here].sum())))
    return tuple(found)


def expected_calibration_error(said: Floats, true: Floats, weight: Floats) -> float:
    """Mean distance of stated and true shares over the bins, weighted; nan without any."""
    bins = reliability_bins(said, true, weight)
    total = sum(b.weight for b in bins)
    return sum(b.weight * abs(b.said - b.true) for b in bins) / total if bins else math.nan


def calibration_p_value(said: Floats, true: Floats, weight: Floats) -> float:
    """Of the hypothesis that what was said is the truth: likelihood ratio against log odds that are
    shifted and stretched, two degrees of freedom; nan without any. Raises ValueError for a stated
    probability of 0 or 1, which no outcome could refute by degrees.
    """
    if not len(said):
        return math.nan
    if not ((said > 0) & (said < 1)).all():
        raise ValueError("a stated probability of 0 or 1 can't be tested")
    odds = logit(said)

    def loss(at: Floats) -> tuple[float, Floats]:
        z = at[0] + at[1] * odds
        error = weight * (expit(z) - true)
        gradient = np.array([error.sum(), error @ odds])
        return float(weight @ (np.logaddexp(0.0, z) - true * z)), gradient

    honest, _ = loss(np.array([0.0, 1.0]))
    best = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=[(-20, 20), (-20, 20)])
    return float(chi2.sf(max(2 * (honest - best.fun), 0.0), df=2))
