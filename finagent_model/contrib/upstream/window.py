"""The bars that upstream is shown for one date.

Upstream asks for the bars from its today - 365 days up to, but without, its today. A decision after
the close of day D knows the bar of D, so upstream's clock shows D + 1. D is the day of the last
bar: a weekend asks what the Friday before asked. The worker is never sent a bar after D, so that no
error of ours or of upstream's can show it one.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import PRICES, BarSeries

LOOK_BACK = timedelta(days=365)
MIN_BARS = 60
"""From 34 on every indicator is defined; these are enough for them to settle."""


@dataclass(frozen=True)
class UpstreamWindow:
    """One question to upstream; prices in units of the last bar, which is as traded."""

    symbol: str
    clock_day: str
    """ISO date that upstream's clock shows; the bars end the day before, or earlier."""
    rows: list[list[Any]]
    """ISO date, open, high, low, close, volume (None: unknown), oldest first."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of symbol, clock day and rows."""
        text = json.dumps([self.symbol, self.clock_day, self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


def build_window(bars: BarSeries) -> UpstreamWindow:
    """Return the year of bars up to the last one of a validated series.

    Raises ShortHistoryError below `MIN_BARS`.
    """
    clock_day = bars.closed(-1).date() + timedelta(days=1)
    first = int(np.searchsorted(bars.closed_at, np.datetime64(clock_day - LOOK_BACK, "us")))
    year = bars[first:]
    if len(year) < MIN_BARS:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(year)} bars in the year to {clock_day - timedelta(days=1)}; "
            f"upstream needs {MIN_BARS}; send more history"
        )
    prices = year.in_last_prices()
    days = np.datetime_as_string(year.closed_at, unit="D").tolist()
    volume = [None if math.isnan(v) else v for v in prices.volume.tolist()]  # JSON has no NaN
    columns = [getattr(prices, name).tolist() for name in PRICES]
    rows = [list(row) for row in zip(days, *columns, volume, strict=True)]
    return UpstreamWindow(bars.symbol, clock_day.isoformat(), rows)
