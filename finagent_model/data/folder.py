"""Bars from a folder of the user's own files: `GOOG.csv` or `GOOG.parquet`, one symbol a file.

Columns, in any case and order: `date` or `closed_at`, `open`, `high`, `low`, `close`; optionally
`volume`, and either `split` and `dividend` or `adj_close` (also `adj close`), from which those two
are worked out. Others are ignored. Prices are as traded, not adjusted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from finagent_model.data.actions import actions_from_adjusted
from finagent_model.domain.bars import ACTIONS, PRICES, BarSeries, Floats
from finagent_model.errors import DataSourceError, InvalidBarsError, UnknownSymbolError

SUFFIXES = (".csv", ".parquet")
DATES = ("closed_at", "date", "unnamed:_0")
"""The last is what pandas reads where it wrote a table with its index."""
ADJUSTED = "adj_close"


class FolderBars:
    """A BarSource over the files of one folder; a file is read anew at each call."""

    name = "folder"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(self._files()))

    def bars(self, symbol: str) -> BarSeries:
        files = self._files()
        # Looked up, never joined to a path: '../x' finds nothing.
        if symbol not in files:
            raise UnknownSymbolError(symbol, tuple(sorted(files)), f"folder {self.path}")
        return bars_of_file(files[symbol], symbol)

    def _files(self) -> dict[str, Path]:
        """Symbol to file."""
        try:
            listed = sorted(
                p for p in self.path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()
            )
        except OSError as error:
            raise DataSourceError(
                f"{self.path} can't be listed ({error.strerror}); "
                "give a folder that holds files such as GOOG.csv"
            ) from error
        files: dict[str, Path] = {}
        for file in listed:
            symbol = file.stem.upper()
            if symbol in files:
                raise DataSourceError(
                    f"{files[symbol]} and {file} both hold {symbol}; keep one of them"
                )
            files[symbol] = file
        return files


def bars_of_file(file: Path, symbol: str) -> BarSeries:
    """The bars of one file. Raises DataSourceError, or InvalidBarsError naming the file."""
    try:
        return BarSeries.from_frame(symbol, _tidy(symbol, _read(file)))
    except InvalidBarsError as error:
        raise InvalidBarsError(f"{file}: {error}") from error


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
            dated = isinstance(table.index, pd.DatetimeIndex)
            return table.reset_index(names="date") if dated else table
        return pd.read_csv(file)
    except (OSError, ValueError) as error:  # pandas' and Arrow's parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataSourceError(
            f"{file} can't be read: {reason}; it should be a table with a header such as "
            "date,open,high,low,close,volume"
        ) from error


def _tidy(symbol: str, table: pd.DataFrame) -> pd.DataFrame:
    """The columns that a BarSeries reads, under its names."""
    frame = table.rename(columns=lambda column: str(column).strip().lower().replace(" ", "_"))
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
    if {ADJUSTED, "close"} <= set(frame.columns) and not set(ACTIONS) & set(frame.columns):
        tidy["split"], tidy["dividend"] = actions_from_adjusted(
            symbol, _floats(frame, "close"), _floats(frame, ADJUSTED)
        )
    return tidy


def _floats(frame: pd.DataFrame, column: str) -> Floats:
    try:
        return np.array(frame[column], dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidBarsError(f"{column} holds something that is no number") from None
