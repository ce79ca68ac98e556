"""Sources over the user's own files: bars in CSV or Parquet, news and fundamentals in JSON Lines.

Columns of bars, in any case and order: `date` or `closed_at`, `open`, `high`, `low`, `close`;
optionally `volume`, and either `split` and `dividend` or `adj_close` (also `adj close`), from which
those two are inferred. Other columns are ignored, but not other names of actions. Prices are as
traded, not adjusted. A `date` is a day alone or its midnight in any zone; a `closed_at` may be the
moment, with its zone, when the bar closed.

Dated records are one JSON object per line: a file for many symbols, with `symbol` beside the
fields, or a folder with a file per symbol. Lines without `published_at` are counted and left out;
any other bad line stops the reading and is named.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from finagent_model.data.bundled import infer_actions
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import ACTIONS, PRICES, BarSeries, Floats, parse_symbol
from finagent_model.market.news import Fact, NewsItem, PublishedRecord, read_published

CLOSED_AT = "closed_at"
# The last is what pandas reads where it wrote a table with its index.
DATE_COLUMNS = (CLOSED_AT, "date", "unnamed:_0")
ADJUSTED = "adj_close"
VENDOR_ACTIONS = ("stock_splits", "splits", "dividends")
"""Names for actions in tables of `yfinance` and others, whose prices have the splits applied."""
COLUMNS = (*DATE_COLUMNS, *PRICES, "volume", *ACTIONS, ADJUSTED, *VENDOR_ACTIONS)
BAR_SUFFIXES = (".csv", ".parquet")
RECORD_SUFFIX = ".jsonl"
EVENTS = Path(__file__).with_name("events.jsonl")
_COMPACT_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)")
"""20120629, the other notation of ISO 8601."""
P = TypeVar("P", bound=PublishedRecord)


class FolderBars:
    """A BarSource over one folder with a file per symbol, such as `GOOG.csv`.

    A file is read anew at each call. A bad file is refused by itself; the others stay usable.
    """

    name = "folder"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def symbols(self) -> tuple[str, ...]:
        """Return the upper-case names of the files, sorted. Raises DataSourceError."""
        return tuple(sorted(self._files()))

    def bars(self, symbol: str) -> BarSeries:
        """Return all bars of the symbol's file.

        Raises UnknownSymbolError, DataSourceError and InvalidBarsError.
        """
        files = self._files()
        # Looked up, never joined to a path: '../x' finds nothing.
        if symbol not in files:
            raise UnknownSymbolError(symbol, tuple(sorted(files)), f"folder {self.path}")
        file, *duplicates = (self.path / name for name in sorted(files[symbol]))
        if duplicates:
            raise DataSourceError(
                f"{file} and {duplicates[0]} both hold {symbol}; keep one of them"
            )
        return read_bars(file, symbol)

    def _files(self) -> dict[str, list[str]]:
        """Return the file names of each symbol, of which there should be one."""
        # Called for every symbol, so `scandir`: 500 Path objects take longer than reading a file.
        files: dict[str, list[str]] = {}
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix.lower() in BAR_SUFFIXES and entry.is_file():
                        files.setdefault(stem.upper(), []).append(entry.name)
        except OSError as error:
            raise DataSourceError(
                f"{self.path} can't be listed ({error.strerror}); "
                "give a folder that holds files such as GOOG.csv"
            ) from error
        return files


def read_bars(file: Path, symbol: str) -> BarSeries:
    """Read the bars of one file. Raises DataSourceError, or InvalidBarsError naming the file."""
    try:
        return parse_bars(symbol, _read_table(file))
    except InvalidBarsError as error:
        raise InvalidBarsError(f"{file}: {error}") from error


def _read_table(file: Path) -> pd.DataFrame:
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
            # pandas writes a frame of prices with its dates as the index.
            if not isinstance(table.index, pd.DatetimeIndex):
                return table
            closed_at = normalize_column(table.index.name) == CLOSED_AT
            return table.reset_index(names=CLOSED_AT if closed_at else "date")
        return pd.read_csv(file)
    except (OSError, ValueError) as error:  # pandas' and Arrow's parser errors are ValueErrors
        reason = " ".join(str(error).split())
        raise DataSourceError(
            f"{file} can't be read: {reason}; it should be a table with a header such as "
            "date,open,high,low,close,volume"
        ) from error


def parse_bars(symbol: str, table: pd.DataFrame) -> BarSeries:
    """Turn a user's table of one symbol's bars into a series.

    Raises InvalidBarsError naming the column or the first offending bar.
    """
    frame = table.rename(columns=normalize_column)
    if duplicates := sorted(set(frame.columns[frame.columns.duplicated()])):
        raise InvalidBarsError(f"column {duplicates[0]!r} is there twice; keep one")
    date_column = next((c for c in DATE_COLUMNS if c in frame.columns), None)
    if date_column is None:
        raise InvalidBarsError(
            "column 'date' is missing; name the column of dates 'date' or 'closed_at'"
        )
    _refuse_lost_actions({normalize_column(name): str(name) for name in table.columns})
    values = [c for c in (*PRICES, "volume", *ACTIONS) if c in frame.columns]
    bars = frame[[date_column, *values]].rename(columns={date_column: CLOSED_AT})
    moments = [_iso_text(value) for value in bars[CLOSED_AT]]
    if date_column != CLOSED_AT:
        moments = [_day_of_midnight(symbol, bar, text) for bar, text in enumerate(moments)]
    bars[CLOSED_AT] = moments
    # Only if there is no column of actions: one that is given wins.
    if {ADJUSTED, "close"} <= set(frame.columns) and not set(ACTIONS) & set(frame.columns):
        bars["split"], bars["dividend"] = infer_actions(
            symbol, _floats(frame, "close"), _floats(frame, ADJUSTED)
        )
    return BarSeries.from_frame(symbol, bars)


def normalize_column(name: object) -> str:
    """Return a user's column name in our spelling: `Adj Close` becomes `adj_close`."""
    return str(name).strip().lower().replace(" ", "_")


