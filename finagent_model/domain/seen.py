"""Which bars of a symbol a run has seen, named by their content so that they can be found again."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Self

from finagent_model.domain.bars import CLOSE_TIME, BarSeries
from finagent_model.domain.row import Row

_CLOSE = timedelta(hours=time.fromisoformat(CLOSE_TIME).hour)


class Change(Row):
    """A field of a bar that was known, and differs now."""

    closed_at: datetime
    field: str
    """A column of a bar series, or `bar` for one that came or went as a whole."""
    before: float | None
    """None: undefined, or there was no such bar; of a `bar` it is the close."""
    after: float | None


class Seen(Row):
    """One reading of a symbol's bars."""

    source: str
    """Name of the source that gave them, without user and password."""
    content_hash: str
    """SHA-256 of all bars, as `BarSeries.digest` makes it."""
    fetched_at: datetime | None
    """When the vendor was asked; None for what lies on this machine."""
    bars: int
    first: datetime
    last: datetime
    """When the last bar closed."""
    revised: int = 0
    """Fields that differ from what the source had said before."""
    changes: tuple[Change, ...] = ()
    """The first of them."""

    @classmethod
    def of(
        cls,
        series: BarSeries,
        source: str,
        fetched_at: datetime | None = None,
        changes: tuple[Change, ...] = (),
        shown: int = 20,
    ) -> Self:
        return cls(
            source=source,
            content_hash=series.digest(),
            fetched_at=fetched_at,
            bars=len(series),
            first=series.closed(0),
            last=series.closed(-1),
            revised=len(changes),
            changes=changes[:shown],
        )

    def reaches(self, as_of: datetime) -> bool:
        """Whether these bars are all that could be known at `as_of`: they have that day's, or the
        vendor was asked after it and they have that of the last weekday that had closed. A holiday
        looks like a bar that is late.
        """
        if self.fetched_at is None or self.last.date() >= as_of.date():
            return True
        return self.fetched_at >= as_of and self.last.date() >= last_close(as_of)


def last_close(as_of: datetime) -> date:
    """The last weekday whose bar is closed at `as_of`, where bars come with a date alone."""
    day = as_of.astimezone(UTC) - _CLOSE
    return day.date() - timedelta(days=max(0, day.weekday() - 4))
