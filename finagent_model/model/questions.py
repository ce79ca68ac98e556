"""Read questions from outside: a table, or the rows of an HTTP request.

What is wrong with a question itself (a column, its symbol, its `as_of`) refuses the batch and names
the row: nothing has been decided by then, and a signal can't be made of it. What is wrong inside
`bars` or `news` is found when the row's view is made, and is the status of that row alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from finagent_model._base import Mode, show_value
from finagent_model.config.parsing import CallLimits, parse_limits, parse_mode
from finagent_model.errors import BadInputError, InvalidBarsError, InvalidNewsError
from finagent_model.market.bars import BarSeries, parse_as_of, parse_symbol
from finagent_model.market.news import NewsItem, read_news

REQUIRED_COLUMNS = ("symbol", "as_of")
NESTED_COLUMNS = ("bars", "news")
COLUMNS = (*REQUIRED_COLUMNS, *NESTED_COLUMNS)
"""Columns of a table of questions, and keys of a row; any other is refused."""
PARAMETERS = ("mode", "budget_usd", "max_rounds")
"""Parameters that hold for all questions of a request; any other is refused."""
MAX_BARS = 20_000
"""Bars that a question may bring: eighty years of days."""
MAX_NEWS = 5_000
"""News items that a question may bring."""


@dataclass(frozen=True)
class Question:
    """A symbol and a moment to decide about, optionally with the data to decide on."""

    symbol: str
    as_of: datetime
    """UTC."""
    bars: object = None
    """Records that replace the bars of the configured source; None: the source's."""
    news: object = None
    """Records that replace the news of the configured source; None: the source's."""

    def read_bars(self) -> BarSeries | None:
        """Return the bars that the question brings, if any. Raises InvalidBarsError."""
        if self.bars is None:
            return None
        records = _read_records("bars", self.bars, MAX_BARS, InvalidBarsError)
        return BarSeries.from_records(self.symbol, records)

    def read_news(self) -> tuple[tuple[NewsItem, ...], int] | None:
        """Return the news that the question brings, if any, and how many items have no time.

        Raises InvalidNewsError.
        """
        if self.news is None:
            return None
        records = _read_records("news", self.news, MAX_NEWS, InvalidNewsError)
        for i, record in enumerate(records):
            # `NewsItem` ignores other keys, since vendors send them. Here one is a misspelling.
            if isinstance(record, dict):
                _require_known_names(
                    f"news item {i}: key", record, tuple(NewsItem.model_fields), InvalidNewsError
                )
        return read_news(records)


def parse_table(frame: pd.DataFrame) -> list[Question]:
    """Return the questions of a table. Raises BadInputError naming the first bad row.

    A cell of `bars` or `news` that pandas filled in (None, nan) means that the row brings none.
    """
    return parse_rows(frame.to_dict(orient="records"))


def parse_rows(rows: Sequence[Mapping[Any, Any]]) -> list[Question]:
    """Return the question of each row. Raises BadInputError naming the first bad row."""
    if not rows:
        raise BadInputError("no rows; send at least one with symbol and as_of")
    return [_parse_row(i, row) for i, row in enumerate(rows)]


def parse_options(params: Mapping[str, Any]) -> tuple[Mode | None, CallLimits]:
    """Return the mode, None where none is given, and the limits among a request's parameters.

    Raises BadInputError.
    """
    _require_known_names("parameter", params, PARAMETERS, BadInputError)
    limits = parse_limits(params.get("max_rounds"), params.get("budget_usd"))
    return parse_mode(params["mode"]) if "mode" in params else None, limits


def _parse_row(index: int, row: Mapping[Any, Any]) -> Question:
    try:
        _require_known_names("column", row, COLUMNS, BadInputError)
        for name in REQUIRED_COLUMNS:
            if name not in row:
                raise BadInputError(f"{name} is missing; give {' and '.join(REQUIRED_COLUMNS)}")
        symbol, as_of = parse_symbol(row["symbol"]), parse_as_of(row["as_of"])
    except BadInputError as error:
        raise BadInputError(f"row {index}: {error}") from None
    bars, news = (None if _is_missing(cell := row.get(name)) else cell for name in NESTED_COLUMNS)
    return Question(symbol, as_of, bars, news)


def _read_records(
    name: str, cell: object, limit: int, error_type: type[BadInputError]
) -> list[Any]:
    """Return the items of a nested cell, objects without their missing values.

    Raises `error_type` for a cell that is no list, or too long.
    """
    # pyarrow, and so Spark, writes lists as arrays.
    if not isinstance(cell, list | tuple | np.ndarray):
        raise error_type(f"{name} must be a list of objects, not {show_value(cell)}")
    if len(cell) > limit:
        raise error_type(f"{name} has {len(cell)} items; at most {limit} a row")
    return [_without_missing(item) for item in cell]


def _without_missing(item: Any) -> Any:
    # A frame made of objects gives each the keys of all, with nan or None for what it lacks.
    if not isinstance(item, Mapping):
        return item
    return {key: value for key, value in item.items() if not _is_missing(value)}


def _is_missing(value: object) -> bool:
    is_nan = isinstance(value, float) and math.isnan(value)
    return value is None or is_nan or value is pd.NA or value is pd.NaT


def _require_known_names(
    what: str, names: Iterable[Hashable], known: Sequence[str], error_type: type[BadInputError]
) -> None:
    for name in names:
        if name not in known:
            raise error_type(f"{what} {show_value(name)} is unknown; known: {', '.join(known)}")
