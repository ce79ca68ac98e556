"""Where a price lies among the levels that the question names."""

from __future__ import annotations

from pydantic import Field

from finagent_model.context import Context, rounded, rounded_or_null
from finagent_model.domain.market_view import MarketView
from finagent_model.features import FeatureBook
from finagent_model.tools.tool import Answer, Arguments, Tool


class Asked(Arguments):
    price: float = Field(ge=1e-6, le=1e9)


def _run(view: MarketView, context: Context, asked: Asked) -> Answer:
    bars = view.bars
    features = FeatureBook(bars, since=len(bars) - 1).under(context.policy).at(-1)
    support, resistance = rounded(features["support"]), rounded(features["resistance"])
    low, high = context.low, context.high

    def in_atr(distance: float) -> float | None:
        return _ratio(distance, context.atr)

    return {
        "price": rounded(asked.price),
        "support": support,
        "resistance": resistance,
        "channel_position": _ratio(asked.price - support, resistance - support),
        "atr_above_support": in_atr(asked.price - support),
        "atr_below_resistance": in_atr(resistance - asked.price),
        "atr_above_last_close": in_atr(asked.price - context.last_close),
        "year_low": low,
        "year_high": high,
        "year_position": _ratio(asked.price - low, high - low),
    }


def _ratio(part: float, whole: float) -> float | None:
    return rounded_or_null(part / whole) if whole > 0 else None


TOOL = Tool(
    "levels",
    "Where a price lies: channel_position runs from 0 at support to 1 at resistance, year_position "
    "from 0 at the year's low to 1 at its high, beyond these where the price is outside. Distances "
    "are in average true ranges, negative on the other side.",
    Asked,
    _run,
)
