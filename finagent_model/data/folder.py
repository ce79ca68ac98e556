"""Bars from a folder of the user's own files: `GOOG.csv` or `GOOG.parquet`, one symbol a file, with
the columns of `table`. A bad file is refused by itself; the others stay good.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from finagent_model.data.table import CLOSES, column_name, series_of_table
from finagent_model.domain.bars import BarSeries
from finagent_model.errors import DataSourceError, InvalidBarsError, UnknownSymbolError

SUFFIXES = (".csv", ".parquet")


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
        file, *others = (self.path / name for name in sorted(files[symbol]))
        if others:
            raise DataSourceError(f"{file} and {others[0]} both hold {symbol}; keep one of them")
        return bars_of_file(file, symbol)

    def _files(self) -> dict[str, list[str]]:
        """Symbol to the names of its files, of which there should be one. Quick, since it is asked
        for every symbol: paths of five hundred files would take longer than reading one.
        """
        files: dict[str, list[str]] = {}
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.lower() in SUFFIXES and entry.is_file():
                        files.setdefault(stem.upper(), []).append(entry.name)
        except OSError as error:
            raise DataSourceError(
                f"{self.path} can't be listed ({error.strerror}); "
                "give a folder that holds files such as GOOG.csv"
            ) from error
        return files


def bars_of_file(file: Path, symbol: str) -> BarSeries:
    """The bars of one file. Raises DataSourceError, or InvalidBarsError naming the file."""
    try:
        return series_of_table(symbol, _read(file))
    except InvalidBarsError as error:
        raise InvalidBarsError(f"{file}: {error}") from error


def _read(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
            if not isinstance(table.index, pd.DatetimeIndex):
                return table
            closes = column_name(table.index.name) == CLOSES
            return table.reset_index(names=CLOSES if closes else "date")
        return pd.read_csv(file)
    except (OSError, ValueError) as error:  # pandas' and Arrow's parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataSourceError(
            f"{file} can't be read: {reason}; it should be a table with a header such as "
            "date,open,high,low,close,volume"
        ) from error
