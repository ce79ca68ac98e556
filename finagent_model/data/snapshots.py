"""What a run was given to look at, named by its content: a symbol's bars, its news, its
fundamentals. The data itself stay where they are.

A name says what it is (`GOOG bars`), a SHA-256 exactly which. Equal content has an equal hash,
wherever it came from.

What a vendor says differently about days that it had spoken of before.

Bars are as traded, so that a split changes nothing before it: what differs was corrected, or lost.

Which bars of a symbol a run has seen, named by their content so that they can be found again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from finagent_model._base import FrozenModel
from finagent_model.market.bars import ACTIONS, CLOSE_TIME, PRICES, BarSeries, from_datetime64
from finagent_model.market.news import PublishedRecord

Kind = Literal["bars", "news", "fundamentals"]
DIGITS = 32
"""Of the hash; MLflow keeps at most 36 of a data set's."""


@dataclass(frozen=True)
class Dataset:
    """Never empty: where there is nothing, there is no data set."""

    symbol: str
    kind: Kind
    sha256: str
    source: str
    """The word for where it came from, such as `bundled`."""
    rows: int
    first: datetime
    last: datetime

    @property
    def name(self) -> str:
        return f"{self.symbol} {self.kind}"

    @property
    def digest(self) -> str:
        """The hash as far as MLflow keeps it, and as people copy it."""
        return self.sha256[:DIGITS]

    def row(self) -> dict[str, Any]:
        """JSON-ready."""
        dates = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return {"name": self.name, "digest": self.digest, **vars(self), **dates}


def dataset_of_bars(bars: BarSeries, source: str) -> Dataset:
    """`bars` holds at least one."""
    dates = bars.close_time(0), bars.close_time(-1)
    return Dataset(bars.symbol, "bars", bars.digest(), source, len(bars), *dates)


def dataset_of_items(
    symbol: str, kind: Kind, items: Sequence[PublishedRecord], source: str
) -> Dataset | None:
    """News or facts in their order; None where there are none."""
    if not items:
        return None
    told = "\n".join([symbol, *(item.model_dump_json() for item in items)])
    days = [item.published_at for item in items]
    sha256 = hashlib.sha256(told.encode()).hexdigest()
    return Dataset(symbol, kind, sha256, source, len(items), min(days), max(days))


NOISE = 3e-6
"""Values closer than this, as a fraction, are equal: a price of Yahoo's that lies between two steps
of its rounding falls on one or the other, by the splits that are undone.
"""
COARSE = {"dividend": 1e-3, "volume": 1e-2}
"""The same of what vendors round in today's shares; volumes also change for days by late trades."""


def bar_changes(before: BarSeries, after: BarSeries) -> tuple[BarChange, ...]:
    """By day and field, for the days from the first to the last bar of `before`."""
    known = after[
        int(np.searchsorted(after.closed_at, before.closed_at[0])) : int(
            np.searchsorted(after.closed_at, before.closed_at[-1], side="right")
        )
    ]
    found = [
        *_whole_bars(before, np.setdiff1d(before.closed_at, known.closed_at), gone=True),
        *_whole_bars(known, np.setdiff1d(known.closed_at, before.closed_at), gone=False),
    ]
    both, ours, theirs = np.intersect1d(
        before.closed_at, known.closed_at, assume_unique=True, return_indices=True
    )
    for field in (*PRICES, "volume", *ACTIONS):
        old, new = getattr(before, field)[ours], getattr(known, field)[theirs]
        same = np.isclose(old, new, rtol=COARSE.get(field, NOISE), atol=0.0, equal_nan=True)
        found += [
            BarChange(
                closed_at=from_datetime64(both[i]),
                field=field,
                before=_stored(old[i]),
                after=_stored(new[i]),
            )
            for i in np.flatnonzero(~same)
        ]
    return tuple(sorted(found, key=lambda change: change.closed_at))


def _whole_bars(
    series: BarSeries, moments: npt.NDArray[np.datetime64], *, gone: bool
) -> list[BarChange]:
    found = []
    for i in np.flatnonzero(np.isin(series.closed_at, moments)):
        close = float(series.close[i])
        before, after = (close, None) if gone else (None, close)
        found.append(
            BarChange(closed_at=series.close_time(int(i)), field="bar", before=before, after=after)
        )
    return found


def _stored(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


_CLOSE = timedelta(hours=time.fromisoformat(CLOSE_TIME).hour)


class BarChange(FrozenModel):
    """A field of a bar that was known, and differs now."""

    closed_at: datetime
    field: str
    """A column of a bar series, or `bar` for one that came or went as a whole."""
    before: float | None
    """None: undefined, or there was no such bar; of a `bar` it is the close."""
    after: float | None


class BarsSnapshot(FrozenModel):
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
    changes: tuple[BarChange, ...] = ()
    """The first of them."""

    @classmethod
    def of(
        cls,
        series: BarSeries,
        source: str,
        fetched_at: datetime | None = None,
        changes: tuple[BarChange, ...] = (),
        shown: int = 20,
    ) -> Self:
        return cls(
            source=source,
            content_hash=series.digest(),
            fetched_at=fetched_at,
            bars=len(series),
            first=series.close_time(0),
            last=series.close_time(-1),
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
