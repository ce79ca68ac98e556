"""Bars, news and fundamentals from tables of a database, a row each, with the same columns as in
files and `symbol` beside them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Generic, TypeVar

import pandas as pd

from finagent_model.data.database import SymbolTable
from finagent_model.data.table import COLUMNS, DATES, series_of_table
from finagent_model.domain.bars import PRICES, BarSeries
from finagent_model.domain.dated import Published, read_published
from finagent_model.domain.fundamentals import Fact
from finagent_model.domain.news import NewsItem
from finagent_model.errors import (
    BadInputError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    UnknownSymbolError,
)

P = TypeVar("P", bound=Published)


class SqlBars:
    """A BarSource over one table."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used."""
        self._table = SymbolTable(url, "FINAGENT_BARS", "bars")
        self.name = self._table.name

    def symbols(self) -> tuple[str, ...]:
        return self._table.symbols()

    def bars(self, symbol: str) -> BarSeries:
        rows = self._table.rows(symbol, COLUMNS, PRICES, DATES)
        if not rows:
            raise UnknownSymbolError(symbol, self.symbols(), self.name)
        try:
            return series_of_table(symbol, pd.DataFrame(rows))
        except InvalidBarsError as error:
            raise InvalidBarsError(f"{self.name}: {error}") from error


class _Records(Generic[P]):
    """Dated records of one kind in one table."""

    def __init__(
        self, url: str, variable: str, table: str, kind: type[P], error: type[BadInputError]
    ) -> None:
        self._table = SymbolTable(url, variable, table)
        self._kind, self._error = kind, error

    def of(self, symbol: str) -> tuple[tuple[P, ...], int]:
        fields = self._kind.model_fields
        required = [name for name, field in fields.items() if field.is_required()]
        rows = self._table.rows(symbol, tuple(fields), required, ("published_at",))
        try:
            return read_published([_told(row) for row in rows], self._kind, "row", self._error)
        except BadInputError as error:
            raise self._error(f"{self._table.name}, {symbol}: {error}") from None


class SqlNews:
    """A NewsSource over one table with the fields of a NewsItem."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used."""
        self._records = _Records(url, "FINAGENT_NEWS", "news", NewsItem, InvalidNewsError)

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        return self._records.of(symbol)


class SqlFundamentals:
    """A FundamentalsSource over one table with the fields of a Fact."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used."""
        self._records = _Records(
            url, "FINAGENT_FUNDAMENTALS", "fundamentals", Fact, InvalidFundamentalsError
        )

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        return self._records.of(symbol)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """What a row says: null says nothing, and a NUMERIC is a number."""
    return {
        name: float(value) if isinstance(value, Decimal | int) else value
        for name, value in row.items()
        if value is not None
    }
