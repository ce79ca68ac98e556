"""Calibrate confidence on closed outcomes, choose lessons, and record how honest confidence was.

`calibrate` lets three methods compete: Platt scaling, shrunk towards the base rate while outcomes
are few; isotonic regression; and the base rate itself, whatever the desk's confidence. A learned
method is served only if it beat the base rate on calls that it had not seen. `select_lessons` picks
the outcomes that a desk may remember. `build_confidence_record` collects what confidence promised
of calls whose outcome is known, each by the calibration in force when the call was made: no
look-ahead.

Sources: Platt, Probabilistic Outputs for Support Vector Machines (1999); Zadrozny and Elkan,
Transforming Classifier Scores into Accurate Multiclass Probability Estimates (2002);
Niculescu-Mizil and Caruana, Predicting Good Probabilities with Supervised Learning (2005); Dawid,
Statistical Theory: The Prequential Approach (1984), for judging forecasts on what came after them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from finagent_model.market.bars import Floats
from finagent_model.policy.trained_state import (
    HORIZON,
    NO_INFORMATION,
    Calibration,
    CalibrationBook,
    Learned,
    TradeOutcome,
    log_odds,
)
from finagent_model.statistics.reliability import (
    brier_score,
    calibration_slope,
    decompose_brier,
    expected_calibration_error,
    log_loss,
    log_losses,
    skill_interval,
    skill_score,
    squared_errors,
)
from finagent_model.statistics.resampling import Interval

MIN_OUTCOMES = 30.0
"""Independent outcomes below which nothing is calibrated."""
MIN_DISTANCE = 0.01
"""Distance from the base rate at which a learned probability says something else."""
SLOPE_SPREAD = 0.5
"""Standard deviation of the slope's prior, whose mean is 0.

