"""Dated records of many symbols in a JSON Lines file: one object a line, with `symbol` beside its
fields.

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


class DatedLines(Generic[P]):
    """One file of records of one kind, which is read on first use and once."""

    def __init__(self, path: str | Path, kind: type[P], error: type[BadInputError]) -> None:
        """`error` is raised for a line that can't be read, DataSourceError for such a file."""
        self.path = Path(path)
        self._kind = kind
        self._error = error

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(self._by_symbol))

    def of(self, symbol: str) -> tuple[tuple[P, ...], int]:
        """Records of `symbol` oldest first, and how many were undated."""
        records, undated = self._by_symbol.get(symbol, ([], 0))
        return tuple(sorted(records, key=lambda record: record.published_at)), undated

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[list[P], int]]:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataSourceError(
                f"{self.path} can't be read ({error}); "
                "give a UTF-8 file with one JSON object a line"
            ) from error
        found: dict[str, tuple[list[P], int]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{self.path}, line {number}"
            record = self._record(where, line)
            try:
                records, undated = read_published([record], self._kind, "record", self._error)
            except BadInputError as error:
                raise self._error(f"{where}: {str(error).removeprefix('record 0: ')}") from error
            known, dropped = found.get(record["symbol"], ([], 0))
            found[record["symbol"]] = ([*known, *records], dropped + undated)
        return found

    def _record(self, where: str, line: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", error)
            raise self._error(f"{where}: not JSON ({why})") from error
        if not isinstance(record, dict):
            raise self._error(
                f'{where}: not an object; write {{"symbol": ..., "published_at": ...}}'
            )
        symbol = record.get("symbol")
        if not isinstance(symbol, str) or not symbol or symbol != symbol.upper():
            raise self._error(
                f"{where}: symbol {symbol!r} is not an upper-case ticker such as 'GOOG'"
            )
        return record
