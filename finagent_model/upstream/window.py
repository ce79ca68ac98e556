"""The bars that upstream is shown for one date: those of its 365 days, and nothing else.

Upstream asks for the bars from its today - 365 days up to, but without, its today. A decision
after the close of day D knows the bar of D, so upstream's clock shows D + 1. D is the day of the
last bar: a weekend asks what the Friday before asked. The worker is never sent a bar after D, so
that no error of ours or of upstream's can show it one.
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

from finagent_model.domain.bars import PRICES, BarSeries
from finagent_model.errors import ShortHistoryError

DAYS = timedelta(days=365)
LEAST_BARS = 60
"""From 34 on every indicator is defined; these are enough for them to settle."""


@dataclass(frozen=True)
class Window:
    """One question to upstream; prices in units of the last bar, which is as traded."""

    symbol: str
    clock_day: str
    """ISO date; bars end the day before, or earlier."""
    rows: list[list[Any]]
    """ISO date, open, high, low, close, volume (None: unknown), oldest first."""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps([self.symbol, self.clock_day, self.rows])
        return hashlib.sha256(text.encode()).hexdigest()


def window_of(bars: BarSeries) -> Window:
    """Of a validated series that ends at the last bar to be seen. Raises ShortHistoryError."""
    clock_day = bars.closed(-1).date() + timedelta(days=1)
    first = int(np.searchsorted(bars.closed_at, np.datetime64(clock_day - DAYS, "us")))
    shown = bars[first:]
    if len(shown) < LEAST_BARS:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(shown)} bars in the year to {clock_day - timedelta(days=1)}; "
            f"upstream needs {LEAST_BARS}; send more history"
        )
    prices = shown.in_last_prices()
    days = np.datetime_as_string(shown.closed_at, unit="D").tolist()
    volume = [None if math.isnan(v) else v for v in prices.volume.tolist()]
    columns = [getattr(prices, name).tolist() for name in PRICES]
    rows = [list(row) for row in zip(days, *columns, volume, strict=True)]
    return Window(bars.symbol, clock_day.isoformat(), rows)
