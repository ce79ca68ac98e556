"""A table of one symbol's bars as users have it, from a file or a database.

Columns, in any case and order: `date` or `closed_at`, `open`, `high`, `low`, `close`; optionally
`volume`, and either `split` and `dividend` or `adj_close` (also `adj close`), from which those two
are worked out. Others are ignored. Prices are as traded, not adjusted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from finagent_model.data.actions import actions_from_adjusted
from finagent_model.domain.bars import ACTIONS, PRICES, BarSeries, Floats
from finagent_model.errors import InvalidBarsError

DATES = ("closed_at", "date", "unnamed:_0")
"""The last is what pandas reads where it wrote a table with its index."""
ADJUSTED = "adj_close"
COMPACT = r"^(\d{4})(\d\d)(\d\d)$"
COLUMNS = (*DATES, *PRICES, "volume", *ACTIONS, ADJUSTED)


def column_name(given: object) -> str:
    """`Adj Close` is `adj_close`."""
    return str(given).strip().lower().replace(" ", "_")


def series_of_table(symbol: str, table: pd.DataFrame) -> BarSeries:
    """Raises InvalidBarsError naming the column or the first offending bar."""
    frame = table.rename(columns=column_name)
    if repeated := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise InvalidBarsError(f"column {repeated[0]!r} is there twice; keep one")
    when = next((c for c in DATES if c in frame.columns), None)
    if when is None:
        raise InvalidBarsError(
            "column 'date' is missing; name the column of dates 'date' or 'closed_at'"
        )
    known = [when, *(c for c in (*PRICES, "volume", *ACTIONS) if c in frame.columns)]
    tidy = frame[known].rename(columns={when: "closed_at"})
    if pd.api.types.is_datetime64_dtype(tidy["closed_at"]) and when != "closed_at":
        # A date that was stored as midnight; under `closed_at` a naive time is refused instead.
        tidy["closed_at"] = tidy["closed_at"].dt.strftime("%Y-%m-%d")
    elif pd.api.types.is_integer_dtype(tidy["closed_at"]):  # 20120629, the other way of ISO
        tidy["closed_at"] = (
            tidy["closed_at"].astype(str).str.replace(COMPACT, r"\1-\2-\3", regex=True)
        )
    if {ADJUSTED, "close"} <= set(frame.columns) and not set(ACTIONS) & set(frame.columns):
        tidy["split"], tidy["dividend"] = actions_from_adjusted(
            symbol, _floats(frame, "close"), _floats(frame, ADJUSTED)
        )
    return BarSeries.from_frame(symbol, tidy)


def _floats(frame: pd.DataFrame, column: str) -> Floats:
    try:
        return np.array(frame[column], dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidBarsError(f"{column} holds something that is no number") from None
