"""A table of one symbol's bars as users have it, from a file or a database.

Columns, in any case and order: `date` or `closed_at`, `open`, `high`, `low`, `close`; optionally
`volume`, and either `split` and `dividend` or `adj_close` (also `adj close`), from which those two
are worked out. Others are ignored, but not other names of actions. Prices are as traded, not
adjusted.

Under `date` stands a day: alone, or as its midnight, in whatever zone that was written. Under
`closed_at` a time of day with its zone is when the bar closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, time
from typing import Any

import numpy as np
import pandas as pd

from finagent_model.data.actions import actions_from_adjusted
from finagent_model.domain.bars import ACTIONS, PRICES, BarSeries, Floats
from finagent_model.errors import InvalidBarsError

CLOSES = "closed_at"
DATES = (CLOSES, "date", "unnamed:_0")
"""The last is what pandas reads where it wrote a table with its index."""
ADJUSTED = "adj_close"
COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)")
"""20120629, the other way of ISO."""
THEIRS = ("stock_splits", "splits", "dividends")
"""Names of `yfinance` and others for actions; its prices have the splits in them already."""
COLUMNS = (*DATES, *PRICES, "volume", *ACTIONS, ADJUSTED, *THEIRS)


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
    _refuse_lost_actions({column_name(given): str(given) for given in table.columns})
    known = [when, *(c for c in (*PRICES, "volume", *ACTIONS) if c in frame.columns)]
    tidy = frame[known].rename(columns={when: CLOSES})
    told = [_told(value) for value in tidy[CLOSES]]
    tidy[CLOSES] = told if when == CLOSES else [_day(symbol, *row) for row in enumerate(told)]
    if {ADJUSTED, "close"} <= set(frame.columns) and not set(ACTIONS) & set(frame.columns):
        tidy["split"], tidy["dividend"] = actions_from_adjusted(
            symbol, _floats(frame, "close"), _floats(frame, ADJUSTED)
        )
    return BarSeries.from_frame(symbol, tidy)


def _refuse_lost_actions(columns: Mapping[str, str]) -> None:
    """Of columns by our names, as they were written."""
    if theirs := [columns[name] for name in THEIRS if name in columns]:
        raise InvalidBarsError(
            f"column {theirs[0]!r} is not read: a table of yfinance's has its splits in the prices "
            "already, so set FINAGENT_BARS=yfinance, which undoes them; where yours are as traded, "
            "call the columns 'split' and 'dividend'"
        )
    given = [name for name in ACTIONS if name in columns]
    if ADJUSTED in columns and len(given) == 1:
        missing = next(name for name in ACTIONS if name not in columns)
        raise InvalidBarsError(
            f"column {missing!r} is missing beside {given[0]!r}; add it, or leave out {given[0]!r} "
            f"so that both are worked out from {ADJUSTED!r}, or leave out {ADJUSTED!r} if there "
            "are none"
        )


def _told(value: Any) -> Any:
    """What a cell says of its moment: in ISO's way, where it is a time or 20120629."""
    text = value.isoformat() if hasattr(value, "isoformat") else value
    compact = COMPACT.fullmatch(str(text))
    return "-".join(compact.groups()) if compact else text


def _day(symbol: str, bar: int, told: Any) -> Any:
    """The day whose midnight was `told`: midnight in Tokyo is the evening before in UTC, and in New
    York the hours before that day's open. What is no time is left for the series to refuse.
    """
    if not isinstance(told, str) or told[4:5] != "-":
        return told
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        return told
    if moment.time() != time.min:
        raise InvalidBarsError(
            f"bars of {symbol}: date {told!r} at bar {bar} has a time of day; write the day alone, "
            f"or call the column {CLOSES!r} if it says, with a zone, when a bar closed"
        )
    return moment.date().isoformat()


def _floats(frame: pd.DataFrame, column: str) -> Floats:
    try:
        return np.array(frame[column], dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidBarsError(f"{column} holds something that is no number") from None
