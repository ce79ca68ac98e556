"""A table as a file has it, before anything is known of its columns, and its parts by symbol."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from finagent_model.data._bar_dates import is_date
from finagent_model.data._numbers import Decimal
from finagent_model.data.vendors import ADJUSTED, DATE, KNOWN_NAMES, SYMBOL_COLUMNS, Vendor
from finagent_model.errors import InvalidBarsError

DATABASE = "a table of a database"
"""The form of a table that is no file."""
LEVELS = "\t"
"""Between the field and the ticker of a column whose header has two levels."""
_TICKER = re.compile(r"[A-Z][A-Z0-9.^=/:-]{0,11}")


@dataclass
class RawTable:
    """One symbol's rows as a file has them, or several symbols' with a column that names them."""

    columns: tuple[str, ...]
    """Names as the file has them; those of `frame` are their positions."""
    frame: pd.DataFrame
    form: str
    """Words for what was seen, such as `separated by ';'`."""
    first_line: int | None = None
    """Line of the row with index 0; None where rows are no lines."""
    vendor: Vendor | None = None
    """Where the file has no header and its first line tells."""
    notes: tuple[str, ...] = ()
    decimal: Decimal | None = "."
    """None: commas may be either mark."""

    @property
    def names(self) -> list[str]:
        """The columns in our spelling."""
        return [normalize_column(name) for name in self.columns]

    def where(self, row: int) -> str:
        """Return words for a row, by its index in the file."""
        return f"at bar {row}" if self.first_line is None else f"in line {self.first_line + row}"

    def rows(self, frame: pd.DataFrame) -> Callable[[int], str]:
        """Return `where` for positions in `frame`, a part of this table."""
        return lambda position: self.where(int(frame.index[position]))


def normalize_column(name: object) -> str:
    """Return a user's column name in our spelling: `Adj Close` becomes `adj_close`."""
    # MetaTrader writes <DATE>; a page of Yahoo's has stars for footnotes.
    return str(name).strip("\ufeff <>*\t").lower().replace(" ", "_")


def raw_frame(table: pd.DataFrame, form: str) -> RawTable:
    """Return a frame of pandas' as a raw table; an index of dates becomes a column."""
    index = table.index
    dated = isinstance(index, pd.DatetimeIndex | pd.MultiIndex | pd.PeriodIndex)
    if dated or (len(index) and not isinstance(index, pd.RangeIndex) and is_date(index[0])):
        names = [DATE if name is None else name for name in index.names]
        table = table.copy(deep=False)
        levels = [index.get_level_values(i) for i in range(index.nlevels)]
        table.columns = pd.Index([_joined(c) for c in table.columns])
        columns = [*map(str, names), *map(str, table.columns)]
        parts = [pd.Series(level) for level in levels]
        frame = pd.concat([*parts, table.reset_index(drop=True)], axis=1)
    else:
        columns = [_joined(c) for c in table.columns]
        frame = table.reset_index(drop=True)
    frame.columns = pd.RangeIndex(len(columns))
    return RawTable(tuple(columns), frame, form)


def _joined(column: Any) -> str:
    parts = column if isinstance(column, tuple) else (column,)
    return LEVELS.join(str(part) for part in parts if str(part))


def split_symbols(raw: RawTable, stem: str) -> dict[str, RawTable]:
    """Return the table of each symbol that a file holds; `stem` where the file names none.

    Symbols stand in a column, or beside the fields in a header of two levels. Raises
    InvalidBarsError for a row without its symbol.
    """
    if any(LEVELS in name for name in raw.columns):
        return _split_levels(raw, stem)
    position = _symbol_column(raw)
    if position is None:
        return {stem: raw}
    names = raw.frame[position].astype("string").str.strip().fillna("")
    empty = (names == "") & ~_has_numbers(raw.frame)
    lost = (names == "") & ~empty
    if lost.any():
        where = raw.where(int(raw.frame.index[lost][0]))
        raise InvalidBarsError(f"{raw.columns[position]!r} is empty {where}; name the symbol")
    # The column stays: a vendor is told by it too.
    return {
        str(name): replace(raw, frame=rows)
        for name, rows in raw.frame[~empty].groupby(names[~empty], sort=True)
    }


def _symbol_column(raw: RawTable) -> int | None:
    """Return the position of the column that names the symbol of each row."""
    for wanted in SYMBOL_COLUMNS:
        if wanted not in raw.names:
            continue
        position = raw.names.index(wanted)
        values = raw.frame[position].dropna().astype(str).str.strip()
        # A `name` may be a company's.
        if wanted == "name" and not values[:200].map(lambda v: bool(_TICKER.fullmatch(v))).all():
            continue
        if (values != "").any():
            return position
    return None


def _has_numbers(frame: pd.DataFrame) -> pd.Series[bool]:
    numeric = frame.select_dtypes("number")
    return numeric.notna().any(axis=1)


def _split_levels(raw: RawTable, stem: str) -> dict[str, RawTable]:
    """Return a table for each ticker of a header with two levels, in either order."""
    pairs = {i: n.split(LEVELS, 1) for i, n in enumerate(raw.columns) if LEVELS in n}
    known = [
        sum(normalize_column(pair[level]) in KNOWN_NAMES for pair in pairs.values())
        for level in (0, 1)
    ]
    field = 0 if known[0] >= known[1] else 1
    shared = [i for i in range(len(raw.columns)) if i not in pairs]
    tables = {}
    for ticker in dict.fromkeys(pair[1 - field] for pair in pairs.values()):
        own = [i for i, pair in pairs.items() if pair[1 - field] == ticker]
        columns = [*(raw.columns[i] for i in shared), *(pairs[i][field] for i in own)]
        frame = raw.frame[[*shared, *own]].copy()
        frame.columns = pd.RangeIndex(len(columns))
        notes = raw.notes
        if ADJUSTED not in {normalize_column(c) for c in columns}:
            notes += (
                "a table of yfinance's without 'Adj Close': its prices have splits and dividends "
                "in them already",
            )
        tables[ticker.strip() or stem] = replace(
            raw, columns=tuple(columns), frame=frame, notes=notes
        )
    return tables
