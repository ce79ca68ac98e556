"""Bars of a price chart as JSON: up to a decision and, where it is asked for, what came after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

import numpy as np
from fastapi import Response
from fastapi.responses import JSONResponse

from finagent_model.backtesting.outcomes import describe_call
from finagent_model.data.market import Market
from finagent_model.decision.opinions import read_number
from finagent_model.decision.signal import Action
from finagent_model.errors import DataError, DataSourceError, InvalidBarsError, NoBarsError
from finagent_model.market.bars import PRICES, BarSeries, to_datetime64
from finagent_model.reports.charts import CHART_BARS
from finagent_model.settings import Settings

SYMBOL_PATTERN = r"[^a-z\s]{1,20}"
"""A symbol that a desk takes. A foreign row may have any other text, which no vendor should get."""
MAX_LATER_BARS = 60
LATER_RANGE = timedelta(days=92)
"""Range after a decision in which a market has that many bars."""


@dataclass(frozen=True)
class Call:
    """A decision to act, with its levels in prices of its own day."""

    action: Literal["BUY", "SELL"]
    stop: float | None
    target: float | None

    @classmethod
    def from_fields(cls, action: Action | None, fields: Mapping[str, Any]) -> Self | None:
        """Return the call of a signal's fields; None where nothing was to be done."""
        if action != "BUY" and action != "SELL":
            return None
        names = ("suggested_stop_loss", "suggested_take_profit")
        stop, target = (read_number(fields.get(name)) for name in names)
        return cls(action, stop, target)


def send_chart_bars(
    settings: Settings,
    symbol: str,
    as_of: datetime,
    action: str | None,
    later: bool = False,
    call: Call | None = None,
) -> Response:
    """Return the bars of a price chart as JSON, or 404 with a message where there are none.

    `action` is what was decided on; None: nothing was. With `later`, what became of `call` is
    told.
    """
    try:
        market, now = Market.from_settings(settings), datetime.now(UTC)
        chart = read_chart_bars(market, symbol, as_of, later, now, call)
        return JSONResponse(chart | {"action": action})
    except (DataError, InvalidBarsError) as error:
        return no_bars(f"{error}. FINAGENT_BARS names the folder that the desk decided on.")


def read_chart_bars(
    market: Market,
    symbol: str,
    as_of: datetime,
    later: bool,
    now: datetime,
    call: Call | None = None,
) -> dict[str, Any]:
    """Return `chart_bars` from the market's bars, and a `note` if later ones can't be had.

    Raises DataError and InvalidBarsError.
    """
    # Up to the decision the bar cache is enough; a vendor is asked for later bars alone.
    if not later or as_of >= now:
        return chart_bars(market.bars(symbol, as_of), as_of, later, call) | {"note": None}
    try:
        series, note = market.bars(symbol, as_of + min(LATER_RANGE, now - as_of)), None
    except DataSourceError as error:
        series, note = market.bars(symbol, as_of), f"Later bars can't be had: {error}."
    return chart_bars(series, as_of, later, call) | {"note": note}


def chart_bars(
    bars: BarSeries, as_of: datetime, later: bool, call: Call | None = None
) -> dict[str, Any]:
    """Return the bars up to a decision (`seen`) and, if asked for, after it; JSON-ready.

    `outcome` says what became of the call; None where nothing was to be done, or nobody asked.

    Raises NoBarsError if there is no bar up to the decision.
    """
    seen = int(np.searchsorted(bars.closed_at, to_datetime64(as_of), side="right"))
    if seen == 0:
        raise NoBarsError(bars.symbol, as_of, bars.close_time(0) if len(bars) else None)
    # In units of the last bar that the decision saw, so that its levels lie where they belong.
    factor = bars.growth_factor / bars.growth_factor[seen - 1]
    first, last = max(0, seen - CHART_BARS), seen + MAX_LATER_BARS if later else seen
    last, outcome = min(last, len(bars)), None
    if later and call is not None:
        frame = bars[seen:last].to_frame()[["closed_at", *PRICES]]
        frame[list(PRICES)] = frame[list(PRICES)].mul(factor[seen:last], axis=0)
        after = BarSeries.from_frame(bars.symbol, frame) if len(frame) else None
        outcome = describe_call(after, call.action, call.stop, call.target)
    return {
        "symbol": bars.symbol,
        "seen": [_bar_point(bars, factor[i], i) for i in range(first, seen)],
        "later": [_bar_point(bars, factor[i], i) for i in range(seen, last)],
        "outcome": outcome,
    }


def _bar_point(bars: BarSeries, factor: float, i: int) -> dict[str, Any]:
    volume = float(bars.volume[i])
    return {
        # Within a day: seconds since 1970, of which the chart makes times.
        "time": int(bars.close_time(i).timestamp())
        if bars.timeframe.is_intraday
        else f"{bars.close_time(i):%Y-%m-%d}",
        **{name: round(float(getattr(bars, name)[i] * factor), 4) for name in PRICES},
        "volume": round(volume) if math.isfinite(volume) else None,
    }


def no_bars(message: str) -> Response:
    """Return 404 with why there are no bars."""
    return JSONResponse({"message": message}, 404)
