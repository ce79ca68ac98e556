"""The last bars of the view, in units of the last one."""

from __future__ import annotations

from pydantic import Field

from finagent_model.context import Context, rounded_or_null
from finagent_model.domain.bars import PRICES
from finagent_model.domain.market_view import MarketView
from finagent_model.tools.tool import Answer, Arguments, Tool

COLUMNS = ("sessions_before", *PRICES, "volume")


class Asked(Arguments):
    last: int = Field(ge=1, le=60)


def _run(view: MarketView, context: Context, asked: Asked) -> Answer:
    shown = view.bars.in_last_prices()[-asked.last :]
    numbers = zip(*(getattr(shown, name) for name in COLUMNS[1:]), strict=True)
    ages = range(len(shown) - 1, -1, -1)
    rows = [[age, *map(rounded_or_null, row)] for age, row in zip(ages, numbers, strict=True)]
    return {"columns": list(COLUMNS), "rows": rows}


TOOL = Tool(
    "bars",
    "The symbol's last daily bars (1 to 60), oldest first, adjusted for splits and dividends to "
    "the units of the last bar, whose sessions_before is 0. Volume in shares; null: unknown.",
    Asked,
    _run,
)
