"""The indicators by name, over any window, at the last bars.

Computed on the growth series, as the question's features are; those that are prices are handed back
in units of the last bar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field

from finagent_model import indicators
from finagent_model.context import Context, rounded_or_null
from finagent_model.domain.bars import BarSeries, Floats
from finagent_model.domain.market_view import MarketView
from finagent_model.tools.tool import Answer, Arguments, Tool

Name = Literal["sma", "ema", "rsi", "atr", "highest", "lowest", "rate_of_change"]

_COMPUTED: dict[str, Callable[[BarSeries, int], Floats]] = {
    "sma": lambda bars, n: indicators.sma(bars.close, n),
    "ema": lambda bars, n: indicators.ema(bars.close, n),
    "rsi": lambda bars, n: indicators.rsi(bars.close, n),
    "atr": lambda bars, n: indicators.atr(bars.high, bars.low, bars.close, n),
    "highest": lambda bars, n: indicators.highest(bars.high, n),
    "lowest": lambda bars, n: indicators.lowest(bars.low, n),
    "rate_of_change": lambda bars, n: indicators.rate_of_change(bars.close, n),
}
_UNITS = {"rsi": "0 to 100", "rate_of_change": "fraction"}
PRICE = "price, in units of the last bar"


class Asked(Arguments):
    name: Name
    window: int = Field(ge=1, le=300)
    last: int = Field(1, ge=1, le=60)


def _run(view: MarketView, context: Context, asked: Asked) -> Answer:
    values = _COMPUTED[asked.name](view.bars.growth(), asked.window)
    unit = _UNITS.get(asked.name, PRICE)
    if unit == PRICE:
        values = values / view.bars.growth_factor[-1]
    return {
        "indicator": asked.name,
        "window": asked.window,
        "unit": unit,
        "values": [rounded_or_null(value) for value in values[-asked.last :]],
    }


TOOL = Tool(
    "indicators",
    "An indicator of the symbol at its last bars, oldest first. sma and ema are averages of "
    "closes, highest and lowest are of highs and lows, rsi and atr are Wilder's, rate_of_change is "
    "against the close `window` bars before. `window` is in bars (1 to 300), `last` says how many "
    "values (1 to 60). null: too few bars, or undefined.",
    Asked,
    _run,
)
