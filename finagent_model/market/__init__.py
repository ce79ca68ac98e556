"""Bars, news and the market view: all that is knowable about a symbol at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finagent_model._lazy import lazy_exports

if TYPE_CHECKING:
    from finagent_model.market.bars import BarSeries
    from finagent_model.market.news import NewsItem
    from finagent_model.market.view import MarketView
else:
    __getattr__ = lazy_exports(
        __name__, {"bars": ["BarSeries"], "news": ["NewsItem"], "view": ["MarketView"]}
    )

__all__ = ["BarSeries", "MarketView", "NewsItem"]
