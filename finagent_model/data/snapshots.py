"""Names of data by their content: which bars, news and facts a run was given.

A name says what the data are (`GOOG bars`), a SHA-256 exactly which; equal content has an equal
hash, whatever its source. The data themselves stay where they are.

Bars are as traded, so a later split changes none of them. If a vendor's history differs from what
it was before, a bar was corrected or lost: `compare_bars` names those changes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.market.bars import ACTIONS, CLOSE_TIME, PRICES, BarSeries, from_datetime64
from finagent_model.market.calendar import WEEKDAYS, get_calendar
from finagent_model.market.news import PublishedRecord
from finagent_model.market.quality import inspect_bars
from finagent_model.market.timeframe import DAILY, parse_timeframe

Kind = Literal["bars", "news", "fundamentals"]
DIGEST_LENGTH = 32
"""Hex digits of a data set's digest; MLflow keeps at most 36."""
# A Yahoo price that lies between two steps of its rounding falls on one or the other, depending on
# the splits that are undone.
TOLERANCE = 3e-6
"""Values closer than this, as a fraction, count as equal."""
# Vendors round these in today's shares; late trades also change the volumes of past days.
COARSE_TOLERANCES = {"dividend": 1e-3, "volume": 1e-2}
_CLOSE_HOUR = timedelta(hours=time.fromisoformat(CLOSE_TIME).hour)


@dataclass(frozen=True)
class Dataset:
    """The name of one symbol's data of one kind. Never empty: no data, no data set."""

    symbol: str
    kind: Kind
    sha256: str
    source: str
    """The word for the source, such as `bundled`."""
    rows: int
    first: datetime
    last: datetime

    @classmethod
    def from_bars(cls, bars: BarSeries, source: str) -> Self:
        """Name `bars`, of which there is at least one."""
        first, last = bars.close_time(0), bars.close_time(-1)
        return cls(bars.symbol, "bars", bars.digest(), source, len(bars), first, last)

    @classmethod
    def from_records(
        cls, symbol: str, kind: Kind, records: Sequence[PublishedRecord], source: str
    ) -> Self | None:
        """Name news or facts, in their order; None where there are none."""
        if not records:
            return None
        text = "\n".join([symbol, *(record.model_dump_json() for record in records)])
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        days = [record.published_at for record in records]
        return cls(symbol, kind, sha256, source, len(records), min(days), max(days))

    @property
    def name(self) -> str:
        """Symbol and kind, such as `GOOG bars`."""
        return f"{self.symbol} {self.kind}"

    @property
    def digest(self) -> str:
        """The hash as far as MLflow keeps it, and as people copy it."""
        return self.sha256[:DIGEST_LENGTH]

    def row(self) -> dict[str, Any]:
        """Return name, digest and fields, JSON-ready."""
        dates = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {"name": self.name, "digest": self.digest, **vars(self), **dates}


class BarChange(FrozenModel):
    """One field of a bar that differs from an earlier snapshot."""

    closed_at: datetime
    field: str
    """A column of a bar series, or `bar` for one that came or went as a whole."""
    before: float | None
    """None: undefined, or there was no such bar. For a `bar` this is the close."""
    after: float | None


