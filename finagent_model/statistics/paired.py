"""How two histories of returns over the same days differ, and how far that may be chance."""

from __future__ import annotations

import math

import numpy as np

from finagent_model.domain.bars import Floats
from finagent_model.statistics.bootstrap import FEWEST, STILL, Interval, block_length, resampled

YEAR = 252


def annual_difference(ours: Floats, theirs: Floats) -> float:
    """Mean daily return of `ours` less that of `theirs`, times 252; nan without days."""
    return float(np.mean(ours - theirs)) * YEAR if len(ours) else math.nan


def difference_interval(
    ours: Floats, theirs: Floats, *, seed: int, confidence: float = 0.95, draws: int = 1000
) -> Interval:
    """Percentile interval of `annual_difference` by the stationary bootstrap of the paired days;
    (0, 0) where they never differ, nan below `FEWEST` days.
    """
    gains = ours - theirs
    if len(gains) < FEWEST:
        return Interval(math.nan, math.nan)
    if not np.std(gains) > STILL:
        mean = annual_difference(ours, theirs)
        return Interval(mean, mean)
    positions = resampled(len(gains), block_length(gains), draws, seed)
    means = gains[positions].mean(axis=1) * YEAR
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
