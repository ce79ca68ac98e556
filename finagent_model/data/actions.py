"""Splits and dividends, read back from a vendor's adjusted closes.

Vendors revise adjusted prices with every later action, so these are never traded on. The *ratio*
adjusted / raw steps on each action's own bar, and that step isn't revised: it is all that is used
here.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from finagent_model.domain.bars import Floats
from finagent_model.errors import InvalidBarsError

NOISE = 1e-4
"""A step closer to 1 than this is the vendor's rounding."""
SPLIT_TOLERANCE = 0.005
"""How far, as a fraction, a step may lie from the ratio it is taken for."""
LARGEST_TERM = 20
SMALLEST_SPLIT = 1.25
"""A split multiplies the shares by this at least; a reverse split divides by it. Between lie
dividends.
"""

RATIOS: tuple[float, ...] = tuple(
    n / m
    for n, m in sorted(
        ((n, m) for n in range(1, LARGEST_TERM + 1) for m in range(1, LARGEST_TERM + 1)),
        key=lambda terms: (max(terms), min(terms)),
    )
    if gcd(n, m) == 1 and not 1 / SMALLEST_SPLIT < n / m < SMALLEST_SPLIT
)
"""New shares per old share, simplest first: 2:1 is tried before 19:10."""


def actions_from_adjusted(symbol: str, close: Floats, adjusted: Floats) -> tuple[Floats, Floats]:
    """`split` and `dividend` as `BarSeries` stamps them, from traded and adjusted closes of the
    same bars.

    step = (adjusted / close) over the same of the bar before. A step near a simple ratio is a
    split; any other above 1 is the dividend that explains it, close before x (1 - 1 / step). Raises
    InvalidBarsError, naming the bar, for prices that are not positive numbers and for a step below
    1 that is no reverse split.
    """
    for name, values in (("close", close), ("adjusted close", adjusted)):
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            at = int(np.argmax(wrong))
            raise InvalidBarsError(f"bars of {symbol}: {name} is not a positive number at bar {at}")
    split, dividend = np.ones(len(close)), np.zeros(len(close))
    ratio = adjusted / close
    steps = ratio[1:] / ratio[:-1]
    for i in (np.flatnonzero(np.abs(steps - 1.0) > NOISE) + 1).tolist():
        step = float(steps[i - 1])
        if (shares := _split_ratio(step)) is not None:
            split[i] = shares
        elif step > 1.0:
            dividend[i] = close[i - 1] * (1.0 - 1.0 / step)
        else:
            raise InvalidBarsError(
                f"bars of {symbol}: the adjusted close steps by {step:.6f} at bar {i}, which is "
                "neither a dividend nor a reverse split; correct it, or give split and dividend "
                "columns instead"
            )
    return split, dividend


def _split_ratio(step: float) -> float | None:
    return next((r for r in RATIOS if abs(step / r - 1.0) <= SPLIT_TOLERANCE), None)
