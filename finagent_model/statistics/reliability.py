"""Measure whether stated probabilities are calibrated: do 60 % calls come true 60 % of the time?

`probability`, `outcome` (1 came true, 0 did not) and `weight` are arrays (n,). Weights are average
uniqueness: overlapping outcomes count as what they are worth. Undefined is nan. Sources: Brier,
Verification of Forecasts Expressed in Terms of Probability (1950); Murphy, A New Vector Partition
of the Probability Score (1973); Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated
Probabilities Using Bayesian Binning (2015) for the expected calibration error; Cox, Two Further
Applications of a Model for Binary Regression (1958) for the slope; Gneiting and Raftery, Strictly
Proper Scoring Rules (2007) for skill scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from finagent_model.backtesting.metrics import MIN_DEVIATION
from finagent_model.market.bars import Floats
from finagent_model.statistics.autocorrelation import long_run_variance
from finagent_model.statistics.resampling import (
    MIN_PERIODS,
    Interval,
    bootstrap,
    optimal_block_length,
)

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
    return float(np.average(squared_errors(probability, outcome), weights=weight))


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


def wilson_interval(share: float, count: float, confidence: float = 0.95) -> Interval:
    """Return Wilson's interval (1927) of a probability whose `share` of `count` independent
    outcomes came true; `count` may be a sum of weights. nan without any.
    """
    if not count > 0:
        return Interval(math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    scale = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0))


def expected_calibration_error(probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Weighted mean distance of stated probability and share over the bins; nan without any."""
    bins = reliability_bins(probability, outcome, weight)
    total = sum(b.weight for b in bins)
    if not bins:
        return math.nan
    return sum(b.weight * abs(b.probability - b.outcome) for b in bins) / total


def log_loss(probability: Floats, outcome: Floats, weight: Floats) -> float:
    """Weighted mean of minus the log of the probability of what happened; nan without any."""
    if not len(probability):
        return math.nan
    return float(np.average(log_losses(probability, outcome), weights=weight))


@dataclass(frozen=True)
class MurphyDecomposition:
    """Parts of a Brier score: reliability - resolution + uncertainty, up to the spread in bins."""

    reliability: float
    """Mean squared distance of stated probability and share; 0 is perfect."""
    resolution: float
    """Mean squared distance of the bins' shares from the overall share; 0 tells calls not apart."""
    uncertainty: float
    """Brier score of always saying the overall share."""


def decompose_brier(probability: Floats, outcome: Floats, weight: Floats) -> MurphyDecomposition:
    """Return Murphy's decomposition (1973) over `reliability_bins`; all nan without any."""
    bins = reliability_bins(probability, outcome, weight)
    if not bins:
        return MurphyDecomposition(math.nan, math.nan, math.nan)
    mass = np.array([b.weight for b in bins])
    stated, share = (np.array([getattr(b, n) for b in bins]) for n in ("probability", "outcome"))
    overall = float(np.average(share, weights=mass))
    return MurphyDecomposition(
        reliability=float(np.average((stated - share) ** 2, weights=mass)),
        resolution=float(np.average((share - overall) ** 2, weights=mass)),
        uncertainty=overall * (1 - overall),
    )


def skill_score(losses: Floats, reference_losses: Floats, weight: Floats) -> float:
    """Return 1 minus weighted losses over those of the reference forecast; nan without any.

    1 is perfect, 0 no better than the reference, and below 0 worse.
    """
    reference = float(weight @ reference_losses)
    return 1 - float(weight @ losses) / reference if reference > 0 else math.nan


def skill_interval(
    losses: Floats,
    reference_losses: Floats,
    weight: Floats,
    day: npt.NDArray[np.int64],
    *,
    overlap: int,
    seed: int,
    confidence: float = 0.95,
    draws: int = 1000,
) -> Interval:
    """Percentile interval of `skill_score`; whole days are resampled.

    All outcomes of a day stay together, and days come in blocks, since outcomes of `overlap` days
    share their bars. nan below `MIN_PERIODS` days, and where both forecasts are the same.
    """
    days, day_of = np.unique(day, return_inverse=True)
    gain = _sum_by_day(day_of, weight * (reference_losses - losses))
    total = _sum_by_day(day_of, weight * reference_losses)
    if len(days) < MIN_PERIODS or not np.abs(reference_losses - losses).max() > 0:
        return Interval(math.nan, math.nan)
    length = max(2.0 * overlap, optimal_block_length(gain))

    def score(positions: npt.NDArray[np.int64]) -> Floats:
        sums = total[positions].sum(axis=1)
        # A history whose reference never errs has no skill score; the quantiles leave it out.
        scores: Floats = gain[positions].sum(axis=1) / np.where(sums > 0, sums, np.nan)
        return scores

    scores = bootstrap(score, len(days), length, draws=draws, seed=seed)
    low, high = np.nanquantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class CalibrationSlope:
    """By how much stated log odds must be stretched to fit the outcomes; 1 is calibrated.

    0 says that the stated probabilities tell nothing apart.
    """

    slope: float
    low: float
    high: float


def calibration_slope(
    probability: Floats,
    outcome: Floats,
    weight: Floats,
    day: npt.NDArray[np.int64],
    *,
    confidence: float = 0.95,
) -> CalibrationSlope:
    """Return Cox's slope of the outcomes on the stated log odds, with a two-sided HAC interval.

    Errors are correlated within a day and between days. nan below `MIN_PERIODS` days and where the
    stated probabilities or the outcomes don't vary. Raises ValueError for a stated probability of 0
    or 1.
    """
    undefined = CalibrationSlope(math.nan, math.nan, math.nan)
    # The log odds of a certainty are infinite.
    if len(probability) and not ((probability > 0) & (probability < 1)).all():
        raise ValueError("a stated probability of 0 or 1 has no finite odds")
    days, day_of = np.unique(day, return_inverse=True)
    if len(days) < MIN_PERIODS or not np.std(probability) > MIN_DEVIATION or len(set(outcome)) < 2:
        return undefined
    design = np.column_stack([np.ones(len(probability)), logit(probability)])

    def loss(at: Floats) -> tuple[float, Floats]:
        z = design @ at
        value = float(weight @ (np.logaddexp(0.0, z) - outcome * z))
        return value, design.T @ (weight * (expit(z) - outcome))

    fit = minimize(loss, np.array([0.0, 1.0]), jac=True, bounds=[(-20, 20), (-20, 20)])
    stated = expit(design @ fit.x)
    information = design.T @ (design * (weight * stated * (1 - stated))[:, None])
    if not np.linalg.cond(information) < 1e12:
        return undefined
    scores = weight * (outcome - stated) * (design @ np.linalg.inv(information)[1])
    # Sums by day: calls of several symbols on one day share its news.
    variance = long_run_variance(_sum_by_day(day_of, scores)) * len(days)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(variance)
    slope = float(fit.x[1])
    return CalibrationSlope(slope, slope - reach, slope + reach)


def squared_errors(probability: Floats, outcome: Floats) -> Floats:
    """Return each call's squared error (n,), whose mean is the Brier score."""
    errors: Floats = (probability - outcome) ** 2
    return errors


def log_losses(probability: Floats, outcome: Floats) -> Floats:
    """Return minus the log of the probability (n,) of what happened; inf for a wrong certainty."""
    losses: Floats = -np.log(np.where(outcome > 0, probability, 1 - probability))
    return losses


def _sum_by_day(day_of: npt.NDArray[np.int64], values: Floats) -> Floats:
    """Return the sum of `values` on each day, by the day's number."""
    return np.bincount(day_of, values).astype(np.float64)
