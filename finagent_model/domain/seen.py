"""Which bars of a symbol a run has seen, named by their content so that they can be found again."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from finagent_model.domain.bars import BarSeries
from finagent_model.domain.row import Row


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
        """Whether these bars are all that could be known at `as_of`: they go up to that day, or the
        vendor was asked after it.
        """
        if self.fetched_at is None or self.fetched_at >= as_of:
            return True
        return self.last.date() >= as_of.date()
