"""Upstream's reply, validated and reduced to what it means.

Candlestick patterns, fundamentals and news are always empty in a reply, whatever the stock. The
report leaves them out, since a zero would say that something had been looked at.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finagent_model._base import first_error_message
from finagent_model.contrib.upstream.source import UpstreamError
from finagent_model.decision.signal import Trend
from finagent_model.errors import ShortHistoryError
from finagent_model.market.bars import PRICES, BarSeries
from finagent_model.market.timeframe import DAILY

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

    Raises ShortHistoryError below `MIN_BARS`, and for bars that are no days: upstream knows none.
    """
    if bars.timeframe != DAILY:
        raise ShortHistoryError(
            f"bars of {bars.symbol} last {bars.timeframe.label}, and upstream reads daily bars; "
            "leave its analyst out"
        )
    clock_day = bars.close_time(-1).date() + timedelta(days=1)
    first = int(np.searchsorted(bars.closed_at, np.datetime64(clock_day - LOOK_BACK, "us")))
    year = bars[first:]
    if len(year) < MIN_BARS:
        raise ShortHistoryError(
            f"{bars.symbol} has {len(year)} bars in the year to {clock_day - timedelta(days=1)}; "
            f"upstream needs {MIN_BARS}; send more history"
        )
    prices = year.adjust_to_last_bar()
    days = np.datetime_as_string(year.closed_at, unit="D").tolist()
    volume = [None if math.isnan(v) else v for v in prices.volume.tolist()]  # JSON has no NaN
    columns = [getattr(prices, name).tolist() for name in PRICES]
    rows = [list(row) for row in zip(days, *columns, volume, strict=True)]
    return UpstreamWindow(bars.symbol, clock_day.isoformat(), rows)


NO_DATA_MESSAGE = "No data found"
"""Upstream's own `error` where it found no bars."""
VOTES = {"bullish": 1, "oversold": 1, "bearish": -1, "overbought": -1, "neutral": 0}
"""How upstream counts the words of its indicators."""
DIRECTIONS: dict[str, tuple[Trend, int]] = {
    "bullish_trend": ("bullish", 1),
    "bearish_trend": ("bearish", -1),
    "neutral_trend": ("neutral", 0),
}
"""Our word for each trend direction of upstream's ADX, and its vote."""


class UpstreamReport(BaseModel):
    """An opinion and the five votes that made it; prices in units of the last bar."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    rating: Literal["buy", "hold", "sell"]
    probability: float = Field(ge=0, le=1)
    """A share of votes and no probability: 0.5 + 0.5 * (votes for - votes against) / all votes."""
    votes: dict[str, Annotated[int, Field(ge=-1, le=1)]]
    trend: Trend
    """By the ADX; neutral where upstream calls it weak."""
    indicators: dict[str, float]

    @property
    def score(self) -> float:
        """Directional strength in [-1, 1]: 2p - 1. Upstream buys from 0.32 and sells from -0.34."""
        return 2 * self.probability - 1

    @property
    def text(self) -> str:
        """JSON for an agent, its numbers rounded to six digits."""
        numbers = {name: float(f"{value:.6g}") for name, value in self.indicators.items()}
        return json.dumps({**self.model_dump(), "indicators": numbers}, ensure_ascii=False)


def read_reply(reply: Any, symbol: str) -> UpstreamReport:
    """Parse upstream's reply about `symbol`.

    Raises UpstreamError: `no_data`, `nonfinite` naming the fields, or `schema`.
    """
    if isinstance(reply, dict) and reply.get("error") == NO_DATA_MESSAGE:
        raise UpstreamError("no_data", f"it found no bars of {symbol}")
    undefined = [path for path, value in _leaves(reply) if _is_undefined(value)]
    if undefined:
        raise UpstreamError("nonfinite", f"{', '.join(undefined)} of {symbol} is not a number")
    try:
        if reply["ticker_symbol"] != symbol:
            raise ValueError(f"it answers about {reply['ticker_symbol']!r}, not {symbol!r}")
        return _build_report(reply["final_decision"], reply["indicators"])
    except ValidationError as error:
        raise UpstreamError("schema", first_error_message(error)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise UpstreamError("schema", f"{type(error).__name__}: {error}") from None


def _build_report(decision: dict[str, Any], indicators: dict[str, Any]) -> UpstreamReport:
    direction, vote = DIRECTIONS[indicators["adx"]["trend_direction"]]
    strong = indicators["adx"]["trend_strength"] == "strong_trend"
    return UpstreamReport(
        rating=decision["rating"],
        probability=decision["probability"],
        votes={
            "ema_cross": VOTES[indicators["ema"]["signal"]],
            "rsi": VOTES[indicators["rsi"]["signal"]],
            "macd": VOTES[indicators["macd"]["trend"]],
            "stochastic": VOTES[indicators["stochastics"]["signal"]],
            "adx": vote,
        },
        trend=direction if strong else "neutral",
        indicators={
            "ema_12": indicators["ema"]["short_ema"],
            "ema_26": indicators["ema"]["long_ema"],
            "rsi_14": indicators["rsi"]["value"],
            "macd": indicators["macd"]["value"],
            "macd_signal": indicators["macd"]["signal_line"],
            "bollinger_upper": indicators["bollinger"]["upper"],
            "bollinger_lower": indicators["bollinger"]["lower"],
            "stochastic_k": indicators["stochastics"]["%K"],
            "stochastic_d": indicators["stochastics"]["%D"],
            "atr_14": indicators["atr"],
            "adx_14": indicators["adx"]["adx_value"],
        },
    )


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and the value of everything in nested objects that is no object."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _is_undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
