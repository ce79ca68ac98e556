"""Fundamentals from JSON Lines."""

from __future__ import annotations

from pathlib import Path

from finagent_model.data.json_lines import DatedLines
from finagent_model.domain.fundamentals import Fact
from finagent_model.errors import InvalidFundamentalsError


class FileFundamentals:
    """A FundamentalsSource over a file or folder of dated lines, each with the fields of a Fact."""

    def __init__(self, path: str | Path) -> None:
        self._lines = DatedLines(path, Fact, InvalidFundamentalsError)

    def symbols(self) -> tuple[str, ...]:
        return self._lines.symbols()

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        return self._lines.of(symbol)
