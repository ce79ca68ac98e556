"""Mends the few bad rows that a vendor's history has: each is counted and said, none is invented.

A high or low that misses open or close by a hair is widened to hold it. A row with a price that is
missing, not above 0 or out of its range is passed over, and its split or dividend goes to the next
bar. Of a day that is there twice in a row the later row counts. Where more than a few rows are bad
nothing is mended, and the first is refused in the words of whoever reads them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from finagent_model.market.bars import ACTIONS, PRICES

MAX_BAD_SHARE = 0.05
"""Of the rows; beyond it a file isn't understood, rather than noisy."""
MAX_WIDENED = 0.001
"""How far, as a fraction, open or close may lie outside of high and low to be taken for noise."""
Mask = npt.NDArray[np.bool_]
Moments = npt.NDArray[np.datetime64]


def mend_prices(
    prices: pd.DataFrame, moments: Moments, extra: Mask | None = None, noise: float = 0.0
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a table of open, high, low and close with its bad rows mended, and notes.

    A row that is passed over has no prices afterwards. `extra` marks rows that are bad for another
    reason. Up to `noise`, as a fraction, open and close may lie outside of high and low: whoever
    rounds the prices later leaves none of it. Rows without any price are none, and nothing is said
    of them.
    """
    values = prices[list(PRICES)].to_numpy(dtype=np.float64)
    is_row = ~np.isnan(values).all(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bad = is_row & ~(np.isfinite(values) & (values > 0)).all(axis=1)
        bad |= is_row & (np.zeros(len(values), bool) if extra is None else extra)
        opened, high, low, close = values.T
        top, bottom = np.maximum(opened, close), np.minimum(opened, close)
        outside = np.maximum(top / high, low / bottom) - 1.0
    narrow = is_row & ~bad & (outside > noise)
    bad |= narrow & (outside > MAX_WIDENED)
    narrow &= ~bad
    count = int(bad.sum() + narrow.sum())
    if count == 0 or count > MAX_BAD_SHARE * is_row.sum():
        return prices, ()
    mended, notes = prices.copy(), []
    if narrow.any():
        mended.loc[narrow, "high"] = np.maximum(top, high)[narrow]
        mended.loc[narrow, "low"] = np.minimum(bottom, low)[narrow]
        worst = f"{outside[narrow].max():.2g}"
        notes.append(
            f"high or low missed open or close by a fraction of {worst} at most on "
            f"{_days(moments, narrow)}; widened"
        )
    if bad.any():
        mended.loc[bad, list(PRICES)] = np.nan
        notes.append(f"prices can't be right on {_days(moments, bad)}; passed over")
    return mended, tuple(notes)


def drop_repeated(
    bars: pd.DataFrame, moments: Moments, actions: Collection[str]
) -> tuple[pd.DataFrame, Mask, tuple[str, ...]]:
    """Return a table without the rows that are followed by another of the same moment, which rows
    stayed, and a note.

    An action that only the dropped row has is kept. Nothing is dropped where such rows are more
    than a few, since then the table holds something else than days, or where actions contradict.
    """
    everything = np.ones(len(moments), bool)
    repeated = np.r_[moments[1:] == moments[:-1], False][: len(moments)]
    if not repeated.any() or repeated.sum() > MAX_BAD_SHARE * len(moments):
        return bars, everything, ()
    kept = bars.copy()
    for name in actions:
        values = kept[name].to_numpy(dtype=np.float64, copy=True)
        for i in np.flatnonzero(repeated):
            # Of a split, 0 and 1 both stand for none.
            own, other = (0.0 if v == ACTIONS.get(name, 0.0) else v for v in values[i : i + 2])
            if own > 0 and other > 0 and own != other:
                return bars, everything, ()
            if own > 0:
                values[i + 1] = own
        kept[name] = values
    note = f"there twice: {_days(moments, repeated)}; the later row counts"
    return kept[~repeated], ~repeated, (note,)


def drop_rows(bars: pd.DataFrame, dropped: Mask) -> pd.DataFrame:
    """Return a table without rows; their splits and dividends go to the next row that stays.

    After the last row that stays they are lost: nobody holds a bar that shows them.
    """
    kept = bars.copy()
    for name, neutral in ACTIONS.items():
        if name not in kept:
            continue
        values = kept[name].to_numpy(dtype=np.float64, copy=True)
        for i in np.flatnonzero(dropped & (values > 0) & (values != neutral)):
            if len(later := np.flatnonzero(~dropped[i:])):
                target = i + later[0]
                # An empty cell, or a split of 0, stands for none.
                other = values[target] if values[target] > 0 else neutral
                values[target] = other * values[i] if name == "split" else other + values[i]
        kept[name] = values
    return kept[~dropped].reset_index(drop=True)


def _days(moments: Moments, mask: Mask) -> str:
    """Return the first moment of a mask, and how many more there are."""
    first = moments[int(np.argmax(mask))]
    is_day = first == first.astype("datetime64[D]")
    text = np.datetime_as_string(first, unit="D" if is_day else "m").replace("T", " ")
    more = int(mask.sum()) - 1
    return f"{text} and {more} more" if more else text
