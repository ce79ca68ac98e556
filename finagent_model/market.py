"""Where views come from: one place puts a bar source and a news source together, for every door
alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from finagent_model.data.bundled import BundledBars
from finagent_model.data.folder import FolderBars
from finagent_model.data.news_file import FileNews, bundled_events
from finagent_model.data.source import BarSource, NewsSource
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.news import NewsItem
from finagent_model.settings import Settings

Dated = tuple[tuple[NewsItem, ...], int]


class Market:
    """Bars and news by symbol; each symbol is read once."""

    def __init__(self, bars: BarSource, news: NewsSource | None) -> None:
        self.source = bars
        self._news_source = news
        self._bars: dict[str, BarSeries] = {}
        self._news: dict[str, Dated] = {}

    @classmethod
    def of(cls, settings: Settings) -> Market:
        """The folder and file that the environment names, else the embedded bars and events."""
        source: BarSource = FolderBars(settings.bars) if settings.bars else BundledBars()
        if settings.news:
            return cls(source, FileNews(settings.news))
        return cls(source, None if settings.bars else bundled_events())

    def bars(self, symbol: str) -> BarSeries:
        """All bars; raises UnknownSymbolError or DataSourceError."""
        if symbol not in self._bars:
            self._bars[symbol] = self.source.bars(symbol)
        return self._bars[symbol]

    def news(self, symbol: str) -> Dated:
        if self._news_source is None:
            return (), 0
        if symbol not in self._news:
            self._news[symbol] = self._news_source.news(symbol)
        return self._news[symbol]

    def view(
        self, symbol: str, as_of: datetime, bars: BarSeries | None = None, news: Dated | None = None
    ) -> MarketView:
        """The view at `as_of`, from what the caller brings and, for the rest, from the sources."""
        return MarketView.at(
            as_of,
            self.bars(symbol) if bars is None else bars,
            *(self.news(symbol) if news is None else news),
        )

    def digest(self, symbol: str) -> str:
        """SHA-256 of the bars and news of a symbol: what a training depends on."""
        items, undated = self.news(symbol)
        told = "".join(item.model_dump_json() for item in items)
        return hashlib.sha256(f"{self.bars(symbol).digest()}{told}{undated}".encode()).hexdigest()

    def daily_views(self, symbol: str, positions: Iterable[int]) -> list[MarketView]:
        """A view for each position of a bar, as of the end of that bar's day."""
        bars, news = self.bars(symbol), self.news(symbol)
        return [MarketView.at(parse_as_of(bars.closed(i).date()), bars, *news) for i in positions]
