"""Calibrate confidence on closed outcomes, choose lessons, and record how honest confidence was.

`calibrate` fits Platt scaling, shrunk towards the base rate while outcomes are few, and isotonic
regression once there are many. `select_lessons` picks the outcomes that a desk may remember.
`build_confidence_record` collects what calibrated confidence promised of calls whose outcome is
known, each by the calibration in force when the call was made: no look-ahead.

Sources: Platt, Probabilistic Outputs for Support Vector Machines (1999); Zadrozny and Elkan,
Transforming Classifier Scores into Accurate Multiclass Probability Estimates (2002);
Niculescu-Mizil and Caruana, Predicting Good Probabilities with Supervised Learning (2005), who find
isotonic regression the better one from about a thousand cases on.
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

MIN_OUTCOMES = 30.0
"""Independent outcomes below which nothing is calibrated."""
MIN_ISOTONIC_OUTCOMES = 1000.0
"""Independent outcomes from which isotonic regression replaces Platt scaling."""
SLOPE_SPREAD = 0.5
"""Standard deviation of the slope's prior, whose mean is 0.

Until outcomes show that more confidence means more, all calls have the same chance.
"""


def calibrate(calls: Sequence[TradeOutcome], moments: Sequence[datetime]) -> CalibrationBook:
    """Return a calibration for each moment, fitted on the calls of all symbols closed before it."""
    # A call is known once it has closed, not when it is made: its outcome would be look-ahead.
    fits = [_fit([c for c in calls if c.closed_at < moment], moment) for moment in moments]
    return CalibrationBook(fits=tuple(fits))


def _fit(calls: Sequence[TradeOutcome], valid_from: datetime) -> Calibration:
    """Return the calibration of closed calls, with its method chosen by their number."""
    weight = np.array([call.weight for call in calls])
    # Calls that overlap share their news: only the sum of their weights counts as evidence.
    effective = round(float(weight.sum()), 4)
    common = {"valid_from": valid_from, "calls": len(calls), "effective": effective}
    reason = f"{len(calls)} outcomes known, worth {effective:.0f} independent ones"
    if effective < MIN_OUTCOMES:
        return Calibration(
            method="none", reason=f"{reason}; {MIN_OUTCOMES:.0f} are needed", **common
        )
    confidence = np.array([call.confidence for call in calls])
    outcome = np.array([call.was_profitable for call in calls], dtype=np.float64)
    if effective >= MIN_ISOTONIC_OUTCOMES:
        knots = _fit_isotonic(confidence / 100, outcome, weight)
        return Calibration(method="isotonic", reason=reason, knots=knots, **common)
    odds = np.array([log_odds(score) for score in confidence])
    slope, intercept = fit_platt(odds, outcome, weight)
    return Calibration(method="platt", reason=reason, slope=slope, intercept=intercept, **common)


def fit_platt(odds: Floats, outcome: Floats, weight: Floats) -> tuple[float, float]:
    """Return slope (never negative) and intercept of the log odds of a profitable call.

    The maximum of the posterior: Platt's smoothed targets, and a normal prior on the slope. All
    arrays have one entry a call.
    """
    positive = float(weight @ outcome)
    negative = float(weight.sum()) - positive
    # Platt's targets stay off 0 and 1: a perfect record must not drive the slope to infinity.
    target = np.where(outcome > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, intercept = parameters
        z = slope * odds + intercept
        # logaddexp, not log(1 + exp(z)): z may be large.
        value = weight @ (np.logaddexp(0.0, z) - target * z) + 0.5 * (slope / SLOPE_SPREAD) ** 2
        error = weight * (expit(z) - target)
        return float(value), np.array([error @ odds + slope / SLOPE_SPREAD**2, error.sum()])

    # A negative slope would rank the desk's own confidence upside down: that is never claimed.
    optimum = minimize(loss, np.zeros(2), jac=True, bounds=[(0.0, None), (None, None)])
    # Rounded: platforms differ in the last digits, and packages are compared by hash.
    slope, intercept = (round(float(value), 6) for value in optimum.x)
    return slope, intercept


def _fit_isotonic(
    confidence: Floats, outcome: Floats, weight: Floats
) -> tuple[tuple[float, float], ...]:
    """Return the steps of a weighted isotonic regression as knots (confidence, probability).

    No step is surer than Laplace's rule allows for the number of outcomes that it rests on.
    """
    levels, level_of = np.unique(confidence, return_inverse=True)
    mass = np.bincount(level_of, weight)
    rate = np.bincount(level_of, weight * outcome) / mass
    regression = isotonic_regression(rate, weights=mass)
    blocks, knots = regression.blocks, []
    for start, stop in pairwise(blocks.tolist()):
        block_mass = float(mass[start:stop].sum())
        share = (float(regression.x[start]) * block_mass + 1) / (block_mass + 2)
        knots += [(float(levels[start]), share), (float(levels[stop - 1]), share)]
    # Laplace's rule pulls small blocks harder than large ones, which may break the order.
    shares = np.maximum.accumulate([share for _, share in knots])
    return tuple(
        (round(level, 6), round(float(s), 6)) for (level, _), s in zip(knots, shares, strict=True)
    )


def select_lessons(calls: Sequence[TradeOutcome]) -> tuple[TradeOutcome, ...]:
    """Return those of one symbol's closed calls that don't overlap, oldest first."""
    # Calls of neighbouring days tell one story. Taken in the order in which they closed, so that
    # a call that closes later never changes which lessons were chosen before.
    lessons: list[TradeOutcome] = []
    for call in sorted(calls, key=lambda call: (call.closed_at, call.as_of)):
        if not lessons or call.as_of >= lessons[-1].closed_at:
            lessons.append(call)
    return tuple(lessons)


@dataclass(frozen=True, eq=False)
class ConfidenceRecord:
    """Calibrated confidence beside the outcomes: arrays with one entry a call, fractions of one."""

    raw: Floats
    """Confidence as the desk gave it."""
    calibrated: Floats
    outcome: Floats
    """1 where the call made money after costs, else 0."""
    weight: Floats

    def measure(self) -> dict[str, float]:
        """Return the reliability statistics of the calibrated calls by name; nan without calls.

        `p_calibration` is nan below `MIN_OUTCOMES` independent calls too.
        """
        effective = float(self.weight.sum())
        # With few calls the test refutes nothing, which would pass for proof.
        is_testable = effective >= MIN_OUTCOMES
        base = float(np.average(self.outcome, weights=self.weight)) if effective else math.nan
        return {
            "calibrated_calls": float(len(self.calibrated)),
            "calibrated_calls_effective": effective,
            "came_true": base,
            "brier": brier_score(self.calibrated, self.outcome, self.weight),
            "brier_uncalibrated": brier_score(self.raw, self.outcome, self.weight),
            "brier_base_rate": base * (1 - base),
            "calibration_error": expected_calibration_error(
                self.calibrated, self.outcome, self.weight
            ),
            "calibration_error_uncalibrated": expected_calibration_error(
                self.raw, self.outcome, self.weight
            ),
            "p_calibration": calibration_p_value(self.calibrated, self.outcome, self.weight)
            if is_testable
            else math.nan,
        }


def build_confidence_record(
    calls: Sequence[TradeOutcome], book: CalibrationBook
) -> ConfidenceRecord:
    """Return the record of those calls that were made with a calibrated confidence."""
    # The book is read at the moment of each call, so that no calibration has seen its outcome.
    fits = [(call, book.at(call.as_of)) for call in calls]
    chosen = [(call, fit) for call, fit in fits if fit.method != "none"]
    return ConfidenceRecord(
        raw=np.array([call.confidence / 100 for call, _ in chosen]),
        calibrated=np.array([fit.probability(call.confidence) for call, fit in chosen]),
        outcome=np.array([float(call.was_profitable) for call, _ in chosen]),
        weight=np.array([call.weight for call, _ in chosen]),
    )
