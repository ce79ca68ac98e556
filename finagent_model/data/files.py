"""Sources over the user's own files of news and fundamentals, in JSON Lines.

Dated records are one JSON object per line: a file for many symbols, with `symbol` beside the
fields, or a folder with a file per symbol. Lines without `published_at` are counted and left out;
any other bad line stops the reading and is named.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from finagent_model.errors import (
    BadInputError,
    DataSourceError,
    InvalidFundamentalsError,
    InvalidNewsError,
)
from finagent_model.market.bars import parse_symbol
from finagent_model.market.news import Fact, NewsItem, PublishedRecord, read_published

RECORD_SUFFIX = ".jsonl"
EVENTS = Path(__file__).with_name("events.jsonl")
P = TypeVar("P", bound=PublishedRecord)


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
