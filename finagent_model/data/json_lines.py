"""Dated records in JSON Lines, one object a line: a file for many symbols, with `symbol` beside the
fields, or a folder with a file for each symbol, named after it, whose lines need not name it.

Lines without `published_at` are counted and left out; any other bad line stops the reading and is
named.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from finagent_model.domain.dated import Published, read_published
from finagent_model.errors import BadInputError, DataSourceError

P = TypeVar("P", bound=Published)
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
        if not isinstance(symbol, str) or not symbol or symbol != symbol.upper():
            raise self._error(
                f"{where}: symbol {symbol!r} is not an upper-case ticker such as 'GOOG'"
            )
        return record
