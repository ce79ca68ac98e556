"""Tables of a database, read a symbol at a time. A URL may hold a password: no message shows it.

`sqlite:///bars.db?table=bars`: the part `table` is ours, and may name a schema too (`eod.bars`);
the rest of the URL is SQLAlchemy's. Nothing is ever written.

Bars, news and fundamentals from tables of a database, a row each, with the same columns as in
files and `symbol` beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pandas as pd

from finagent_model.data.files import COLUMNS, DATES, column_name, series_of_table
from finagent_model.errors import (
    MAX_LISTED,
    BadInputError,
    ConfigError,
    DataSourceError,
    InvalidBarsError,
    InvalidFundamentalsError,
    InvalidNewsError,
    UnknownSymbolError,
)
from finagent_model.market.bars import PRICES, BarSeries
from finagent_model.market.news import Fact, NewsItem, PublishedRecord, read_published
from finagent_model.settings import create_database_engine, driver_error_message, parse_database_url

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table


SYMBOL = "symbol"


class SymbolTable:
    """One table with a column `symbol`. A connection lives for one call."""

    def __init__(self, url: str, variable: str, table: str) -> None:
        """`variable` is where the URL came from, `table` what is read where it names none.
        Connects nowhere. Raises ConfigError for a URL that can't be used.
        """
        read = _read(url, variable)
        named = read.query.get("table", table)
        self.table = named if isinstance(named, str) else named[-1]
        self._url = read.difference_update_query(["table"])
        self._variable = variable
        self._engine = _engine(self._url, variable)

    @property
    def name(self) -> str:
        """The database and its table, without user and password; the same wherever it is read. What
        else the URL says, such as a host or a search path, may make it another one, but may hold a
        secret too: it is told apart by a hash.
        """
        dialect, database = self._url.get_backend_name(), self._url.database or ""
        if dialect == "sqlite" and database:
            database = str(Path(database).absolute())
        host = f"{self._url.host or ''}{f':{self._url.port}' if self._url.port else ''}"
        told = sorted((k, v) for k, v in self._url.query.items() if "pass" not in k.lower())
        rest = f"?{hashlib.sha256(repr(told).encode()).hexdigest()[:8]}" if told else ""
        return f"{dialect}://{host}/{database}{rest}#{self.table}"

    def symbols(self) -> tuple[str, ...]:
        from sqlalchemy import select

        with self._usable() as connection:
            table = self._reflected(connection, ())
            symbol = table.c[self._columns(table)[SYMBOL]]
            found = connection.execute(select(symbol).distinct()).scalars().all()
        return tuple(sorted(str(name) for name in found if name is not None))

    def rows(
        self,
        symbol: str,
        wanted: Collection[str],
        required: Collection[str],
        order: Collection[str],
    ) -> list[dict[str, Any]]:
        """Rows of `symbol` with the columns of `wanted` that there are, under our names and sorted
        by the first column of `order` that there is. Raises DataSourceError.
        """
        from sqlalchemy import select

        with self._usable() as connection:
            table = self._reflected(connection, required)
            there = self._columns(table)
            chosen = {name: table.c[there[name]] for name in wanted if name in there}
            query = select(*chosen.values()).where(table.c[there[SYMBOL]] == symbol)
            by = next((chosen[name] for name in order if name in chosen), None)
            found = connection.execute(query if by is None else query.order_by(by)).all()
        return [dict(zip(chosen, row, strict=True)) for row in found]

    def _reflected(self, connection: Connection, required: Collection[str]) -> Table:
        from sqlalchemy import MetaData, Table, inspect
        from sqlalchemy.exc import NoSuchTableError

        schema, _, name = self.table.rpartition(".")
        try:
            table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
        except NoSuchTableError:
            looked = inspect(connection)
            there = [
                *looked.get_table_names(schema or None),
                *looked.get_view_names(schema or None),
            ]
            raise DataSourceError(
                f"{self.name}: there is no table {self.table!r}; there is: {_listed(there)}. "
                f"Write ?table=NAME at the end of {self._variable}"
            ) from None
        for column in (SYMBOL, *required):
            if column not in self._columns(table):
                raise DataSourceError(
                    f"{self.name}: column {column!r} is missing; there is: "
                    f"{_listed(table.columns.keys())}. A view may give it that name"
                )
        return table

    @staticmethod
    def _columns(table: Table) -> dict[str, str]:
        """Our name to the database's."""
        return {column_name(column.name): column.name for column in table.columns}

    @contextmanager
    def _usable(self) -> Iterator[Connection]:
        """Raises DataSourceError for whatever a driver raises in the block."""
        file = self._url.database
        if self._url.get_backend_name() == "sqlite" and not (file and Path(file).is_file()):
            raise DataSourceError(  # SQLite would make an empty one
                f"{self.name}: there is no file {file!r}; correct {self._variable}"
            )
        try:
            with self._engine.connect() as connection:
                yield connection
        except DataSourceError:
            raise
        except Exception as error:  # a driver may raise anything
            raise DataSourceError(
                f"{self.name} can't be read: {driver_error_message(error, self._url)}; see that it "
                f"runs and may be read, or change {self._variable}"
            ) from None


def _read(url: str, variable: str) -> URL:
    try:
        return parse_database_url(url)
    except ValueError:
        raise ConfigError(
            f"{variable} can't be read; write it like sqlite:///bars.db?table=bars or "
            "postgresql+psycopg2://user:password@host/name?table=bars, the password percent-encoded"
        ) from None


def _engine(url: URL, variable: str) -> Engine:
    try:
        return create_database_engine(url)
    except ValueError as error:
        raise ConfigError(
            f"{variable} can't be used: {error}; install its driver "
            "(psycopg2-binary for PostgreSQL), or change it"
        ) from None


def _listed(names: Collection[str]) -> str:
    shown = sorted(names)[:MAX_LISTED]
    return ", ".join(shown) + (", ..." if len(names) > MAX_LISTED else "") if names else "none"


P = TypeVar("P", bound=PublishedRecord)


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
