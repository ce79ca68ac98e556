"""News from a JSON Lines file: one object a line, with `symbol` beside the fields of a NewsItem.

Lines without `published_at` are counted and left out; any other bad line stops the reading and is
named.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from finagent_model.domain.news import NewsItem, read_news
from finagent_model.errors import DataSourceError, InvalidNewsError

EVENTS = Path(__file__).with_name("events.jsonl")


class FileNews:
    """A NewsSource over one file, which is read on first use and once."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def symbols(self) -> tuple[str, ...]:
        return tuple(sorted(self._by_symbol))

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        items, undated = self._by_symbol.get(symbol, ([], 0))
        return tuple(sorted(items, key=lambda item: item.published_at)), undated

    @cached_property
    def _by_symbol(self) -> dict[str, tuple[list[NewsItem], int]]:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataSourceError(
                f"{self.path} can't be read ({error}); "
                "give a UTF-8 file with one JSON object a line"
            ) from error
        found: dict[str, tuple[list[NewsItem], int]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{self.path}, line {number}"
            record = _record(where, line)
            try:
                items, undated = read_news([record])
            except InvalidNewsError as error:
                raise InvalidNewsError(
                    f"{where}: {str(error).removeprefix('news item 0: ')}"
                ) from error
            known, dropped = found.get(record["symbol"], ([], 0))
            found[record["symbol"]] = ([*known, *items], dropped + undated)
        return found


def bundled_events() -> FileNews:
    """Dated public events of the bundled stocks, 2000 to 2013: few, and each can be looked up."""
    return FileNews(EVENTS)


def _record(where: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidNewsError(f"{where}: not JSON ({error.msg})") from error
    if not isinstance(record, dict):
        raise InvalidNewsError(
            f'{where}: not an object; write {{"symbol": ..., "published_at": ...}}'
        )
    symbol = record.get("symbol")
    if not isinstance(symbol, str) or not symbol or symbol != symbol.upper():
        raise InvalidNewsError(
            f"{where}: symbol {symbol!r} is not an upper-case ticker such as 'GOOG'"
        )
    return record
