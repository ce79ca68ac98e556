"""The market view: all that is knowable about one symbol at `as_of`, and nothing else.

`MarketView.at` is the one place where look-ahead is cut off. The view is built once and passed on;
it holds no reference to the source, so no agent can reach a later bar.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from finagent_model.errors import NoBarsError
from finagent_model.market.bars import BarSeries, names_day
from finagent_model.market.calendar import ALWAYS
from finagent_model.market.news import Fact, NewsItem, select_latest_facts
from finagent_model.market.timeframe import DAILY

MAX_STALE_SESSIONS = 5
"""Sessions that may lie between the last bar and `as_of`: a long holiday week, not a dead series.
Of bars within a day, that many bars, where the market's hours are known.
"""
MAX_STALE_DAYS = 2
"""Of bars within a day on a calendar without hours: weekdays, of which one may be a holiday."""
MAX_STALE_LONG = 1
"""Of bars of a week or a month: how many may be missing."""
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
    # Not given to copies (`init=False`): what was computed of this view is not true of another.
    memo: dict[object, Any] | None = field(default=None, init=False, repr=False)
    """What readers have computed of this view, by a key of their own; None: nothing is kept."""

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

        A moment that names a day ends with it, or with the open of the next session where that
        comes before. News older than `NEWS_DAYS` is left out. Raises NoBarsError where no bar had
        closed.
        """
        known_until = bars.calendar.end_of(_day(as_of)) if names_day(as_of) else as_of
        # Midnight ends the day: a bar that closes then is the day's last, but news is tomorrow's.
        is_whole_day = bars.midnight_ends_day and known_until == as_of and names_day(as_of)
        step = timedelta(microseconds=1 if is_whole_day and _day(as_of) < date.max else 0)
        closed_bars = bars.until(known_until + step)
        if len(closed_bars) == 0:
            raise NoBarsError(bars.symbol, as_of, bars.close_time(0) if len(bars) else None)
        # Half-open: an item exactly NEWS_DAYS old is history.
        recent_news = tuple(n for n in news if as_of - NEWS_DAYS < n.published_at <= known_until)
        # The cut comes first: a later restatement must not replace what was published by then.
        published_facts = tuple(f for f in facts if f.published_at <= known_until)
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

    def allow_memo(self) -> None:
        """Let readers keep what they compute of this view: it will be asked about again."""
        object.__setattr__(self, "memo", {})

    @property
    def last_close(self) -> float:
        """Price of the last closed bar, as traded."""
        return float(self.bars.close[-1])

    @property
    def counts_bars(self) -> bool:
        """Whether staleness is told in bars, and not in sessions."""
        timeframe, calendar = self.bars.timeframe, self.bars.calendar
        return timeframe != DAILY and (
            not timeframe.is_intraday or calendar == ALWAYS or calendar.is_exchange
        )

    @property
    def stale_sessions(self) -> int:
        """Sessions from the last bar's up to, without, that of `as_of`; 0 on the same day.

        Bars that are missing since, where `counts_bars`.
        """
        if self.counts_bars:
            return self.sessions_without_bar
        return self.bars.calendar.count_sessions(self.bars.day(-1), _day(self.as_of))

    @property
    def sessions_without_bar(self) -> int:
        """Sessions after the last bar's, up to and with that of `as_of`.

        They are holidays, where the calendar has none, or days whose bars have not arrived. Bars
        that are missing since, where `counts_bars`.
        """
        bars, today = self.bars, _day(self.as_of)
        if self.counts_bars:
            return bars.calendar.count_bars(bars.timeframe, bars.close_time(-1), self.as_of)
        close = bars.calendar.close_of(today)
        # A session that goes on has no bar yet.
        stop = today if close and self.as_of < close else _next(today)
        return bars.calendar.count_sessions(_next(bars.day(-1)), stop)

    @property
    def max_stale(self) -> int:
        """How many sessions, or bars, may lie between the last bar and `as_of`."""
        timeframe = self.bars.timeframe
        if timeframe.length > DAILY.length:
            return MAX_STALE_LONG
        return MAX_STALE_SESSIONS if self.counts_bars or timeframe == DAILY else MAX_STALE_DAYS

    @property
    def is_stale(self) -> bool:
        """Whether the last bar is too old to decide on."""
        return self.stale_sessions > self.max_stale


def _next(day: date) -> date:
    return day + timedelta(days=1) if day < date.max else day


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()
