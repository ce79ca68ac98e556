"""How often the best of many in one half of history is below the median in the other half."""

from __future__ import annotations

import itertools
import math

import numpy as np

from finagent_model.domain.bars import Floats


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
