"""How sure a Sharpe ratio is, given how long it was observed and how many were tried.

Ratios are per period (a daily ratio of daily returns) and kurtosis is Pearson's (3 for a normal).
Sources: Lo, The Statistics of Sharpe Ratios (2002); Bailey and Lopez de Prado, The Sharpe Ratio
Efficient Frontier (2012) and The Deflated Sharpe Ratio (2014); Bailey, Borwein, Lopez de Prado and
Zhu, Pseudo-Mathematics and Financial Charlatanism (2014). Tests hold each against the numbers that
those papers print.

How often the best of many in one half of history is below the median in the other half.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from finagent_model.market.bars import Floats

EULER = 0.5772156649015329
NAN = math.nan
NORMAL = NormalDist()


@dataclass(frozen=True)
class Moments:
    """Of returns per period; population moments (ddof 0), as the papers' formulas take them."""

    sharpe: float
    skew: float
    kurtosis: float
    count: int

    @classmethod
    def of(cls, returns: Floats) -> Moments:
        """nan where the returns don't vary."""
        spread = float(np.std(returns)) if len(returns) else 0.0
        if not spread > 1e-12:
            return cls(NAN, NAN, NAN, len(returns))
        scaled = (returns - np.mean(returns)) / spread
        return cls(
            sharpe=float(np.mean(returns)) / spread,
            skew=float(np.mean(scaled**3)),
            kurtosis=float(np.mean(scaled**4)),
            count=len(returns),
        )

    @property
    def _variance(self) -> float:
        """Of the estimated ratio, times the number of periods; 0 is a limit that may be reached."""
        spread = 1 - self.skew * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2
        return max(spread, 0.0)

    def probabilistic(self, benchmark: float = 0.0) -> float:
        """Probability that the true ratio exceeds `benchmark` (PSR, 2012); nan below two."""
        if self.count < 2 or not self._variance > 0:
            return NAN
        distance = (self.sharpe - benchmark) * math.sqrt(self.count - 1)
        return NORMAL.cdf(distance / math.sqrt(self._variance))

    def minimum_track_record(self, benchmark: float = 0.0, confidence: float = 0.95) -> float:
        """Periods after which PSR reaches `confidence` (MinTRL, 2012); nan where the ratio does not
        exceed `benchmark`: no length would do.
        """
        if not self.sharpe > benchmark:
            return NAN
        quantile = NORMAL.inv_cdf(confidence)
        return 1 + self._variance * (quantile / (self.sharpe - benchmark)) ** 2

    def deflated(self, trials: int, variance: float) -> float:
        """PSR against the best ratio that `trials` without any merit would show (DSR, 2014);
        `variance` of the trials' ratios, per period.
        """
        return self.probabilistic(math.sqrt(variance) * expected_maximum(trials))


def expected_maximum(trials: int) -> float:
    """Expected largest of so many independent standard normals (2014, Proposition 1); 0 for one."""
    if trials < 1:
        raise ValueError(f"{trials} trials: something must have been tried")
    if trials == 1:
        return 0.0
    one, other = 1 - 1 / trials, 1 - 1 / (trials * math.e)
    return (1 - EULER) * NORMAL.inv_cdf(one) + EULER * NORMAL.inv_cdf(other)


def minimum_backtest_years(trials: int, target: float = 1.0) -> float:
    """Years below which so many trials without merit are expected to show an annual ratio of
    `target` (MinBTL, 2014).
    """
    return (expected_maximum(trials) / target) ** 2


def standard_error(sharpe: float, count: int) -> float:
    """Of a ratio estimated from independent returns (Lo 2002, eq. 9)."""
    return math.sqrt((1 + sharpe**2 / 2) / count)


def probability_of_overfitting(returns: Floats, blocks: int = 10) -> float:
    """PBO by combinatorially symmetric cross-validation, in [0, 1]; nan where nothing varies.

    `returns` (T, N) per period and trial, N >= 2; T is cut to a multiple of `blocks` (even). The
    best Sharpe ratio of each half is ranked in the other: a logit of at most 0 is overfit. Bailey,
    Borwein, Lopez de Prado and Zhu, The Probability of Backtest Overfitting (2017). Raises
    ValueError for fewer periods than twice the blocks, or fewer than two trials.
    """
    if blocks % 2 or blocks < 2:
        raise ValueError(f"{blocks} blocks can't be halved; use an even number")
    periods, trials = returns.shape
    if trials < 2 or periods < 2 * blocks:
        raise ValueError(f"{periods} periods of {trials} trials are too few for {blocks} blocks")
    length = periods // blocks
    cut = returns[: length * blocks].reshape(blocks, length, trials)
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    total, total_squares, half = sums.sum(axis=0), squares.sum(axis=0), length * blocks // 2
    overfit, splits = 0, 0
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside, inside_squares = sums[list(chosen)].sum(axis=0), squares[list(chosen)].sum(axis=0)
        seen = _ratios(inside, inside_squares, half)
        unseen = _ratios(total - inside, total_squares - inside_squares, half)
        if np.isnan(seen).all() or np.isnan(unseen).any():
            continue
        best = int(np.nanargmax(seen))
        below, ties = np.sum(unseen < unseen[best]), np.sum(unseen == unseen[best])
        rank = below + (ties + 1) / 2
        overfit += rank / (trials + 1) <= 0.5
        splits += 1
    return overfit / splits if splits else math.nan


def _ratios(sums: Floats, squares: Floats, count: int) -> Floats:
    mean = sums / count
    variance = squares / count - mean**2
    spread = np.sqrt(np.where(variance > 1e-18, variance, np.nan))
    ratios: Floats = mean / spread
    return ratios
