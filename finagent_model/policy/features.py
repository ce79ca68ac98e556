"""The technical features that analysts look at: a few numbers per bar, free of look-ahead.

Windows run over total-return prices in units of the first bar (splits and dividends reinvested up
to each bar), so that a split is no crash and no later action can change an earlier number. Prices
are given back as traded on their own bar.
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
        """Return all features of one bar by name."""
        return {name: float(values[index]) for name, values in self.arrays().items()}

    def arrays(self) -> dict[str, Floats]:
        """Return the array of every feature by name."""
        return dict(vars(self))


class FeatureBook:
    """Features of one history under many policies; indicators of equal windows are cached.

    Averages and deviations are not computed before `first_bar`: what needs them is nan there.
    """

    def __init__(self, bars: BarSeries, first_bar: int = 0) -> None:
        self._first_bar = first_bar
        self._adjusted = bars.adjust_to_first_bar()
        self._factor = bars.growth_factor
        self._cache: dict[tuple[str, int], Floats] = {}

    def compute(self, policy: Policy) -> Features:
        """Compute the features of every bar with the windows of `policy`."""
        prices, factor = self._adjusted, self._factor
        # Ratios over zero are expected where prices do not move; `_nan_if_infinite` handles them.
        with np.errstate(divide="ignore", invalid="ignore"):
            atr = self._cached(
                "atr",
                policy.atr,
                lambda n: indicators.atr(prices.high, prices.low, prices.close, n),
            )
            low = self._cached("lowest", policy.channel, lambda n: indicators.lowest(prices.low, n))
            high = self._cached(
                "highest", policy.channel, lambda n: indicators.highest(prices.high, n)
            )
            fast = self._cached("sma", policy.fast, self._average)
            slow = self._cached("sma", policy.slow, self._average)
            return Features(
                trend_atr=_nan_if_infinite((fast - slow) / atr),
                momentum_z=self._cached("momentum_z", policy.slow, self._momentum_z),
                rsi=self._cached("rsi", policy.rsi, lambda n: indicators.rsi(prices.close, n)),
                channel_position=_nan_if_infinite((prices.close - low) / (high - low)),
                atr=atr / factor,
                support=low / factor,
                resistance=high / factor,
            )

    def _average(self, window: int) -> Floats:
        return indicators.sma(self._adjusted.close, window, self._first_bar)

    def _momentum_z(self, window: int) -> Floats:
        close = self._adjusted.close
        daily = indicators.rate_of_change(close, 1)
        std = np.full(len(close), np.nan)
        # The first bar has no daily return, so the deviation's window begins one bar later.
        std[1:] = indicators.rolling_std(daily[1:], window, self._first_bar - 1)
        return _nan_if_infinite(indicators.rate_of_change(close, window) / (std * np.sqrt(window)))

    def _cached(self, name: str, window: int, compute: _Indicator) -> Floats:
        key = (name, window)
        # A search tries many policies whose windows come from a small grid.
        if key not in self._cache:
            self._cache[key] = compute(window)
        return self._cache[key]


def _nan_if_infinite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
