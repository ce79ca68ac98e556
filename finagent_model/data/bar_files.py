"""Bars from the user's own files: text in many forms, Parquet and Feather, in a folder or alone.

A file holds one symbol, whose name is the file's, or several, with a column `symbol` or a header
of two levels. What vendors write is told by content (`vendors`, `bar_tables`); what content can't
tell stands in `bars.yaml` in the folder:

    vendor: Investing.com
    dates: day-first
    decimal: ","
    ignore: [price_target]
    timeframe: 1h
    calendar: XNYS
    zone: America/New_York
    stamps: open
    files: {ACME.csv: {dates: month-first}}
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pandas as pd
from pydantic import Field

from finagent_model._documents import load_yaml
from finagent_model.data._raw_table import RawTable, raw_frame, split_symbols
from finagent_model.data._text_table import (
    COMPRESSED,
    TEXT_SUFFIXES,
    decode_beginning,
    has_levels,
    looks_like_table,
    read_bytes,
    read_text_table,
)
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_tables import read_series
from finagent_model.data.protocols import describe_error
from finagent_model.data.vendors import SYMBOL_COLUMNS
from finagent_model.errors import (
    BadInputError,
    ConfigError,
    DataSourceError,
    FinagentError,
    InvalidBarsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import CLOSE_TIME, BarSeries, parse_symbol, symbol_file_name
from finagent_model.market.timeframe import DAILY

HINTS_FILE = "bars.yaml"
PARQUET_SUFFIXES = (".parquet", ".pq")
FEATHER_SUFFIXES = (".feather", ".arrow")
PEEKED_BYTES = 4096
"""Read of a file to see whether it may hold several symbols."""
_MENTIONS_SYMBOL = re.compile(
    rf"(?i)(?<![a-z_])({'|'.join(SYMBOL_COLUMNS)})(?![a-z_])|\('[^']*', '[^']*'\)"
)
"""A column of symbols, or a column of two levels as Parquet names it."""
_INDEX_NAME = re.compile(r"(?m)^[A-Za-z ]+[,;\t]{3,}\r?$")
"""The line `Date,,,,` below a header of two levels."""


class _FolderHints(Hints):
    """Hints for all files of a folder, and for single ones by name."""

    files: dict[str, Hints] = Field(default_factory=dict)


class FolderBars:
    """A BarSource over one folder of files with bars, such as `GOOG.csv`, or over one such file.

    A file is read anew when it was changed. A bad file is refused by itself; others stay usable.
    """

    name = "folder"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._symbols_of: dict[tuple[str, int, int], tuple[str, ...]] = {}
        self._tables: tuple[tuple[str, int, int], dict[str, RawTable]] | None = None

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of the files, sorted. Raises DataSourceError."""
        return tuple(sorted(self._files()[0]))

    def passed_over(self) -> tuple[str, ...]:
        """Return the names of files that hold no bars, sorted. Raises DataSourceError."""
        return tuple(sorted(self._files()[1]))

    def bars(self, symbol: str) -> BarSeries:
        """Return all bars of the symbol's file.

        Raises UnknownSymbolError, DataSourceError and InvalidBarsError.
        """
        files, _ = self._files()
        folder = self.path.parent if self.path.is_file() else self.path
        # Looked up, never joined to a path: '../x' finds nothing.
        if symbol not in files:
            raise UnknownSymbolError(symbol, tuple(sorted(files)), f"folder {self.path}")
        key, *duplicates = sorted(files[symbol])
        file = folder / key[0]
        if duplicates:
            raise DataSourceError(
                f"{file} and {folder / duplicates[0][0]} both hold {symbol}; keep one of them"
            )
        hints = read_hints(file)
        with _naming(file):
            try:
                parse_symbol(symbol)
            except BadInputError as error:
                raise InvalidBarsError(
                    f"{error}; name the file after its symbol, such as GOOG.csv"
                ) from None
            # A long file would be read again for each of its symbols.
            kept = self._tables  # another thread may replace it
            if kept is None or kept[0] != key:
                kept = self._tables = key, split_symbols(read_table(file, hints), _stem(key[0]))
            tables = kept[1]
            if symbol not in tables:
                raise InvalidBarsError(f"it holds {', '.join(tables)}, not {symbol}")
            return read_series(symbol, tables[symbol], hints)

    def _files(self) -> tuple[dict[str, list[tuple[str, int, int]]], list[str]]:
        """Return the files of each symbol, of which there should be one, and those without bars.

        A file stands with its time and size, by which a change is noticed.
        """
        # Called for every symbol, so `scandir`: 500 Path objects take longer than reading a file.
        files: dict[str, list[tuple[str, int, int]]] = {}
        passed_over = []
        try:
            single = self.path.name if self.path.is_file() else None
            folder = self.path.parent if single else self.path
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == HINTS_FILE:
                        continue
                    if single not in (None, entry.name):
                        continue
                    try:
                        stat, is_file = entry.stat(), entry.is_file()
                    except OSError:  # a link that leads nowhere
                        passed_over.append(entry.name)
                        continue
                    if not is_file:
                        continue
                    key = (entry.name, stat.st_mtime_ns, stat.st_size)
                    if key not in self._symbols_of:
                        self._symbols_of[key] = _symbols_of(folder / entry.name)
                    if not self._symbols_of[key]:
                        passed_over.append(entry.name)
                    for symbol in self._symbols_of[key]:
                        files.setdefault(symbol, []).append(key)
        except OSError as error:
            raise DataSourceError(
                f"{self.path} can't be listed ({error.strerror}); "
                "give a folder that holds files such as GOOG.csv"
            ) from error
        return files, passed_over


