"""News from JSON Lines, and the events that the package brings."""

from __future__ import annotations

from pathlib import Path

from finagent_model.data.json_lines import DatedLines
from finagent_model.domain.news import NewsItem
from finagent_model.errors import InvalidNewsError

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
