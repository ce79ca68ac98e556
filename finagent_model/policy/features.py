"""What the analysts look at: a handful of numbers per bar, computed causally over a whole history
at once.

Everything is computed on the growth series (splits and dividends reinvested up to each bar), so
that a split is no crash and no later action can change an earlier number. Prices are handed back as
traded on their own bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finagent_model.market import indicators
from finagent_model.market.bars import BarSeries, Floats
from finagent_model.policy.policy import Policy

_Indicator = Callable[[int], Floats]


@dataclass(frozen=True, eq=False)
class Features:
    """One entry a bar in each array; nan until a window is full or where a ratio is undefined."""

    trend_atr: Floats
    """Fast minus slow average, in ATR."""
    momentum_z: Floats
    """Return over `slow` bars, in standard deviations of such a return."""
    rsi: Floats
    """Wilder's RSI, 0..100."""
    channel_position: Floats
    """Where the close lies between the channel's low (0) and high (1)."""
    atr: Floats
    """Average true range, in traded prices of that bar."""
    support: Floats
    resistance: Floats
    """Lowest low and highest high of the channel, in traded prices of that bar."""

    def at(self, index: int) -> dict[str, float]:
        """All features of one bar."""
        return {name: float(values[index]) for name, values in vars(self).items()}

    def all(self) -> dict[str, Floats]:
        return dict(vars(self))


class FeatureBook:
    """Features of one history under many policies; equal windows are computed once. Of bars before
    `since` not all are computed.
    """

    def __init__(self, bars: BarSeries, since: int = 0) -> None:
        self._since = since
        self._growth = bars.growth()
        self._factor = bars.growth_factor
        self._known: dict[tuple[str, int], Floats] = {}

    def under(self, policy: Policy) -> Features:
        """The features that `policy`'s windows give."""
        g, factor = self._growth, self._factor
        with np.errstate(divide="ignore", invalid="ignore"):
            atr = self._once("atr", policy.atr, lambda n: indicators.atr(g.high, g.low, g.close, n))
            low = self._once("lowest", policy.channel, lambda n: indicators.lowest(g.low, n))
            high = self._once("highest", policy.channel, lambda n: indicators.highest(g.high, n))
            average = lambda n: indicators.sma(g.close, n, self._since)  # noqa: E731
            fast, slow = (
                self._once("sma", policy.fast, average),
                self._once("sma", policy.slow, average),
            )
            return Features(
                trend_atr=_finite((fast - slow) / atr),
                momentum_z=self._once("momentum_z", policy.slow, self._momentum_z),
                rsi=self._once("rsi", policy.rsi, lambda n: indicators.rsi(g.close, n)),
                channel_position=_finite((g.close - low) / (high - low)),
                atr=atr / factor,
                support=low / factor,
                resistance=high / factor,
            )

    def _momentum_z(self, window: int) -> Floats:
        close = self._growth.close
        daily = indicators.rate_of_change(close, 1)
        spread = np.full(len(close), np.nan)
        spread[1:] = indicators.rolling_std(daily[1:], window, self._since - 1)
        return _finite(indicators.rate_of_change(close, window) / (spread * np.sqrt(window)))

    def _once(self, name: str, window: int, compute: _Indicator) -> Floats:
        key = (name, window)
        if key not in self._known:
            self._known[key] = compute(window)
        return self._known[key]


def _finite(values: Floats) -> Floats:
    """A ratio over zero is undefined, not infinite."""
    return np.where(np.isfinite(values), values, np.nan)