def read_bars(file: Path, symbol: str | None = None, hints: Hints | None = None) -> BarSeries:
    """Read the bars of one file; of several symbols in it, those of `symbol`.

    Raises DataSourceError, or InvalidBarsError naming the file.
    """
    hints = hints or read_hints(file)
    with _naming(file):
        tables = split_symbols(read_table(file, hints), symbol or _stem(file.name))
        if symbol is None and len(tables) == 1:
            symbol = next(iter(tables))
        if symbol is None or symbol not in tables:
            raise InvalidBarsError(f"it holds {', '.join(tables)}; name one of them")
        return read_series(symbol, tables[symbol], hints)


def read_all_bars(file: Path, hints: Hints | None = None) -> list[BarSeries]:
    """Read the bars of every symbol in one file, in the order of their names.

    Raises DataSourceError, or InvalidBarsError naming the file.
    """
    hints = hints or read_hints(file)
    with _naming(file):
        tables = split_symbols(read_table(file, hints), _stem(file.name))
        return [read_series(symbol, tables[symbol], hints) for symbol in sorted(tables)]


def write_bars(series: Sequence[BarSeries], folder: Path) -> list[Path]:
    """Write each series as a plain CSV file that is read back as it is; return the files.

    Raises BadInputError where one is there already, and DataSourceError where `folder` can't be
    written.
    """
    files = [folder / f"{symbol_file_name(each.symbol)}.csv" for each in series]
    if there := next((file for file in files if file.exists()), None):
        raise BadInputError(f"{there} is there already; name another folder, or move it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, each in zip(files, series, strict=True):
            frame = each.to_frame()
            closed_at = frame.pop("closed_at")
            by_day = (closed_at.dt.strftime("%H:%M:%S.%f") == f"{CLOSE_TIME}:00.000000").all()
            # The date of a week or month may be its first day, so the close is said.
            if by_day and each.timeframe == DAILY:
                frame.insert(0, "date", closed_at.dt.strftime("%Y-%m-%d"))
            else:
                frame.insert(0, "closed_at", closed_at.map(datetime.isoformat))
            if symbol_file_name(each.symbol) != each.symbol.upper():
                frame.insert(1, "symbol", each.symbol)
            frame.to_csv(file, index=False)
    except OSError as error:
        raise DataSourceError(f"{folder} can't be written ({error.strerror})") from error
    return files


def read_hints(file: Path) -> Hints:
    """Return the hints for a file from `bars.yaml` beside it. Raises ConfigError for a bad one."""
    path = file.parent / HINTS_FILE
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Hints()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {describe_error(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: write keys such as `dates: day-first`")
    try:
        hints = _FolderHints.parse(**{str(k): v for k, v in content.items()})
    except BadInputError as error:
        raise ConfigError(f"{path}: {error}") from None
    # What is said of one file goes before what is said of all.
    own = hints.files.get(file.name, Hints()).model_dump(exclude_unset=True)
    return hints.model_copy(update=own)


def read_table(file: Path, hints: Hints) -> RawTable:
    """Return the table of a file, whatever its form.

    Raises DataSourceError for a file that is no table, InvalidBarsError for one with two decimals.
    """
    try:
        suffix = _suffix(file.name)
        if suffix in PARQUET_SUFFIXES:
            return raw_frame(pd.read_parquet(file), "Parquet")
        if suffix in FEATHER_SUFFIXES:
            return raw_frame(pd.read_feather(file), "Feather")
        return read_text_table(read_bytes(file), hints.decimal)
    except DataSourceError as error:
        raise DataSourceError(f"{file} can't be read: {error}") from None
    except FinagentError:
        raise
    except Exception as error:  # a file can make a parser raise anything
        raise DataSourceError(
            f"{file} can't be read: {' '.join(str(error).split())}; it should be a table with a "
            "header such as date,open,high,low,close,volume"
        ) from error


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the file's name before what is said of its bars in the block."""
    try:
        yield
    except InvalidBarsError as error:
        raise InvalidBarsError(f"{file}: {error}") from error
    except FinagentError:
        raise
    except Exception as error:  # a strange frame can make pandas raise anything
        raise DataSourceError(
            f"{file} can't be read as bars: {describe_error(error)}; it should be a table with a "
            "header such as date,open,high,low,close,volume"
        ) from error


def _symbols_of(file: Path) -> tuple[str, ...]:
    """Return the symbols of a file; none where it holds no bars.

    A file that can't be read has its own name for a symbol, so that it is refused by that.
    """
    suffix, stem = _suffix(file.name), _stem(file.name)
    if suffix not in (*TEXT_SUFFIXES, *PARQUET_SUFFIXES, *FEATHER_SUFFIXES):
        return ()
    try:
        if suffix in TEXT_SUFFIXES:
            beginning = _beginning(file)
            if suffix == ".txt" and not looks_like_table(beginning):
                return ()
            several = bool(_MENTIONS_SYMBOL.search(beginning))
            several = several or bool(_INDEX_NAME.search(beginning) and has_levels(beginning))
        else:
            several = bool(_MENTIONS_SYMBOL.search(_column_names(file)))
        if not several:
            return (stem,)
        return tuple(split_symbols(read_table(file, read_hints(file)), stem))
    except Exception:  # said when the file is read
        return (stem,)


def _beginning(file: Path) -> str:
    """Return the first lines of a text file."""
    if file.name.lower().endswith(COMPRESSED):
        data = read_bytes(file)[:PEEKED_BYTES]
    else:
        with file.open("rb") as stream:
            data = stream.read(PEEKED_BYTES)
    return decode_beginning(data)


def _column_names(file: Path) -> str:
    if _suffix(file.name) in PARQUET_SUFFIXES:
        import pyarrow.parquet

        schema = pyarrow.parquet.read_schema(file)
    else:
        import pyarrow.feather

        schema = pyarrow.feather.read_table(file, memory_map=True).schema
    return " ".join(schema.names)


def _suffix(name: str) -> str:
    """Return the lower-case suffix of a file's name, without that of a compression."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix in COMPRESSED:
        inner = os.path.splitext(stem)[1]
        # A zip is named after what it holds, with or without its suffix.
        return inner if inner in TEXT_SUFFIXES else ".csv"
    return suffix


def _stem(name: str) -> str:
    """Return the symbol that a file is named after, in upper case."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in COMPRESSED:
        inner, inner_suffix = os.path.splitext(stem)
        stem = inner if inner_suffix.lower() in TEXT_SUFFIXES else stem
    return stem.upper()
