"""The market view: all that is knowable about one symbol at `as_of`, and nothing else.

`MarketView.at` is the one place where look-ahead is cut off. The view is built once and passed on;
it holds no reference to the source, so no agent can reach a later bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from finagent_model.errors import NoBarsError
from finagent_model.market.bars import BarSeries
from finagent_model.market.news import Fact, NewsItem, select_latest_facts

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
    """Bars closed, and news and fundamentals published, at or before `as_of`; immutable."""

    symbol: str
    as_of: datetime
    bars: BarSeries
    news: tuple[NewsItem, ...] = ()
    undated_news: int = 0
    """Items dropped because nobody said when they were published."""
    fundamentals: tuple[Fact, ...] = ()
    """The last published of each name and period, oldest first."""
    undated_facts: int = 0
    """Facts dropped because nobody said when they were published."""

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
        """Return the view of a history at `as_of` (tz-aware), with everything later cut off.

        News older than `NEWS_DAYS` is left out. Raises NoBarsError where no bar had closed.
        """
        closed_bars = bars.until(as_of)
        if len(closed_bars) == 0:
            raise NoBarsError(bars.symbol, as_of, bars.close_time(0) if len(bars) else None)
        # Half-open: an item exactly NEWS_DAYS old is history.
        recent_news = tuple(n for n in news if as_of - NEWS_DAYS < n.published_at <= as_of)
        # The cut comes first: a later restatement must not replace what was published by then.
        published_facts = tuple(f for f in facts if f.published_at <= as_of)
        return cls(
            bars.symbol,
            as_of,
            closed_bars,
            # Sources give items oldest first.
            recent_news[-NEWS_LIMIT:],
            undated_news,
            select_latest_facts(published_facts, FACTS_LIMIT),
            undated_facts,
        )

    @property
    def last_close(self) -> float:
        """Price of the last closed bar, as traded."""
        return float(self.bars.close[-1])

    @property
    def stale_sessions(self) -> int:
        """Weekdays from the last bar's up to, without, that of `as_of`; 0 on the same day."""
        last, today = self.bars.close_time(-1).date(), self.as_of.date()
        return _count_weekdays(np.datetime64(last), np.datetime64(today))

    @property
    def sessions_without_bar(self) -> int:
        """Weekdays after the last bar's, up to and with that of `as_of`.

        They are holidays, or days whose bars have not arrived.
        """
        day = np.timedelta64(1, "D")
        last, today = self.bars.close_time(-1).date(), self.as_of.date()
        return _count_weekdays(np.datetime64(last) + day, np.datetime64(today) + day)

    @property
    def is_stale(self) -> bool:
        """Whether the last bar is too old to decide on: over `MAX_STALE_SESSIONS` sessions."""
        return self.stale_sessions > MAX_STALE_SESSIONS


def _count_weekdays(start: np.datetime64, stop: np.datetime64) -> int:
    """Return the weekdays in [start, stop); 0 if `stop` is not after `start`."""
    # Numpy knows weekends but no holidays; MAX_STALE_SESSIONS leaves room for those.
    return int(np.busday_count(start, stop)) if stop > start else 0
