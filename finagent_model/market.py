"""Where views come from: one place puts the sources of bars, news and fundamentals together, for
every door alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

from finagent_model.data.bundled import BundledBars
from finagent_model.data.folder import FolderBars
from finagent_model.data.fundamentals_file import FileFundamentals
from finagent_model.data.news_file import FileNews, bundled_events
from finagent_model.data.source import BarSource, FundamentalsSource, NewsSource
from finagent_model.domain.bars import BarSeries
from finagent_model.domain.clock import parse_as_of
from finagent_model.domain.dataset import Kind
from finagent_model.domain.dated import Published
from finagent_model.domain.fundamentals import Fact
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.news import NewsItem
from finagent_model.settings import Settings

Dated = tuple[tuple[NewsItem, ...], int]
Stated = tuple[tuple[Fact, ...], int]


class Market:
    """Bars, news and fundamentals by symbol; each symbol is read once."""

    def __init__(
        self, bars: BarSource, news: NewsSource | None, facts: FundamentalsSource | None = None
    ) -> None:
        self.source = bars
        self._news_source = news
        self._facts_source = facts
        self._bars: dict[str, BarSeries] = {}
        self._news: dict[str, Dated] = {}
        self._facts: dict[str, Stated] = {}

    @classmethod
    def of(cls, settings: Settings) -> Market:
        """The folder and files that the environment names, else the embedded bars and events."""
        source: BarSource = FolderBars(settings.bars) if settings.bars else BundledBars()
        facts = FileFundamentals(settings.fundamentals) if settings.fundamentals else None
        if settings.news:
            return cls(source, FileNews(settings.news), facts)
        return cls(source, None if settings.bars else bundled_events(), facts)

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

    def facts(self, symbol: str) -> Stated:
        if self._facts_source is None:
            return (), 0
        if symbol not in self._facts:
            self._facts[symbol] = self._facts_source.facts(symbol)
        return self._facts[symbol]

    def view(
        self, symbol: str, as_of: datetime, bars: BarSeries | None = None, news: Dated | None = None
    ) -> MarketView:
        """The view at `as_of`, from what the caller brings and, for the rest, from the sources."""
        return MarketView.at(
            as_of,
            self.bars(symbol) if bars is None else bars,
            *(self.news(symbol) if news is None else news),
            *self.facts(symbol),
        )

    def digest(self, symbol: str) -> str:
        """SHA-256 of all that is known of a symbol: what a training depends on."""
        told = self.bars(symbol).digest() + _written(*self.news(symbol))
        if self._facts_source is not None:
            told += _written(*self.facts(symbol))
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def origins(self) -> dict[Kind, str]:
        """A word for where each kind of data comes from."""
        given = (self._news_source, self._facts_source)
        news, facts = ("none" if source is None else type(source).__name__ for source in given)
        return {"bars": self.source.name, "news": news, "fundamentals": facts}

    def daily_views(self, symbol: str, positions: Iterable[int]) -> list[MarketView]:
        """A view for each position of a bar, as of the end of that bar's day."""
        bars, news, facts = self.bars(symbol), self.news(symbol), self.facts(symbol)
        days = (parse_as_of(bars.closed(i).date()) for i in positions)
        return [MarketView.at(day, bars, *news, *facts) for day in days]


def _written(items: Sequence[Published], undated: int) -> str:
    return "".join(item.model_dump_json() for item in items) + str(undated)