Until outcomes show that more confidence means more, all calls have the same chance.
"""
Ints = npt.NDArray[np.int64]
_Loss = Callable[[Floats, Floats], Floats]
LEARNED: tuple[Learned, ...] = get_args(Learned)


@dataclass(frozen=True, eq=False)
class ConfidenceRecord:
    """Confidence beside the outcomes: arrays with one entry a call, fractions of one."""

    raw: Floats
    """Confidence as the desk gave it."""
    calibrated: Floats
    """As it was served: by a learned method, or the base rate."""
    learned: Floats
    """By the learned method that did best, served or not."""
    climatology: Floats
    """Base rate of the calls that had closed when the call was made."""
    outcome: Floats
    """1 where the call made money after costs, else 0."""
    weight: Floats
    """Independent outcomes that the call is worth, among the calls of all symbols."""
    day: Ints
    """Ordinal of the day of the call."""

    def from_day(self, first: int | None) -> ConfidenceRecord:
        """Return the calls of the day with ordinal `first` and later; None: no call at all."""
        kept = np.full(len(self.day), False) if first is None else self.day >= first
        return ConfidenceRecord(**{name: values[kept] for name, values in vars(self).items()})

    @property
    def brier_skill(self) -> float:
        """Brier skill of `learned` against the climatology; nan without calls."""
        return self._skill(squared_errors)

    def brier_skill_interval(self, *, seed: int, confidence: float = 0.95) -> Interval:
        """Return the interval of the Brier skill of `learned` against the climatology.

        nan below `MIN_OUTCOMES` independent calls of which it says something else.
        """
        return self._interval(squared_errors, seed, confidence)

    def measure(self, *, seed: int, confidence: float = 0.95) -> dict[str, float]:
        """Return the reliability statistics of the calls by name; nan where undefined.

        Skill, decomposition and slope are those of the learned method; 0 or less says that the base
        rate known at the time was as good.
        """
        outcome, weight = self.outcome, self.weight
        effective = float(weight.sum())
        base = float(np.average(outcome, weights=weight)) if effective else math.nan
        brier, logarithmic = (
            self._interval(loss, seed, confidence) for loss in (squared_errors, log_losses)
        )
        parts = decompose_brier(self.learned, outcome, weight)
        slope = calibration_slope(self.learned, outcome, weight, self.day, confidence=confidence)
        return {
            "calibrated_calls": float(len(self.calibrated)),
            "calibrated_calls_effective": effective,
            "came_true": base,
            "brier": brier_score(self.calibrated, outcome, weight),
            "brier_uncalibrated": brier_score(self.raw, outcome, weight),
            "brier_learned": brier_score(self.learned, outcome, weight),
            "brier_climatology": brier_score(self.climatology, outcome, weight),
            "brier_skill": self.brier_skill,
            "brier_skill_low": brier.low,
            "brier_skill_high": brier.high,
            "log_loss": log_loss(self.learned, outcome, weight),
            "log_skill": self._skill(log_losses),
            "log_skill_low": logarithmic.low,
            "log_skill_high": logarithmic.high,
            "brier_reliability": parts.reliability,
            "brier_resolution": parts.resolution,
            "brier_uncertainty": parts.uncertainty,
            "calibration_slope": slope.slope,
            "calibration_slope_low": slope.low,
            "calibration_slope_high": slope.high,
            "calibration_error": expected_calibration_error(self.calibrated, outcome, weight),
            "calibration_error_uncalibrated": expected_calibration_error(self.raw, outcome, weight),
        }

    def _losses(self, loss: _Loss) -> tuple[Floats, Floats]:
        return loss(self.learned, self.outcome), loss(self.climatology, self.outcome)

    def _skill(self, loss: _Loss) -> float:
        return skill_score(*self._losses(loss), self.weight)

    def _interval(self, loss: _Loss, seed: int, confidence: float) -> Interval:
        # A handful of calls that went well would pass for proof.
        if (
            self.weight[np.abs(self.learned - self.climatology) >= MIN_DISTANCE].sum()
            < MIN_OUTCOMES
        ):
            return Interval(math.nan, math.nan)
        return skill_interval(
            *self._losses(loss),
            self.weight,
            self.day,
            overlap=HORIZON,
            seed=seed,
            confidence=confidence,
        )


@dataclass(frozen=True, eq=False)
class _OutcomeTable:
    """Trade outcomes as arrays (n,), one entry a call."""

    confidence: Floats
    """Of the desk, in 0..100."""
    outcome: Floats
    """1 where the call made money after costs, else 0."""
    weight: Floats
    """Average uniqueness among the calls of its symbol."""
    made_at: Floats
    closed_at: Floats
    """Seconds since 1970."""
    start: Ints
    stop: Ints
    """Ordinals of the days on which the call was made and ended."""
    symbol: Ints
    """Number of the call's symbol."""

    @classmethod
    def from_calls(cls, calls: Sequence[TradeOutcome]) -> _OutcomeTable:
        symbols = {name: n for n, name in enumerate(dict.fromkeys(c.symbol for c in calls))}
        return cls(
            confidence=np.array([c.confidence for c in calls], dtype=np.float64),
            outcome=np.array([c.was_profitable for c in calls], dtype=np.float64),
            weight=np.array([c.weight for c in calls], dtype=np.float64),
            made_at=np.array([c.as_of.timestamp() for c in calls], dtype=np.float64),
            closed_at=np.array([c.closed_at.timestamp() for c in calls], dtype=np.float64),
            start=np.array([c.as_of.toordinal() for c in calls], dtype=np.int64),
            stop=np.array([c.closed_at.toordinal() for c in calls], dtype=np.int64),
            symbol=np.array([symbols[c.symbol] for c in calls], dtype=np.int64),
        )

    def select(self, rows: npt.NDArray[np.bool_]) -> _OutcomeTable:
        """Return the table of some of the calls."""
        return _OutcomeTable(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def odds(self) -> Floats:
        """Log odds of the desk's confidence."""
        return np.array([log_odds(score) for score in self.confidence.tolist()])

    @property
    def independent_weight(self) -> Floats:
        """Each call's share (n,), in (0, 1], of its days among the calls of all symbols.

        A call's own weight already counts the calls of its symbol that overlap it. Calls of other
        symbols are counted as if all symbols moved as one, which errs on the safe side: twenty
        banks are nearer to one outcome than to twenty.
        """
        numbers = np.unique(self.symbol)
        if len(numbers) < 2:
            return self.weight
        days = np.unique(np.concatenate([self.start, self.stop]))
        running = np.maximum(_count_running(self.start, self.stop, days), 1)
        shared = np.ones(len(self.weight))
        for number in numbers:
            rows = self.symbol == number
            start, stop = self.start[rows], self.stop[rows]
            total = np.append(0.0, np.cumsum(_count_running(start, stop, days) / running))
            # A call spans the days after it was made, up to the one that ended it.
            first = np.searchsorted(days, start, side="right")
            last = np.searchsorted(days, stop, side="right")
            shared[rows] = (total[last] - total[first]) / np.maximum(last - first, 1)
        # Differences of long cumulative sums are rounded.
        weights: Floats = self.weight * np.clip(shared, 1e-12, 1.0)
        return weights


def _count_running(start: Ints, stop: Ints, days: Ints) -> Ints:
    """Return how many calls span each of `days`."""
    begun = np.searchsorted(np.sort(start), days, side="left")
    ended: Ints = begun - np.searchsorted(np.sort(stop), days, side="left")
    return ended


def calibrate(calls: Sequence[TradeOutcome], moments: Sequence[datetime]) -> CalibrationBook:
    """Return a calibration for each moment, fitted on the calls of all symbols closed before it.

    What it serves is chosen by how each method did on calls between earlier moments, fitted without
    them. `moments` are ascending.
    """
    table = _OutcomeTable.from_calls(calls)
    fits: list[Calibration] = []
    for moment in moments:
        # A call is known once it has closed, not when it is made: its outcome would be look-ahead.
        known = table.select(table.closed_at < moment.timestamp())
        fits.append(_choose(_fit(known, moment), known, fits))
    return CalibrationBook(fits=tuple(fits))


def _fit(table: _OutcomeTable, valid_from: datetime) -> Calibration:
    """Return the calibration of closed calls with every method fitted; it serves the base rate."""
    weight, count = table.independent_weight, len(table.outcome)
    # Calls that overlap share their news: only the sum of their weights counts as evidence.
    effective = round(float(weight.sum()), 4)
    common = {"valid_from": valid_from, "calls": count, "effective": effective}
    reason = f"{count} outcomes known, worth {effective:.0f} independent ones"
    if effective < MIN_OUTCOMES:
        return Calibration(
            method="none", reason=f"{reason}; {MIN_OUTCOMES:.0f} are needed", **common
        )
    slope, intercept = fit_platt(table.odds, table.outcome, weight)
    return Calibration(
        method="base_rate",
        reason=reason,
        # Laplace's rule: a share of 0 or 1 would be a certainty.
        base_rate=round(float((weight @ table.outcome + 1) / (weight.sum() + 2)), 6),
        slope=slope,
        intercept=intercept,
        knots=_fit_isotonic(table.confidence / 100, table.outcome, weight),
        **common,
    )


def _choose(
    fit: Calibration, known: _OutcomeTable, past_fits: Sequence[Calibration]
) -> Calibration:
    """Return `fit` with the method that it serves: a learned one with skill on past folds, or the
    base rate.
    """
    if fit.method == "none":
        return fit
    records = {method: _record(known, past_fits, method) for method in LEARNED}
    # Undefined before there were calls to judge on.
    skills = {method: record.brier_skill for method, record in records.items()}
    candidate = max(LEARNED, key=lambda method: np.nan_to_num(skills[method], nan=-np.inf))
    skill, record = skills[candidate], records[candidate]
    # A skill that is not above 0 has no lower bound above it.
    low = record.brier_skill_interval(seed=1).low if skill > 0 else math.nan
    reason = fit.reason if low > 0 else f"{fit.reason}; {NO_INFORMATION}"
    if math.isfinite(skill):
        reason += (
            f"; {candidate} had a Brier skill of {skill:+.3f} on {len(record.day)} later calls"
        )
    chosen = {"candidate": candidate, "reason": reason}
    return fit.model_copy(update=chosen | ({"method": candidate} if low > 0 else {}))


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


def build_confidence_record(
    calls: Sequence[TradeOutcome], book: CalibrationBook
) -> ConfidenceRecord:
    """Return the record of those calls that were made with a calibrated confidence."""
    candidate = book.fits[-1].candidate or LEARNED[0]
    return _record(_OutcomeTable.from_calls(calls), book.fits, candidate)


def _record(
    table: _OutcomeTable, fits: Sequence[Calibration], candidate: Learned
) -> ConfidenceRecord:
    """Return the record of the calls made under `fits`, with `candidate` as the learned method."""
    # Each call's fit is the newest at its moment, so that no calibration has seen its outcome.
    starts = np.array([fit.valid_from.timestamp() for fit in fits])
    number = np.searchsorted(starts, table.made_at, side="right") - 1
    served, learned, climatology = np.full((3, len(number)), math.nan)
    for n, fit in enumerate(fits):
        rows = np.flatnonzero(number == n)
        if fit.method == "none" or not len(rows):
            continue
        scores = table.confidence[rows].tolist()
        learned[rows] = [fit.learned(candidate, score) for score in scores]
        served[rows] = [fit.probability(score) for score in scores]
        climatology[rows] = math.nan if fit.base_rate is None else fit.base_rate
    rows = ~np.isnan(served)
    return ConfidenceRecord(
        raw=table.confidence[rows] / 100,
        calibrated=served[rows],
        learned=learned[rows],
        climatology=climatology[rows],
        outcome=table.outcome[rows],
        weight=table.independent_weight[rows],
        day=table.start[rows],
    )
