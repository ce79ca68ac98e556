"""A table of one symbol's bars as users have it, from a file or a database.

Columns, in any case and order: `date` or `closed_at`, `open`, `high`, `low`, `close`; optionally
`volume`, and either `split` and `dividend` or `adj_close` (also `adj close`), from which those two
are worked out. Others are ignored, but not other names of actions. Prices are as traded, not
adjusted.

Under `date` stands a day: alone, or as its midnight, in whatever zone that was written. Under
`closed_at` a time of day with its zone is when the bar closed.

Bars from a folder of the user's own files: `GOOG.csv` or `GOOG.parquet`, one symbol a file, with
the columns of `table`. A bad file is refused by itself; the others stay good.

Dated records in JSON Lines, one object a line: a file for many symbols, with `symbol` beside the
fields, or a folder with a file for each symbol, named after it, whose lines need not name it.

Lines without `published_at` are counted and left out; any other bad line stops the reading and is
named.

News from JSON Lines, and the events that the package brings.

Fundamentals from JSON Lines.
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

from finagent_model.data.bundled import actions_from_adjusted
from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import ACTIONS, PRICES, BarSeries, Floats
from finagent_model.market.news import Fact, NewsItem, PublishedRecord, read_published
from finagent_model.market.symbols import parse_symbol

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


P = TypeVar("P", bound=PublishedRecord)
SUFFIX = ".jsonl"


class DatedLines(Generic[P]):
    """A file, or a folder of files, of records of one kind; each is read on first use and once."""

    def __init__(self, path: str | Path, kind: type[P], error: type[BadInputError]) -> None:
        """`error` is raised for a line that can't be read, DataSourceError for such a file."""
        self.path = Path(path)
        self._kind = kind
        self._error = error
        self._read: dict[Path, dict[str, tuple[list[P], int]]] = {}

    def symbols(self) -> tuple[str, ...]:
        if self._files is not None:
            return tuple(sorted(self._files))
        return tuple(sorted(self._records(self.path)))

    def of(self, symbol: str) -> tuple[tuple[P, ...], int]:
        """Records of `symbol` oldest first, and how many were undated."""
        if self._files is None:
            found = self._records(self.path)
        elif symbol in self._files:  # looked up, never joined to a path
            file, *others = self._files[symbol]
            if others:
                raise DataSourceError(
                    f"{file} and {others[0]} both hold {symbol}; keep one of them"
                )
            found = self._records(file, symbol)
        else:
            return (), 0
        records, undated = found.get(symbol, ([], 0))
        return tuple(sorted(records, key=lambda record: record.published_at)), undated

    @cached_property
    def _files(self) -> dict[str, list[Path]] | None:
        """Symbol to its files, of which there should be one, where the path is a folder."""
        if not self.path.is_dir():
            return None
        files: dict[str, list[Path]] = {}
        try:
            for file in sorted(self.path.iterdir()):
                if file.suffix.lower() == SUFFIX and file.is_file():
                    files.setdefault(file.stem.upper(), []).append(file)
        except OSError as error:
            raise DataSourceError(f"{self.path} can't be listed ({error.strerror})") from error
        if not files:
            raise DataSourceError(
                f"{self.path} holds no {SUFFIX} file; give a folder that holds files such as "
                f"GOOG{SUFFIX}, or none"
            )
        return files

    def _records(self, file: Path, symbol: str | None = None) -> dict[str, tuple[list[P], int]]:
        if file not in self._read:
            self._read[file] = self._parsed(file, symbol)
        return self._read[file]

    def _parsed(self, file: Path, symbol: str | None) -> dict[str, tuple[list[P], int]]:
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataSourceError(
                f"{file} can't be read ({error}); give a UTF-8 file with one JSON object a line"
            ) from error
        found: dict[str, tuple[list[P], int]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            record = self._record(where, line, symbol)
            try:
                records, undated = read_published([record], self._kind, "record", self._error)
            except BadInputError as error:
                raise self._error(f"{where}: {str(error).removeprefix('record 0: ')}") from error
            known, dropped = found.get(record["symbol"], ([], 0))
            known += records
            found[record["symbol"]] = (known, dropped + undated)
        return found

    def _record(self, where: str, line: str, owner: str | None) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", error)
            raise self._error(f"{where}: not JSON ({why})") from error
        if not isinstance(record, dict):
            raise self._error(
                f'{where}: not an object; write {{"symbol": ..., "published_at": ...}}'
            )
        symbol = record.setdefault("symbol", owner)
        if owner is not None and symbol != owner:
            raise self._error(f"{where}: symbol {symbol!r} in the file of {owner}")
        try:
            parse_symbol(symbol)
        except BadInputError as error:
            raise self._error(f"{where}: {error}") from None
        return record


EVENTS = Path(__file__).with_name("events.jsonl")


class FileNews:
    """A NewsSource over a file or folder of dated lines, each with the fields of a NewsItem."""

    def __init__(self, path: str | Path) -> None:
        self._lines = DatedLines(path, NewsItem, InvalidNewsError)

    def symbols(self) -> tuple[str, ...]:
        return self._lines.symbols()

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        return self._lines.of(symbol)


def bundled_events() -> FileNews:
    """Dated public events of the bundled stocks, 2000 to 2013: few, and each can be looked up."""
    return FileNews(EVENTS)


class FileFundamentals:
    """A FundamentalsSource over a file or folder of dated lines, each with the fields of a Fact."""

    def __init__(self, path: str | Path) -> None:
        self._lines = DatedLines(path, Fact, InvalidFundamentalsError)

    def symbols(self) -> tuple[str, ...]:
        return self._lines.symbols()

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        return self._lines.of(symbol)