def _refuse_lost_actions(columns: Mapping[str, str]) -> None:
    """Refuse a table whose splits or dividends would be ignored; `columns` is ours to theirs."""
    if vendor_actions := [columns[name] for name in VENDOR_ACTIONS if name in columns]:
        raise InvalidBarsError(
            f"column {vendor_actions[0]!r} is not read: a table of yfinance's has its splits in "
            "the prices already, so set FINAGENT_BARS=yfinance, which undoes them; where yours are "
            "as traded, call the columns 'split' and 'dividend'"
        )
    actions = [name for name in ACTIONS if name in columns]
    if ADJUSTED in columns and len(actions) == 1:
        missing = next(name for name in ACTIONS if name not in columns)
        raise InvalidBarsError(
            f"column {missing!r} is missing beside {actions[0]!r}; add it, or leave out "
            f"{actions[0]!r} so that both are worked out from {ADJUSTED!r}, or leave out "
            f"{ADJUSTED!r} if there are none"
        )


def _iso_text(value: Any) -> Any:
    """Return a time, or 20120629, in ISO notation with dashes; anything else as it is."""
    text = value.isoformat() if hasattr(value, "isoformat") else value
    compact = _COMPACT_DATE.fullmatch(str(text))
    return "-".join(compact.groups()) if compact else text


def _day_of_midnight(symbol: str, bar: int, text: Any) -> Any:
    """Return the day whose midnight `text` is. Raises InvalidBarsError for another time of day."""
    # The zone is dropped on purpose: midnight in Tokyo is the evening before in UTC, midnight in
    # New York lies hours before that day's open. What is no time is left to the series to refuse.
    if not isinstance(text, str) or text[4:5] != "-":
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.time() != time.min:
        raise InvalidBarsError(
            f"bars of {symbol}: date {text!r} at bar {bar} has a time of day; write the day alone, "
            f"or call the column {CLOSED_AT!r} if it says, with a zone, when a bar closed"
        )
    return moment.date().isoformat()


