"""Calibration of confidence on outcomes that had closed: Platt's scaling with shrinkage while they
are few, isotonic regression once they are many.

Sources: Platt, Probabilistic Outputs for Support Vector Machines (1999); Zadrozny and Elkan,
Transforming Classifier Scores into Accurate Multiclass Probability Estimates (2002);
Niculescu-Mizil and Caruana, Predicting Good Probabilities with Supervised Learning (2005), who find
isotonic regression the better one from about a thousand cases on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from finagent_model.domain.bars import Floats
from finagent_model.domain.calibration import Calibration, CalibrationBook, log_odds
from finagent_model.domain.closed_call import ClosedCall

FEWEST, MANY = 30.0, 1000.0
"""Independent outcomes: for any calibration, and for an isotonic one."""
SLOPE_SPREAD = 0.5
"""Standard deviation of the slope before any outcome is known; its mean is 0: until outcomes show
that more confidence means more, all calls have the same chance.
"""


def calibrate(calls: Sequence[ClosedCall], moments: Sequence[datetime]) -> CalibrationBook:
    """A calibration for each moment, on the calls of all symbols that had closed before it."""
    fits = [_fit([c for c in calls if c.closed_at < moment], moment) for moment in moments]
    return CalibrationBook(fits=tuple(fits))


def _fit(calls: Sequence[ClosedCall], valid_from: datetime) -> Calibration:
    weight = np.array([call.weight for call in calls])
    effective = round(float(weight.sum()), 4)
    known = {"valid_from": valid_from, "calls": len(calls), "effective": effective}
    worth = f"{len(calls)} outcomes known, worth {effective:.0f} independent ones"
    if effective < FEWEST:
        return Calibration(method="none", reason=f"{worth}; {FEWEST:.0f} are needed", **known)
    said = np.array([call.confidence for call in calls])
    true = np.array([call.came_true for call in calls], dtype=np.float64)
    if effective >= MANY:
        knots = _isotonic(said / 100, true, weight)
        return Calibration(method="isotonic", reason=worth, knots=knots, **known)
    slope, intercept = platt(np.array([log_odds(s) for s in said]), true, weight)
    return Calibration(method="platt", reason=worth, slope=slope, intercept=intercept, **known)


def platt(odds: Floats, true: Floats, weight: Floats) -> tuple[float, float]:
    """Slope (never negative) and intercept of the log odds of coming true, at the maximum of the
    posterior: Platt's smoothed targets, and a normal prior on the slope.
    """
    positive = float(weight @ true)
    negative = float(weight.sum()) - positive
    target = np.where(true > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(at: Floats) -> tuple[float, Floats]:
        slope, intercept = at
        z = slope * odds + intercept
        lost = weight @ (np.logaddexp(0.0, z) - target * z) + 0.5 * (slope / SLOPE_SPREAD) ** 2
        error = weight * (expit(z) - target)
        return float(lost), np.array([error @ odds + slope / SLOPE_SPREAD**2, error.sum()])

    found = minimize(loss, np.zeros(2), jac=True, bounds=[(0.0, None), (None, None)])
    slope, intercept = (round(float(value), 6) for value in found.x)
    return slope, intercept


def _isotonic(said: Floats, true: Floats, weight: Floats) -> tuple[tuple[float, float], ...]:
    """Steps of the weighted isotonic regression as knots; no step is surer than Laplace's rule
    allows for as many outcomes as it rests on.
    """
    levels, which = np.unique(said, return_inverse=True)
    mass = np.bincount(which, weight)
    rate = np.bincount(which, weight * true) / mass
    found = isotonic_regression(rate, weights=mass)
    blocks, knots = found.blocks, []
    for start, stop in pairwise(blocks.tolist()):
        rests_on = float(mass[start:stop].sum())
        share = (float(found.x[start]) * rests_on + 1) / (rests_on + 2)
        knots += [(float(levels[start]), share), (float(levels[stop - 1]), share)]
    shares = np.maximum.accumulate([share for _, share in knots])
    return tuple(
        (round(level, 6), round(float(s), 6)) for (level, _), s in zip(knots, shares, strict=True)
    )
