"""Sources over the user's own files of news and fundamentals, in the forms of `_record_formats`.

A file holds many symbols, with the symbol beside the fields, or a folder has a file per symbol.
Rows without a time of publication are counted and left out. A row that can't be read costs that
row: the file's are counted, and the first is named with its line and value in one warning of the
log. A file most of whose rows can't be read is refused.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from finagent_model._base import show_value
from finagent_model._documents import load_yaml
from finagent_model.data._numbers import Decimal, find_decimal, read_number
from finagent_model.data._record_fields import (
    NO_RECORD_HINTS,
    FieldReader,
    RecordHints,
    clean_symbol,
)
from finagent_model.data._record_formats import (
    FEED_SUFFIXES,
    LINES_SUFFIXES,
    RECORD_SUFFIXES,
    RecordRow,
    RecordRows,
    holds_bars,
    read_rows,
    record_suffix,
)
from finagent_model.data.protocols import describe_error
from finagent_model.errors import (
    BadInputError,
    ConfigError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
)
from finagent_model.market.news import Fact, NewsItem, PublishedRecord, read_published

HINTS_FILE = "records.yaml"
EVENTS = Path(__file__).with_name("events.jsonl")
log = logging.getLogger(__name__)
P = TypeVar("P", bound=PublishedRecord)
BySymbol = dict[str, tuple[list[P], int]]
"""Records of each symbol, and how many were undated."""


class SkippedRows:
    """Counts rows that can't be read, and keeps the first problem."""

    def __init__(self, source: object, error: type[BadInputError]) -> None:
        """`source` is named in messages; `error` is raised where most rows are bad."""
        self.source, self.count, self.first = source, 0, ""
        self._error = error

    def add(self, where: str, problem: object) -> None:
        """Count a row."""
        self.first = self.first or f"{where}: {problem}"
        self.count += 1

    def report(self, total: int) -> None:
        """Log what was passed over, of `total` rows. Raises the error where it is most of them."""
        if not self.count:
            return
        if 2 * self.count > total:
            # One bad row is a slip; most of them are a form that isn't understood.
            rest = f" ({self.count} of {total} rows can't be read)" if total > 1 else ""
            raise self._error(f"{self.source}, {self.first}{rest}")
        log.warning(
            "%s: %d of %d rows passed over, they can't be read; the first is %s",
            self.source,
            self.count,
            total,
            self.first,
        )