class BarsSnapshot(FrozenModel):
    """A symbol's bars at one moment: source, content hash, fetch time and what was revised."""

    source: str
    """Name of the source, without user and password."""
    content_hash: str
    """SHA-256 of all bars, from `BarSeries.digest`."""
    fetched_at: datetime | None
    """When the vendor was asked; None for data on this machine."""
    bars: int
    first: datetime
    last: datetime
    """When the last bar closed."""
    revised: int = 0
    """Number of fields that differ from the source's earlier snapshot."""
    changes: tuple[BarChange, ...] = ()
    """The first of them."""
    notes: tuple[str, ...] = ()
    """What a reader should know about how the source was read."""
    findings: tuple[str, ...] = ()
    """What is odd about the bars themselves, from `inspect_bars`."""
    # Left out of a dump for daily bars on weekdays, which are the most.
    timeframe: str = Field(DAILY.name, exclude_if=lambda name: name == DAILY.name)
    """How long a bar is."""
    calendar: str = Field(WEEKDAYS.name, exclude_if=lambda name: name == WEEKDAYS.name)
    """When the market is open."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes and findings, one sentence each."""
        return (*self.notes, *self.findings)

    @classmethod
    def from_bars(
        cls,
        series: BarSeries,
        source: str,
        fetched_at: datetime | None = None,
        changes: tuple[BarChange, ...] = (),
        max_changes: int = 20,
    ) -> Self:
        """Describe `series`, of which there is at least one bar; list `max_changes` at most."""
        return cls(
            source=source,
            content_hash=series.digest(),
            fetched_at=fetched_at,
            bars=len(series),
            first=series.close_time(0),
            last=series.close_time(-1),
            revised=len(changes),
            changes=changes[:max_changes],
            notes=series.notes,
            findings=inspect_bars(series),
            timeframe=series.timeframe.name,
            calendar=series.calendar.name,
        )

    def describe(self, series: BarSeries) -> BarSeries:
        """Return stored bars with what this snapshot knows beside them."""
        return replace(
            series,
            # Signals carry the notes: those of then, so that a decision repeats to the letter.
            notes=self.notes,
            timeframe=parse_timeframe(self.timeframe),
            calendar=get_calendar(self.calendar),
        )

    def covers(self, as_of: datetime) -> bool:
        """Tell whether these bars are all that could be known at `as_of`.

        They are if they include that day's bar, or if the vendor was asked after `as_of` and they
        include the bar of the last weekday that had closed.
        """
        if self.fetched_at is None:
            return True
        timeframe, calendar = parse_timeframe(self.timeframe), get_calendar(self.calendar)
        if timeframe != DAILY:
            # A bar that is late is asked for again.
            return calendar.count_bars(timeframe, self.last, as_of) == 0
        early = timedelta(microseconds=1 if calendar.ends_at_midnight else 0)
        if (day := (self.last - early).date()) >= as_of.date():
            return True
        if calendar != WEEKDAYS:
            after, stop = (each + timedelta(days=1) for each in (day, last_day(as_of)))
            return self.fetched_at >= as_of and calendar.count_sessions(after, stop) == 0
        # Weekdays know no holiday: it looks like a bar that is late.
        return self.fetched_at >= as_of and day >= last_close(as_of)


def last_day(as_of: datetime) -> date:
    """Return the last day whose bar is closed at `as_of`, for bars that have a date alone."""
    # Before the hour of the close, the last bar is the day before's.
    return (as_of.astimezone(UTC) - _CLOSE_HOUR).date()


def last_close(as_of: datetime) -> date:
    """Return the last weekday whose bar is closed at `as_of`, for bars that have a date alone."""
    day = last_day(as_of)
    return day - timedelta(days=max(0, day.weekday() - 4))


def compare_bars(before: BarSeries, after: BarSeries) -> tuple[BarChange, ...]:
    """Return what differs in `after` from the first to the last bar of `before`, oldest first."""
    start = int(np.searchsorted(after.closed_at, before.closed_at[0]))
    stop = int(np.searchsorted(after.closed_at, before.closed_at[-1], side="right"))
    # Days before and after are new, which is no revision.
    after = after[start:stop]
    changes = [
        *_whole_bars(before, np.setdiff1d(before.closed_at, after.closed_at), removed=True),
        *_whole_bars(after, np.setdiff1d(after.closed_at, before.closed_at), removed=False),
    ]
    moments, rows_before, rows_after = np.intersect1d(
        before.closed_at, after.closed_at, assume_unique=True, return_indices=True
    )
    for field in (*PRICES, "volume", *ACTIONS):
        old, new = getattr(before, field)[rows_before], getattr(after, field)[rows_after]
        tolerance = COARSE_TOLERANCES.get(field, TOLERANCE)
        equal = np.isclose(old, new, rtol=tolerance, atol=0.0, equal_nan=True)
        changes += [
            BarChange(
                closed_at=from_datetime64(moments[i]),
                field=field,
                before=_finite_or_none(old[i]),
                after=_finite_or_none(new[i]),
            )
            for i in np.flatnonzero(~equal)
        ]
    return tuple(sorted(changes, key=lambda change: change.closed_at))


def _whole_bars(
    series: BarSeries, moments: npt.NDArray[np.datetime64], *, removed: bool
) -> list[BarChange]:
    """Return a change for each bar of `series` that closed at one of `moments`."""
    changes = []
    for i in np.flatnonzero(np.isin(series.closed_at, moments)):
        close = float(series.close[i])
        before, after = (close, None) if removed else (None, close)
        changes.append(
            BarChange(closed_at=series.close_time(int(i)), field="bar", before=before, after=after)
        )
    return changes


def _finite_or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