def _floats(frame: pd.DataFrame, column: str) -> Floats:
    try:
        return np.array(frame[column], dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidBarsError(f"{column} holds something that is no number") from None


class RecordFiles(Generic[P]):
    """Dated records of one kind in a JSON Lines file, or in a folder of them.

    Each file is read once, on first use.
    """

    def __init__(self, path: str | Path, kind: type[P], error: type[BadInputError]) -> None:
        """Read `path`; a bad line raises `error`, a bad file DataSourceError."""
        self.path = Path(path)
        self._kind = kind
        self._error = error
        self._cache: dict[Path, dict[str, tuple[list[P], int]]] = {}

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have records, sorted."""
        if self._files is not None:
            return tuple(sorted(self._files))
        return tuple(sorted(self._read(self.path)))

    def records(self, symbol: str) -> tuple[tuple[P, ...], int]:
        """Return the records of `symbol` oldest first, and how many were undated."""
        if self._files is None:
            by_symbol = self._read(self.path)
        elif symbol in self._files:  # looked up, never joined to a path
            file, *duplicates = self._files[symbol]
            if duplicates:
                raise DataSourceError(
                    f"{file} and {duplicates[0]} both hold {symbol}; keep one of them"
                )
            by_symbol = self._read(file, symbol)
        else:
            return (), 0
        records, undated = by_symbol.get(symbol, ([], 0))
        return tuple(sorted(records, key=lambda record: record.published_at)), undated

    @cached_property
    def _files(self) -> dict[str, list[Path]] | None:
        """The files of each symbol, of which there should be one; None if the path is a file."""
        if not self.path.is_dir():
            return None
        files: dict[str, list[Path]] = {}
        try:
            for file in sorted(self.path.iterdir()):
                if file.suffix.lower() == RECORD_SUFFIX and file.is_file():
                    files.setdefault(file.stem.upper(), []).append(file)
        except OSError as error:
            raise DataSourceError(f"{self.path} can't be listed ({error.strerror})") from error
        if not files:
            raise DataSourceError(
                f"{self.path} holds no {RECORD_SUFFIX} file; give a folder that holds files such "
                f"as GOOG{RECORD_SUFFIX}, or none"
            )
        return files

    def _read(self, file: Path, symbol: str | None = None) -> dict[str, tuple[list[P], int]]:
        if file not in self._cache:
            self._cache[file] = self._parse_file(file, symbol)
        return self._cache[file]

    def _parse_file(self, file: Path, owner: str | None) -> dict[str, tuple[list[P], int]]:
        """Return records and undated count by symbol; `owner` is whose file it is, if anybody's."""
        try:
            # Not splitlines: a headline may hold U+2028, which JSON allows unescaped.
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataSourceError(
                f"{file} can't be read ({error}); give a UTF-8 file with one JSON object a line"
            ) from error
        by_symbol: dict[str, tuple[list[P], int]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            row = self._parse_line(where, line, owner)
            try:
                new_records, new_undated = read_published([row], self._kind, "record", self._error)
            except BadInputError as error:
                raise self._error(f"{where}: {str(error).removeprefix('record 0: ')}") from error
            records, undated = by_symbol.get(row["symbol"], ([], 0))
            records += new_records
            by_symbol[row["symbol"]] = (records, undated + new_undated)
        return by_symbol

    def _parse_line(self, where: str, line: str, owner: str | None) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise self._error(f"{where}: not JSON ({reason})") from error
        if not isinstance(row, dict):
            raise self._error(
                f'{where}: not an object; write {{"symbol": ..., "published_at": ...}}'
            )
        symbol = row.setdefault("symbol", owner)
        if owner is not None and symbol != owner:
            raise self._error(f"{where}: symbol {symbol!r} in the file of {owner}")
        try:
            parse_symbol(symbol)
        except BadInputError as error:
            raise self._error(f"{where}: {error}") from None
        return row


class FileNews:
    """A NewsSource over JSON Lines, each with the fields of a NewsItem."""

    def __init__(self, path: str | Path) -> None:
        self._files = RecordFiles(path, NewsItem, InvalidNewsError)

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have news, sorted."""
        return self._files.symbols()

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Return items oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._files.records(symbol)


class FileFundamentals:
    """A FundamentalsSource over JSON Lines, each with the fields of a Fact."""

    def __init__(self, path: str | Path) -> None:
        self._files = RecordFiles(path, Fact, InvalidFundamentalsError)

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have facts, sorted."""
        return self._files.symbols()

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Return facts oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._files.records(symbol)


def load_bundled_news() -> FileNews:
    """Return the bundled news: a few dated public events of the bundled stocks, 2000 to 2013."""
    return FileNews(EVENTS)
