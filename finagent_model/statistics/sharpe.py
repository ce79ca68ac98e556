"""How sure a Sharpe ratio is, given how long it was observed and how many trials were made.

Ratios are per period (a daily ratio of daily returns) and kurtosis is Pearson's (3 for a normal).
Undefined is nan. Sources: Lo, The Statistics of Sharpe Ratios (2002); Bailey and Lopez de Prado,
The Sharpe Ratio Efficient Frontier (2012) and The Deflated Sharpe Ratio (2014); Bailey, Borwein,
Lopez de Prado and Zhu, Pseudo-Mathematics and Financial Charlatanism (2014) and The Probability of
Backtest Overfitting (2017). Tests hold each against the numbers that those papers print.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from finagent_model.backtesting.metrics import MIN_DEVIATION
from finagent_model.market.bars import Floats
from finagent_model.statistics.autocorrelation import long_run_variance

EULER_GAMMA = 0.5772156649015329
NORMAL = NormalDist()
UNDEFINED = math.nan


@dataclass(frozen=True)
class Moments:
    """Sharpe ratio, skewness and kurtosis of returns per period.

    Population moments (ddof 0), as the papers' formulas take them; nan where returns don't vary.
    """

    sharpe: float
    skew: float
    kurtosis: float
    count: int
    """Number of returns."""
    dependence: float = 1.0
    """Variance of the estimated ratio over what it would be if days were independent."""

    @classmethod
    def from_returns(cls, returns: Floats) -> Moments:
        """Estimate the moments of `returns` (n,); nan where they don't vary."""
        deviation = float(np.std(returns)) if len(returns) else 0.0
        if not deviation > MIN_DEVIATION:
            return cls(UNDEFINED, UNDEFINED, UNDEFINED, len(returns))
        scores = (returns - np.mean(returns)) / deviation
        ratio = float(np.mean(returns)) / deviation
        # The ratio's influence function; its variance is that of the 2012 paper, its long-run
        # variance that of Lo (2002) for returns that hang together in time.
        influence = scores - ratio / 2 * (scores**2 - 1)
        spread = float(np.var(influence))
        return cls(
            sharpe=ratio,
            skew=float(np.mean(scores**3)),
            kurtosis=float(np.mean(scores**4)),
            count=len(returns),
            dependence=long_run_variance(influence) / spread if spread > 0 else 1.0,
        )

    @property
    def _sharpe_variance(self) -> float:
        """Variance of the estimated ratio times the number of periods, at least 0."""
        variance = 1 - self.skew * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2
        # 0 is a limit that two-valued returns reach; rounding may fall below it.
        return max(variance, 0.0) * self.dependence

    def probabilistic_sharpe(self, benchmark: float = 0.0) -> float:
        """Probability that the true ratio exceeds `benchmark` (PSR, 2012); nan below two."""
        if self.count < 2 or not self._sharpe_variance > 0:
            return UNDEFINED
        distance = (self.sharpe - benchmark) * math.sqrt(self.count - 1)
        return NORMAL.cdf(distance / math.sqrt(self._sharpe_variance))

    def deflated_sharpe(self, trials: int, variance: float) -> float:
        """Probability that the true ratio exceeds the best of `trials` without merit (DSR, 2014).

        `variance` is that of the trials' ratios, per period. nan as for `probabilistic_sharpe`.
        """
        return self.probabilistic_sharpe(math.sqrt(variance) * expected_maximum(trials))

    def minimum_track_record(self, benchmark: float = 0.0, confidence: float = 0.95) -> float:
        """Periods after which PSR reaches `confidence` (MinTRL, 2012); nan where the ratio does not
        exceed `benchmark`.
        """
        # Below the benchmark no length would do: more data only makes it surer.
        if not self.sharpe > benchmark:
            return UNDEFINED
        quantile = NORMAL.inv_cdf(confidence)
        return 1 + self._sharpe_variance * (quantile / (self.sharpe - benchmark)) ** 2


def expected_maximum(trials: int) -> float:
    """Expected largest of `trials` independent standard normals (2014, Proposition 1); 0 for one.

    Raises ValueError below one trial.
    """
    if trials < 1:
        raise ValueError(f"{trials} trials: something must have been tried")
    if trials == 1:
        return 0.0
    p_one, p_other = 1 - 1 / trials, 1 - 1 / (trials * math.e)
    return (1 - EULER_GAMMA) * NORMAL.inv_cdf(p_one) + EULER_GAMMA * NORMAL.inv_cdf(p_other)


def minimum_backtest_years(trials: int, target: float = 1.0) -> float:
    """Years below which `trials` without merit are expected to show an annual ratio of `target`
    (MinBTL, 2014). Raises ValueError below one trial.
    """
    return (expected_maximum(trials) / target) ** 2


def sharpe_standard_error(sharpe: float, count: int) -> float:
    """Standard error of a ratio estimated from `count` independent returns (Lo 2002, eq. 9)."""
    return math.sqrt((1 + sharpe**2 / 2) / count)


def probability_of_overfitting(returns: Floats, blocks: int = 10) -> float:
    """Probability of backtest overfitting (PBO, 2017), in [0, 1]; nan where nothing varies.

    How often the best trial of one half of history is below the median in the other half, over all
    combinations of `blocks` (even) into halves (combinatorially symmetric cross-validation).
    `returns` (T, N) per period and trial, N >= 2; T is cut to a multiple of `blocks`. Raises
    ValueError for fewer periods than twice the blocks, or fewer than two trials.
    """
    if blocks % 2 or blocks < 2:
        raise ValueError(f"{blocks} blocks can't be halved; use an even number")
    periods, trials = returns.shape
    if trials < 2 or periods < 2 * blocks:
        raise ValueError(f"{periods} periods of {trials} trials are too few for {blocks} blocks")
    length = periods // blocks
    cut = returns[: length * blocks].reshape(blocks, length, trials)
    # Sums of returns and of squares add up over blocks, so each half costs one addition.
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    total, total_squares, half = sums.sum(axis=0), squares.sum(axis=0), length * blocks // 2
    overfit, splits = 0, 0
    for combination in itertools.combinations(range(blocks), blocks // 2):
        rows = list(combination)
        part, part_squares = sums[rows].sum(axis=0), squares[rows].sum(axis=0)
        in_sample = _sharpe_ratios(part, part_squares, half)
        out_of_sample = _sharpe_ratios(total - part, total_squares - part_squares, half)
        if np.isnan(in_sample).all() or np.isnan(out_of_sample).any():
            continue
        best = int(np.nanargmax(in_sample))
        below = np.sum(out_of_sample < out_of_sample[best])
        ties = np.sum(out_of_sample == out_of_sample[best])
        rank = below + (ties + 1) / 2
        # A relative rank of at most one half is a logit of at most 0 in the paper.
        overfit += rank / (trials + 1) <= 0.5
        splits += 1
    return overfit / splits if splits else UNDEFINED


def _sharpe_ratios(sums: Floats, squares: Floats, count: int) -> Floats:
    """Return the ratio (N,) of each trial from sums over `count` periods; nan where none varies."""
    mean = sums / count
    variance = squares / count - mean**2
    deviation = np.sqrt(np.where(variance > 1e-18, variance, np.nan))
    ratios: Floats = mean / deviation
    return ratios
