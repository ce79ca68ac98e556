"""What is knowable about one symbol at one moment: bars, news, fundamentals, and the view of them.

`MarketView.at` is the one place where the future is cut off (no look-ahead). Everything after it
gets the view and never the source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.market.bars import BarSeries, parse_as_of, parse_symbol, parse_symbols
    from finagent_model.market.news import Fact, NewsItem
    from finagent_model.market.view import MarketView
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "bars": ["BarSeries", "parse_as_of", "parse_symbol", "parse_symbols"],
            "news": ["Fact", "NewsItem"],
            "view": ["MarketView"],
        },
    )

__all__ = [
    "BarSeries",
    "Fact",
    "MarketView",
    "NewsItem",
    "parse_as_of",
    "parse_symbol",
    "parse_symbols",
]
