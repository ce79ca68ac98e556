"""Where views come from: one place puts the sources of bars, news and fundamentals together, for
every door alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from finagent_model.data.bar_cache import CachedBars, StoredBars, utc_now
from finagent_model.data.protocols import (
    BarSource,
    FundamentalsSource,
    NewsSource,
    oldest_first,
    vendor_errors,
)
from finagent_model.data.snapshots import BarsSnapshot, Kind
from finagent_model.data.source_registry import bar_source, fundamentals_source, news_source
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import BarSeries, parse_as_of
from finagent_model.market.news import Fact, NewsItem, PublishedRecord
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings

DatedRecord = tuple[tuple[NewsItem, ...], int]
SourceNames = tuple[tuple[Fact, ...], int]


class Market:
    """Bars, news and fundamentals by symbol; each symbol is read once."""

    def __init__(
        self,
        bars: BarSource,
        news: NewsSource | None,
        facts: FundamentalsSource | None = None,
        pinned: Mapping[str, BarsSnapshot] | None = None,
    ) -> None:
        """`pinned` are bars that a training has seen: of their symbols, no others are to be had."""
        self.source = bars
        self._news_source = news
        self._facts_source = facts
        self._pinned = pinned or {}
        self._bars: dict[str, BarSeries] = {}
        self._news: dict[str, DatedRecord] = {}
        self._facts: dict[str, SourceNames] = {}

    @classmethod
    def of(cls, settings: Settings, pinned: Mapping[str, BarsSnapshot] | None = None) -> Market:
        """The sources that the environment names, else the embedded bars and events. Raises
        ConfigError for a name that means nothing.
        """
        bars = bar_source(settings, utc_now)
        return cls(bars, news_source(settings), fundamentals_source(settings), pinned)

    def bars(self, symbol: str, as_of: datetime | None = None) -> BarSeries:
        """All bars; a vendor is asked again only if those that were kept don't reach `as_of`.
        Raises UnknownSymbolError, DataSourceError, InvalidBarsError and HomeError.
        """
        if symbol in self._pinned:
            if symbol not in self._bars:
                self._bars[symbol] = self._as_seen(symbol, self._pinned[symbol])
        elif isinstance(self.source, CachedBars):
            self._bars[symbol] = self.source.reaching(symbol, as_of)
        elif symbol not in self._bars:
            self._bars[symbol] = self.source.bars(symbol)
        return self._bars[symbol]

    def seen(self, symbol: str) -> BarsSnapshot | None:
        """What was read of `symbol`; None: nothing yet. Nothing is read for it."""
        if symbol not in self._bars:
            return None
        if symbol in self._pinned:
            return self._pinned[symbol]
        if isinstance(self.source, CachedBars | StoredBars):
            return self.source.seen(symbol)
        return BarsSnapshot.of(self._bars[symbol], self.source.name)

    def kept(self, symbol: str, content_hash: str) -> BarSeries | None:
        """The bars of that hash, if they were fetched and kept; no vendor is asked."""
        if not isinstance(self.source, CachedBars):
            return None
        return self.source.exactly(symbol, content_hash)

    def _as_seen(self, symbol: str, seen: BarsSnapshot) -> BarSeries:
        """The bars that `seen` names: kept, or cut from what there is now."""
        if (kept := self.kept(symbol, seen.content_hash)) is not None:
            return kept
        if isinstance(self.source, CachedBars):
            found = self.source.reaching(symbol, seen.last)
        else:
            found = self.source.bars(symbol)
        series = found.until(seen.last)
        if series.digest() != seen.content_hash:
            raise DataSourceError(
                f"bars of {symbol} are not those that the training began with "
                f"({seen.content_hash[:12]} of {seen.source}, to {seen.last:%Y-%m-%d}): they were "
                "changed since; train again, or name what was kept: FINAGENT_BARS=kept:HASH"
            )
        return series

    def news(self, symbol: str) -> DatedRecord:
        if self._news_source is None:
            return (), 0
        if symbol not in self._news:
            with vendor_errors(f"the source of news, asked for {symbol},"):
                self._news[symbol] = oldest_first(self._news_source.news(symbol), NewsItem)
        return self._news[symbol]

    def facts(self, symbol: str) -> SourceNames:
        if self._facts_source is None:
            return (), 0
        if symbol not in self._facts:
            with vendor_errors(f"the source of fundamentals, asked for {symbol},"):
                self._facts[symbol] = oldest_first(self._facts_source.facts(symbol), Fact)
        return self._facts[symbol]

    def view(
        self,
        symbol: str,
        as_of: datetime,
        bars: BarSeries | None = None,
        news: DatedRecord | None = None,
    ) -> MarketView:
        """The view at `as_of`, from what the caller brings and, for the rest, from the sources."""
        return MarketView.at(
            as_of,
            self.bars(symbol, as_of) if bars is None else bars,
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
        days = (parse_as_of(bars.close_time(i).date()) for i in positions)
        return [MarketView.at(day, bars, *news, *facts) for day in days]


def _written(items: Sequence[PublishedRecord], undated: int) -> str:
    return "".join(item.model_dump_json() for item in items) + str(undated)