class RecordFiles(Generic[P]):
    """Dated records of one kind in a file, or in a folder of files.

    Each file is read once, on first use.
    """

    def __init__(self, path: str | Path, kind: type[P], error: type[BadInputError]) -> None:
        """Read `path`; mostly bad rows raise `error`, a bad file DataSourceError."""
        self.path = Path(path)
        self._kind = kind
        self._error = error
        self._cache: dict[Path, BySymbol[P]] = {}

    @property
    def name(self) -> str:
        """What reports call it, such as `file news.csv`; without the folders above it."""
        if self.path == EVENTS:
            return "bundled"
        return f"{'folder' if self.path.is_dir() else 'file'} {self.path.resolve().name}"

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have records, sorted."""
        if self._files is not None:
            return tuple(sorted(self._files))
        return tuple(sorted(self._read(self.path)))

    def records(self, symbol: str) -> tuple[tuple[P, ...], int]:
        """Return the records of `symbol` oldest first, and how many were undated."""
        if self._files is None:
            key = clean_symbol(symbol)
            by_symbol = self._read(self.path)
        elif (key := symbol.upper()) in self._files:  # looked up, never joined to a path
            file, *duplicates = self._files[key]
            if duplicates:
                raise DataSourceError(
                    f"{file} and {duplicates[0]} both hold {key}; keep one of them"
                )
            by_symbol = self._read(file, key)
        else:
            return (), 0
        records, undated = by_symbol.get(key, ([], 0))
        return tuple(sorted(records, key=lambda record: record.published_at)), undated

    @cached_property
    def _files(self) -> dict[str, list[Path]] | None:
        """The files of each symbol, of which there should be one; None if the path is a file."""
        if not self.path.is_dir():
            return None
        files: dict[str, list[Path]] = {}
        try:
            for file in sorted(self.path.iterdir()):
                is_record = record_suffix(file.name) in RECORD_SUFFIXES and file.is_file()
                if is_record and not holds_bars(file):
                    stem = Path(file.name[:-3] if file.name.lower().endswith(".gz") else file.name)
                    files.setdefault(stem.stem.upper(), []).append(file)
        except OSError as error:
            raise DataSourceError(f"{self.path} can't be listed ({error.strerror})") from error
        if not files:
            raise DataSourceError(
                f"{self.path} holds no {', '.join(RECORD_SUFFIXES)} file; give a folder that holds "
                "files such as GOOG.jsonl or GOOG.csv, or none"
            )
        for symbol, found in files.items():
            # Beside GOOG.jsonl another file of that name was never read.
            files[symbol] = [f for f in found if record_suffix(f.name) in LINES_SUFFIXES] or found
        return files

    def _read(self, file: Path, symbol: str | None = None) -> BySymbol[P]:
        if file not in self._cache:
            self._cache[file] = self._parse_file(file, symbol)
        return self._cache[file]

    def _parse_file(self, file: Path, owner: str | None) -> BySymbol[P]:
        """Return records and undated count by symbol; `owner` is whose file it is, if anybody's."""
        hints = _read_record_hints(file)
        reader = FieldReader(self._kind, hints)
        table = read_rows(file, reader.dates)
        for note in table.notes:
            log.warning("%s: %s", file, note)
        self._check_columns(file, table, reader, owner)
        rows = list(table.rows)
        reader.learn([row.fields for row in rows])
        decimal = None
        if table.numbers_are_text:
            decimal = hints.decimal or self._find_decimal(file, rows, reader)
        by_symbol: BySymbol[P] = {}
        skipped, total = SkippedRows(file, self._error), len(rows)
        for row in rows:
            try:
                symbols, records, undated = self._parse_row(row, decimal, reader, owner)
            except BadInputError as error:
                skipped.add(row.where, error)
                continue
            for symbol in symbols:
                known, before = by_symbol.setdefault(symbol, ([], 0))
                known.extend(records)
                by_symbol[symbol] = (known, before + undated)
        skipped.report(total)
        return by_symbol

    def _parse_row(
        self, row: RecordRow, decimal: Decimal | None, reader: FieldReader, owner: str | None
    ) -> tuple[tuple[str, ...], tuple[P, ...], int]:
        """Return a row's symbols, its record if it is dated, and 1 if it isn't."""
        if row.problem:
            raise BadInputError(row.problem)
        symbols = reader.symbols(row.fields, owner)
        fields = reader.read(row.fields)
        if decimal is not None and "value" in fields:
            # What is no number is left for the record to refuse.
            number = read_number(fields["value"], decimal)
            fields["value"] = fields["value"] if number is None else number
        try:
            records, undated = read_published([fields], self._kind, "record", BadInputError)
        except BadInputError as error:
            raise BadInputError(str(error).removeprefix("record 0: ")) from None
        return symbols, records, undated

    def _find_decimal(self, file: Path, rows: list[RecordRow], reader: FieldReader) -> Decimal:
        """Return the decimal mark of a table's numbers. Raises the error where it stays open."""
        cells = [str(cell) for cell in reader.values([row.fields for row in rows], "value")]
        try:
            decimal = find_decimal(cells)
        except InvalidBarsError as error:
            raise self._error(f"{file}: {error}") from None
        if decimal is None:
            cell = next(cell for cell in cells if "," in cell)
            raise self._error(
                f"{file}: value {cell!r} may be a thousand or a fraction, and no number of the "
                f'file shows which; write `decimal: ","` or `decimal: "."` into {HINTS_FILE} '
                "beside the file"
            )
        return decimal

    def _check_columns(
        self, file: Path, table: RecordRows, reader: FieldReader, owner: str | None
    ) -> None:
        """Raise the error for a table that lacks a column, and for a feed without its symbol."""
        columns = table.columns
        if owner is None and record_suffix(file.name) in FEED_SUFFIXES:
            raise self._error(
                f"{file}: a feed names no symbol; give the folder of feeds that are called after "
                f"theirs, such as {file.name}"
            )
        if columns is None:
            return
        shown = show_value(", ".join(columns))
        if (missing := reader.missing(columns)) is not None:
            raise self._error(
                f"{file}: no column is {missing!r}; there is: {shown}; read are: "
                f"{reader.expected(missing)}. Write `columns: {{{missing}: NAME}}` into "
                f"{HINTS_FILE} beside the file"
            )
        if owner is None and not reader.names_symbol(columns):
            raise self._error(
                f"{file}: no column is 'symbol'; there is: {shown}; name the file after its "
                "symbol, such as GOOG.csv, and give its folder"
            )


def _read_record_hints(file: Path) -> RecordHints:
    """Return the hints in `records.yaml` beside a file. Raises ConfigError for bad ones."""
    path = file.parent / HINTS_FILE
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return NO_RECORD_HINTS
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read: {describe_error(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: write keys such as `zone: America/New_York`")
    try:
        return RecordHints.parse(**{str(k): v for k, v in content.items()})
    except BadInputError as error:
        raise ConfigError(f"{path}: {error}") from None


class FileNews:
    """A NewsSource over files, each row with the fields of a NewsItem."""

    def __init__(self, path: str | Path) -> None:
        self._files = RecordFiles(path, NewsItem, InvalidNewsError)
        self.name = self._files.name

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have news, sorted."""
        return self._files.symbols()

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Return items oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._files.records(symbol)


class FileFundamentals:
    """A FundamentalsSource over files, each row with the fields of a Fact."""

    def __init__(self, path: str | Path) -> None:
        self._files = RecordFiles(path, Fact, InvalidFundamentalsError)
        self.name = self._files.name

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have facts, sorted."""
        return self._files.symbols()

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Return facts oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._files.records(symbol)


def load_bundled_news() -> FileNews:
    """Return the bundled news: a few dated public events of the bundled stocks, 2000 to 2013."""
    return FileNews(EVENTS)
