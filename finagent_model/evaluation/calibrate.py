"""Calibration of confidence on outcomes that had closed: Platt's scaling with shrinkage while they
are few, isotonic regression once they are many.

Sources: Platt, Probabilistic Outputs for Support Vector Machines (1999); Zadrozny and Elkan,
Transforming Classifier Scores into Accurate Multiclass Probability Estimates (2002);
Niculescu-Mizil and Caruana, Predicting Good Probabilities with Supervised Learning (2005), who find
isotonic regression the better one from about a thousand cases on.

Lessons: which of the desk's closed calls it may remember.

Calls of neighbouring days tell one story. In the order in which they closed, a call is a lesson if
it was made after the lesson before it had closed: what closes later never changes what was chosen.

What calibrated confidence said of calls whose outcome is known: each by the calibration that was
in force when it was made, which had not seen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from finagent_model.market.bars import Floats
from finagent_model.policy.trained_state import Calibration, CalibrationBook, TradeOutcome, log_odds
from finagent_model.statistics.reliability import (
    brier_score,
    calibration_p_value,
    expected_calibration_error,
)

FEWEST, MANY = 30.0, 1000.0
"""Independent outcomes: for any calibration, and for an isotonic one."""
SLOPE_SPREAD = 0.5
"""Standard deviation of the slope before any outcome is known; its mean is 0: until outcomes show
that more confidence means more, all calls have the same chance.
"""


def calibrate(calls: Sequence[TradeOutcome], moments: Sequence[datetime]) -> CalibrationBook:
    """A calibration for each moment, on the calls of all symbols that had closed before it."""
    fits = [_fit([c for c in calls if c.closed_at < moment], moment) for moment in moments]
    return CalibrationBook(fits=tuple(fits))


def _fit(calls: Sequence[TradeOutcome], valid_from: datetime) -> Calibration:
    weight = np.array([call.weight for call in calls])
    effective = round(float(weight.sum()), 4)
    known = {"valid_from": valid_from, "calls": len(calls), "effective": effective}
    worth = f"{len(calls)} outcomes known, worth {effective:.0f} independent ones"
    if effective < FEWEST:
        return Calibration(method="none", reason=f"{worth}; {FEWEST:.0f} are needed", **known)
    said = np.array([call.confidence for call in calls])
    true = np.array([call.was_profitable for call in calls], dtype=np.float64)
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


def reflect(calls: Sequence[TradeOutcome]) -> tuple[TradeOutcome, ...]:
    """Of one symbol's closed calls those that don't overlap, oldest first."""
    lessons: list[TradeOutcome] = []
    for call in sorted(calls, key=lambda call: (call.closed_at, call.as_of)):
        if not lessons or call.as_of >= lessons[-1].closed_at:
            lessons.append(call)
    return tuple(lessons)


@dataclass(frozen=True, eq=False)
class ConfidenceRecord:
    """One entry a call, as fractions of one."""

    raw: Floats
    """Confidence as the desk gave it."""
    said: Floats
    """Calibrated."""
    true: Floats
    """1 where the call made money after costs."""
    weight: Floats

    def numbers(self) -> dict[str, float]:
        """Of the calibrated calls; nan where there is none. Below `FEWEST` independent ones nothing
        speaks against any confidence, so that `p_calibration` is nan too.
        """
        effective = float(self.weight.sum())
        enough = effective >= FEWEST
        base = float(np.average(self.true, weights=self.weight)) if effective else math.nan
        return {
            "calibrated_calls": float(len(self.said)),
            "calibrated_calls_effective": effective,
            "came_true": base,
            "brier": brier_score(self.said, self.true, self.weight),
            "brier_uncalibrated": brier_score(self.raw, self.true, self.weight),
            "brier_base_rate": base * (1 - base),
            "calibration_error": expected_calibration_error(self.said, self.true, self.weight),
            "calibration_error_uncalibrated": expected_calibration_error(
                self.raw, self.true, self.weight
            ),
            "p_calibration": calibration_p_value(self.said, self.true, self.weight)
            if enough
            else math.nan,
        }


def confidence_record(calls: Sequence[TradeOutcome], book: CalibrationBook) -> ConfidenceRecord:
    """Of the calls that were made with a calibrated confidence."""
    fits = [(call, book.at(call.as_of)) for call in calls]
    chosen = [(call, fit) for call, fit in fits if fit.method != "none"]
    return ConfidenceRecord(
        raw=np.array([call.confidence / 100 for call, _ in chosen]),
        said=np.array([fit.probability(call.confidence) for call, fit in chosen]),
        true=np.array([float(call.was_profitable) for call, _ in chosen]),
        weight=np.array([call.weight for call, _ in chosen]),
    )
