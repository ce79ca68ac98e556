"""All that is knowable about one symbol at `as_of`, and nothing else.

The view is built once and handed on; whoever holds it has no way back to the source, and so none to
the future.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from finagent_model.errors import NoBarsError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import Fact, NewsItem, newest

MAX_STALE_SESSIONS = 5
"""Weekdays that may lie between the last bar and `as_of`: a long holiday week, not a dead series.
"""
NEWS_LIMIT = 20
"""The most recent items that a view carries."""
NEWS_DAYS = timedelta(days=90)
"""Older items are history, not news."""
FACTS_LIMIT = 40
"""The most recently published fundamentals that a view carries."""


@dataclass(frozen=True, eq=False)
class MarketView:
    """Frozen at `as_of`: bars closed by then, news and fundamentals published by then."""

    symbol: str
    as_of: datetime
    bars: BarSeries
    news: tuple[NewsItem, ...] = ()
    undated_news: int = 0
    """Items dropped because nobody said when they were published."""
    fundamentals: tuple[Fact, ...] = ()
    """Of each name and period the last published, oldest first."""
    undated_facts: int = 0

    @classmethod
    def at(
        cls,
        as_of: datetime,
        bars: BarSeries,
        news: tuple[NewsItem, ...] = (),
        undated_news: int = 0,
        facts: tuple[Fact, ...] = (),
        undated_facts: int = 0,
    ) -> MarketView:
        """Cut a history at `as_of` (tz-aware), news to the last `NEWS_DAYS`. Raises NoBarsError."""
        known = bars.until(as_of)
        if len(known) == 0:
            raise NoBarsError(bars.symbol, as_of, bars.closed(0) if len(bars) else None)
        published = tuple(n for n in news if as_of - NEWS_DAYS < n.published_at <= as_of)
        stated = newest(tuple(f for f in facts if f.published_at <= as_of), FACTS_LIMIT)
        return cls(
            bars.symbol,
            as_of,
            known,
            published[-NEWS_LIMIT:],
            undated_news,
            stated,
            undated_facts,
        )

    @property
    def last_close(self) -> float:
        """Price of the last closed bar, as traded."""
        return float(self.bars.close[-1])

    @property
    def stale_sessions(self) -> int:
        """Weekdays between the last bar and `as_of`; 0 when the last bar is of that day."""
        last, now = self.bars.closed(-1).date(), self.as_of.date()
        return int(np.busday_count(last, now)) if now > last else 0

    @property
    def sessions_without_bar(self) -> int:
        """Weekdays after the last bar's, up to and with that of `as_of`: holidays, or bars that are
        not there yet.
        """
        day = np.timedelta64(1, "D")
        last, now = (np.datetime64(at.date()) + day for at in (self.bars.closed(-1), self.as_of))
        return int(np.busday_count(last, now)) if now > last else 0

    @property
    def is_stale(self) -> bool:
        return self.stale_sessions > MAX_STALE_SESSIONS
