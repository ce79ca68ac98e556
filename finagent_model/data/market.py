"""The market: one place that puts the sources of bars, news and fundamentals together.

CLI, REST, DAG and notebook all build their views here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from operator import is_

from finagent_model.data._source_registry import (
    make_bar_source,
    make_fundamentals_source,
    make_news_source,
)
from finagent_model.data.bar_cache import CachedBars, StoredBars, utc_now
from finagent_model.data.protocols import (
    BarSource,
    FundamentalsSource,
    NewsSource,
    sort_records,
    wrap_vendor_errors,
)
from finagent_model.data.snapshots import BarsSnapshot, Kind
from finagent_model.errors import DataSourceError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import Fact, NewsItem, PublishedRecord
from finagent_model.market.view import MarketView
from finagent_model.settings import Settings

DatedNews = tuple[tuple[NewsItem, ...], int]
DatedFacts = tuple[tuple[Fact, ...], int]
"""Records oldest first, and how many were dropped as undated."""
_Sources = tuple[BarSeries, DatedNews, DatedFacts]
MAX_VIEWS = 128
"""Views that are kept, the oldest are dropped: a history of ten years of days takes 150 kB."""


class Market:
    """Bars, news and fundamentals by symbol; each symbol is read once."""

    def __init__(
        self,
        bars: BarSource,
        news: NewsSource | None,
        facts: FundamentalsSource | None = None,
        pinned: Mapping[str, BarsSnapshot] | None = None,
    ) -> None:
        """Read from these sources; symbols in `pinned` have the bars of that snapshot, no others.

        A training pins its bars, so that what it decides later is made from the same history.
        """
        self.source = bars
        self._news_source = news
        self._facts_source = facts
        self._pinned = pinned or {}
        self._bars: dict[str, BarSeries] = {}
        self._news: dict[str, DatedNews] = {}
        self._facts: dict[str, DatedFacts] = {}
        self._lock = threading.Lock()
        self._views: dict[tuple[str, datetime], tuple[_Sources, MarketView]] = {}
        """Views that were asked for: a server is asked about one moment many times."""

    @classmethod
    def from_settings(
        cls, settings: Settings, pinned: Mapping[str, BarsSnapshot] | None = None
    ) -> Market:
        """Return the market of the sources that the environment names, by default the bundled ones.

        Raises ConfigError for a name that means nothing.
        """
        bars = make_bar_source(settings, utc_now)
        return cls(bars, make_news_source(settings), make_fundamentals_source(settings), pinned)

    def bars(self, symbol: str, as_of: datetime | None = None) -> BarSeries:
        """Return all bars of `symbol`; a vendor is asked only if the cache doesn't cover `as_of`.

        Raises UnknownSymbolError, DataSourceError, InvalidBarsError and LocalStateError.
        """
        series = self._bars.get(symbol)
        if symbol in self._pinned:
            if series is None:
                series = self._pinned_bars(symbol, self._pinned[symbol])
        elif isinstance(self.source, CachedBars):
            # Asked each time: whether the cache is enough depends on `as_of`.
            series = self.source.bars_as_of(symbol, as_of)
        elif series is None:
            series = self.source.bars(symbol)
        self._bars[symbol] = series
        # Not read back: another thread may have put those of another moment there.
        return series

    def snapshot(self, symbol: str) -> BarsSnapshot | None:
        """Return the snapshot of the bars that were read of `symbol`; None if none were."""
        if symbol not in self._bars:
            return None
        if symbol in self._pinned:
            return self._pinned[symbol]
        if isinstance(self.source, CachedBars | StoredBars):
            return self.source.snapshot(symbol)
        return BarsSnapshot.from_bars(self._bars[symbol], self.source.name)

    def bars_by_hash(self, symbol: str, content_hash: str) -> BarSeries | None:
        """Return the cached bars of that hash, or None; no vendor is asked."""
        if not isinstance(self.source, CachedBars):
            return None
        return self.source.bars_by_hash(symbol, content_hash)

    def _pinned_bars(self, symbol: str, pin: BarsSnapshot) -> BarSeries:
        """Return the bars of `pin`, from the cache or cut from today's. Raises DataSourceError."""
        if (series := self.bars_by_hash(symbol, pin.content_hash)) is not None:
            return pin.describe(series)
        if isinstance(self.source, CachedBars):
            series = self.source.bars_as_of(symbol, pin.last)
        else:
            series = self.source.bars(symbol)
        # Later days are no change: look only at as much as there was then.
        series = series.until(pin.last)
        if series.digest() != pin.content_hash:
            raise DataSourceError(
                f"bars of {symbol} are not those that the training began with "
                f"({pin.content_hash[:12]} of {pin.source}, to {pin.last:%Y-%m-%d}): they were "
                "changed since; train again, or name what was kept: FINAGENT_BARS=kept:HASH"
            )
        return pin.describe(series)

    def news(self, symbol: str) -> DatedNews:
        """Return news oldest first, and how many were undated. Raises DataSourceError."""
        if self._news_source is None:
            return (), 0
        if symbol not in self._news:
            with wrap_vendor_errors(f"the source of news, asked for {symbol},"):
                self._news[symbol] = sort_records(self._news_source.news(symbol), NewsItem)
        return self._news[symbol]

    def facts(self, symbol: str) -> DatedFacts:
        """Return fundamentals oldest first, and how many were undated. Raises DataSourceError."""
        if self._facts_source is None:
            return (), 0
        if symbol not in self._facts:
            with wrap_vendor_errors(f"the source of fundamentals, asked for {symbol},"):
                self._facts[symbol] = sort_records(self._facts_source.facts(symbol), Fact)
        return self._facts[symbol]

    def view(
        self,
        symbol: str,
        as_of: datetime,
        bars: BarSeries | None = None,
        news: DatedNews | None = None,
    ) -> MarketView:
        """Return the view at `as_of`; bars or news that the caller brings replace the sources'."""
        sources = (
            self.bars(symbol, as_of) if bars is None else bars,
            self.news(symbol) if news is None else news,
            self.facts(symbol),
        )
        if bars is not None or news is not None:
            return _make_view(as_of, *sources)
        found = self._views.get((symbol, as_of))
        # Only while the sources give the same objects: a vendor's bars may be read anew.
        if found is not None and all(map(is_, found[0], sources)):
            return found[1]
        view = _make_view(as_of, *sources)
        view.allow_memo()
        with self._lock:
            if len(self._views) >= MAX_VIEWS:
                del self._views[next(iter(self._views))]
            self._views[symbol, as_of] = sources, view
        return view

    def bar_views(self, symbol: str, positions: Iterable[int]) -> list[MarketView]:
        """Return a view for each bar position, as of a decision at that bar's close."""
        # Read once for all bars; `MarketView.at` cuts off the future of each.
        bars, news, facts = self.bars(symbol), self.news(symbol), self.facts(symbol)
        moments = (bars.decision_time(i) for i in positions)
        return [MarketView.at(moment, bars, *news, *facts) for moment in moments]

    def digest(self, symbol: str) -> str:
        """Return the SHA-256 of all data of a symbol: what a training depends on."""
        text = self.bars(symbol).digest() + _records_text(*self.news(symbol))
        # Only where there is a source: digests from before there were fundamentals stay valid.
        if self._facts_source is not None:
            text += _records_text(*self.facts(symbol))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def origins(self) -> dict[Kind, str]:
        """What reports call the source of each kind of data."""
        news, facts = _source_name(self._news_source), _source_name(self._facts_source)
        return {"bars": self.source.name, "news": news, "fundamentals": facts}


def _make_view(as_of: datetime, bars: BarSeries, news: DatedNews, facts: DatedFacts) -> MarketView:
    return MarketView.at(as_of, bars, *news, *facts)


def _source_name(source: NewsSource | FundamentalsSource | None) -> str:
    # A plug-in's source need not have a name; its class is what its author calls it.
    return "none" if source is None else str(getattr(source, "name", type(source).__name__))


def _records_text(records: Sequence[PublishedRecord], undated: int) -> str:
    return "".join(record.model_dump_json() for record in records) + str(undated)
