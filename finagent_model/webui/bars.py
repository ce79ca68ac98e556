"""Bars as the chart draws them: up to a decision, and, when asked for, what came after it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np

from finagent_model.artifacts.price_chart import BARS_SHOWN
from finagent_model.domain.bars import BarSeries, to_datetime64
from finagent_model.errors import DataSourceError, NoBarsError
from finagent_model.market import Market

LATER = 60
"""Bars after a decision that are shown at most."""
AFTER = timedelta(days=92)
"""In which a market has that many."""


def drawn(
    market: Market, symbol: str, as_of: datetime, later: bool, now: datetime
) -> dict[str, Any]:
    """`bars_around` of what was kept, where that is enough: a vendor is asked for what it lacks. If
    it fails to give later bars, those that were kept are drawn, and `note` says so. Raises
    DataError and InvalidBarsError.
    """
    if not later or as_of >= now:
        return bars_around(market.bars(symbol, as_of), as_of, later) | {"note": None}
    try:
        series, note = market.bars(symbol, as_of + min(AFTER, now - as_of)), None
    except DataSourceError as error:
        series, note = market.bars(symbol, as_of), f"Later bars can't be had: {error}."
    return bars_around(series, as_of, later) | {"note": note}


def bars_around(bars: BarSeries, as_of: datetime, later: bool) -> dict[str, Any]:
    """JSON-ready; prices in units of the last bar that the decision saw, so that its levels lie
    where they belong. `later` is empty unless it is asked for. Raises NoBarsError.
    """
    seen = int(np.searchsorted(bars.closed_at, to_datetime64(as_of), side="right"))
    if seen == 0:
        raise NoBarsError(bars.symbol, as_of, bars.closed(0) if len(bars) else None)
    factor = bars.growth_factor / bars.growth_factor[seen - 1]
    first, last = max(0, seen - BARS_SHOWN), seen + LATER if later else seen
    return {
        "symbol": bars.symbol,
        "seen": [_bar(bars, factor[i], i) for i in range(first, seen)],
        "later": [_bar(bars, factor[i], i) for i in range(seen, min(last, len(bars)))],
    }


def _bar(bars: BarSeries, factor: float, i: int) -> dict[str, Any]:
    prices = ("open", "high", "low", "close")
    return {
        "time": f"{bars.closed(i):%Y-%m-%d}",
        **{name: round(float(getattr(bars, name)[i] * factor), 4) for name in prices},
    }
