"""What a vendor says differently about days that it had spoken of before.

Bars are as traded, so that a split changes nothing before it: what differs was corrected, or lost.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from finagent_model.domain.bars import ACTIONS, PRICES, BarSeries, from_datetime64
from finagent_model.domain.seen import Change

NOISE = 3e-6
"""Values closer than this, as a fraction, are equal: a price of Yahoo's that lies between two steps
of its rounding falls on one or the other, by the splits that are undone.
"""
COARSE = {"dividend": 1e-3, "volume": 1e-2}
"""The same of what vendors round in today's shares; volumes also change for days by late trades."""


def changes(before: BarSeries, after: BarSeries) -> tuple[Change, ...]:
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
            Change(
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
) -> list[Change]:
    found = []
    for i in np.flatnonzero(np.isin(series.closed_at, moments)):
        close = float(series.close[i])
        before, after = (close, None) if gone else (None, close)
        found.append(
            Change(closed_at=series.closed(int(i)), field="bar", before=before, after=after)
        )
    return found


def _stored(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
