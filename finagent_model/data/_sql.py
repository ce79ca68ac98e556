"""Sources over database tables: bars, news and fundamentals, a row each.

Columns are the same as in files, with `symbol` beside them. `sqlite:///bars.db?table=bars`: the
parameter `table` is ours, and may name a schema too (`eod.bars`); so are `timeframe`, `calendar`,
`zone`, `stamps` and `on_bad_rows` of bars, as in `bars.yaml`. The rest of the URL is SQLAlchemy's.
Nothing is ever written. A URL may hold a password: no message shows it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pandas as pd

from finagent_model.data._raw_table import normalize_column
from finagent_model.data._record_fields import PUBLISHED, is_zoned_midnight, read_moment
from finagent_model.data.bar_columns import Hints
from finagent_model.data.bar_tables import parse_bars
from finagent_model.data.files import SkippedRows
from finagent_model.data.vendors import DATE_NAMES
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
from finagent_model.market.timeframe import DAILY, parse_timeframe
from finagent_model.settings import create_database_engine, driver_error_message, parse_database_url

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine, Table


SYMBOL, TIMEFRAME = "symbol", "timeframe"
SYMBOL_NAMES = (SYMBOL, "code", "ticker")
"""Names of the column of symbols; the first that is there is read."""
DAILY_NAMES = ("1d", "d", "1day", "day", "daily", "1440")
"""What a column `timeframe` may call bars of a day, in lower case and without blanks."""
HINT_PARAMETERS = ("timeframe", "calendar", "zone", "stamps", "on_bad_rows")
"""Of the URL: what the rows can't tell of when bars closed, and what becomes of bad ones."""
P = TypeVar("P", bound=PublishedRecord)


class SqlBars:
    """A BarSource over one table."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used. Connects nowhere."""
        self._table = _SymbolTable(url, "FINAGENT_BARS", "bars", HINT_PARAMETERS)
        self.name = self._table.name
        try:
            self._hints = Hints.parse(**self._table.parameters)
        except BadInputError as error:
            raise ConfigError(f"FINAGENT_BARS: {error}") from None

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols of the table, sorted. Raises DataSourceError."""
        return self._table.symbols()

    def bars(self, symbol: str) -> BarSeries:
        """Return all bars of `symbol`.

        Raises UnknownSymbolError, DataSourceError and InvalidBarsError.
        """
        # All columns: one of splits that is not read would be lost unsaid.
        rows = self._table.read(symbol, None, PRICES, DATE_NAMES)
        if not rows:
            # A second query, only to list the symbols that exist.
            raise UnknownSymbolError(symbol, self.symbols(), self.name)
        rows = self._select_length(symbol, rows)
        try:
            return parse_bars(symbol, pd.DataFrame(rows), self._hints)
        except InvalidBarsError as error:
            raise InvalidBarsError(f"{self.name}: {error}") from error

    def _select_length(self, symbol: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of one length of bars, of a table with several, without that column.

        It is the URL's `timeframe`, or else a day.
        """
        if TIMEFRAME not in rows[0]:
            return rows
        wanted = self._hints.timeframe or DAILY.name
        # An hour's bar among days would be taken for a day.
        chosen = [row for row in rows if _has_length(row[TIMEFRAME], wanted)]
        if not chosen:
            there = {str(row[TIMEFRAME]) for row in rows}
            raise InvalidBarsError(
                f"{self.name}: {symbol} has no bars of {wanted}; its column {TIMEFRAME!r} has: "
                f"{_list_names(there)}. Add ?timeframe=1h or another to the URL; without it these "
                f"are read: {', '.join(DAILY_NAMES)}"
            )
        return [{k: v for k, v in row.items() if k != TIMEFRAME} for row in chosen]


class SqlNews:
    """A NewsSource over one table with the fields of a NewsItem."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used. Connects nowhere."""
        self._records = _SqlRecords(url, "FINAGENT_NEWS", "news", NewsItem, InvalidNewsError)
        self.name = self._records.name

    def news(self, symbol: str) -> tuple[tuple[NewsItem, ...], int]:
        """Return items oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._records.read(symbol)


class SqlFundamentals:
    """A FundamentalsSource over one table with the fields of a Fact."""

    def __init__(self, url: str) -> None:
        """Raises ConfigError for a URL that can't be used. Connects nowhere."""
        self._records = _SqlRecords(
            url, "FINAGENT_FUNDAMENTALS", "fundamentals", Fact, InvalidFundamentalsError
        )
        self.name = self._records.name

    def facts(self, symbol: str) -> tuple[tuple[Fact, ...], int]:
        """Return facts oldest first and the undated count; `((), 0)` for a symbol without any."""
        return self._records.read(symbol)


class _SqlRecords(Generic[P]):
    """Dated records of one kind in one table."""

    def __init__(
        self, url: str, variable: str, table: str, kind: type[P], error: type[BadInputError]
    ) -> None:
        self._table = _SymbolTable(url, variable, table)
        self.name = self._table.name
        self._kind, self._error = kind, error

    def read(self, symbol: str) -> tuple[tuple[P, ...], int]:
        """Return the records of `symbol` oldest first, and how many were undated."""
        fields = self._kind.model_fields
        required = [name for name, field in fields.items() if field.is_required()]
        rows = self._table.read(symbol, tuple(fields), required, (PUBLISHED,))
        skipped = SkippedRows(f"{self._table.name}, {symbol}", self._error)
        records: list[P] = []
        undated = 0
        dated = [row for row in rows if row.get(PUBLISHED) not in (None, "")]
        # As of a file: times that are all midnights are dates, known when those have ended.
        if all(is_zoned_midnight(row[PUBLISHED]) for row in dated):
            for row in dated:
                row[PUBLISHED] = read_moment(row[PUBLISHED], None, midnight_is_date=True)
        for number, row in enumerate(rows):
            try:
                new, count = read_published([_plain_record(row)], self._kind, "row", self._error)
            except BadInputError as error:
                skipped.add(f"row {number}", str(error).removeprefix("row 0: "))
                continue
            records.extend(new)
            undated += count
        skipped.report(len(rows))
        return tuple(sorted(records, key=lambda record: record.published_at)), undated


class _SymbolTable:
    """One table with a column `symbol`. A connection lives for one call."""

    def __init__(
        self, url: str, variable: str, table: str, parameters: Collection[str] = ()
    ) -> None:
        """Use the table that `url` names, else `table`; `variable` is where the URL came from.

        `parameters` are taken out of the URL. Connects nowhere. Raises ConfigError for a URL that
        can't be used.
        """
        parsed = _parse_url(url, variable)
        self.parameters = {name: parsed.query[name] for name in parameters if name in parsed.query}
        parsed = parsed.difference_update_query(list(parameters))
        parameter = parsed.query.get("table", table)
        self.table = parameter if isinstance(parameter, str) else parameter[-1]
        self._url = parsed.difference_update_query(["table"])
        self._variable = variable
        self._engine = _make_engine(self._url, variable)

    @property
    def name(self) -> str:
        """The database and its table, without user and password; equal wherever it is read."""
        dialect, database = self._url.get_backend_name(), self._url.database or ""
        if dialect == "sqlite" and database:
            database = str(Path(database).absolute())
        host = f"{self._url.host or ''}{f':{self._url.port}' if self._url.port else ''}"
        # Other parameters, such as a search path, may select other data but may hold a secret
        # too. So they are told apart by a hash.
        options = sorted((k, v) for k, v in self._url.query.items() if "pass" not in k.lower())
        suffix = f"?{hashlib.sha256(repr(options).encode()).hexdigest()[:8]}" if options else ""
        return f"{dialect}://{host}/{database}{suffix}#{self.table}"

    def symbols(self) -> tuple[str, ...]:
        """Return the distinct symbols, sorted. Raises DataSourceError."""
        from sqlalchemy import select

        with self._connect() as connection:
            table = self._reflect(connection, ())
            symbol = table.c[_symbol_column(table)]
            symbols = connection.execute(select(symbol).distinct()).scalars().all()
        return tuple(sorted(str(name) for name in symbols if name is not None))

    def read(
        self,
        symbol: str,
        columns: Collection[str] | None,
        required: Collection[str],
        order: Collection[str],
    ) -> list[dict[str, Any]]:
        """Return the rows of `symbol` under our column names.

        They have those of `columns` that exist, or all but the symbol, and are sorted by the first
        of `order` that exists.
        Raises DataSourceError, also where one of `required` is missing.
        """
        from sqlalchemy import select

        with self._connect() as connection:
            table = self._reflect(connection, required)
            by_name = _columns_by_name(table)
            symbols = _symbol_column(table)
            wanted = [n for n in by_name if by_name[n] != symbols] if columns is None else columns
            selected = {name: table.c[by_name[name]] for name in wanted if name in by_name}
            # The symbol is a bound value, never SQL.
            query = select(*selected.values()).where(table.c[symbols] == symbol)
            key = next((selected[name] for name in order if name in selected), None)
            rows = connection.execute(query if key is None else query.order_by(key)).all()
        return [dict(zip(selected, row, strict=True)) for row in rows]

    def _reflect(self, connection: Connection, required: Collection[str]) -> Table:
        """Read the table's columns from the database. Raises DataSourceError."""
        from sqlalchemy import MetaData, Table, inspect
        from sqlalchemy.exc import NoSuchTableError

        # At each call, since the table may change while this process lives.
        schema, _, name = self.table.rpartition(".")
        try:
            table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
        except NoSuchTableError:
            inspector = inspect(connection)
            tables = [
                *inspector.get_table_names(schema or None),
                *inspector.get_view_names(schema or None),
            ]
            raise DataSourceError(
                f"{self.name}: there is no table {self.table!r}; there is: {_list_names(tables)}. "
                f"Write ?table=NAME at the end of {self._variable}"
            ) from None
        by_name = _columns_by_name(table)
        for column in (SYMBOL, *required):
            is_there = _symbol_column(table) if column == SYMBOL else column in by_name
            if not is_there:
                raise DataSourceError(
                    f"{self.name}: column {column!r} is missing; there is: "
                    f"{_list_names(table.columns.keys())}. A view may give it that name"
                )
        return table

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Connect for the block, and raise DataSourceError for whatever a driver raises in it."""
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


def _columns_by_name(table: Table) -> dict[str, str]:
    """Return the database's name of each column by ours."""
    return {normalize_column(column.name): column.name for column in table.columns}


def _symbol_column(table: Table) -> str:
    """Return the database's name of the column of symbols; empty if there is none."""
    by_name = _columns_by_name(table)
    return next((by_name[name] for name in SYMBOL_NAMES if name in by_name), "")


def _has_length(value: object, wanted: str) -> bool:
    """Return whether a cell of the column `timeframe` names bars of the length `wanted`."""
    text = "".join(str(value).split())
    if wanted == DAILY.name and text.lower() in DAILY_NAMES:
        return True
    try:
        return parse_timeframe(text).name == wanted
    except BadInputError:
        return False


def _parse_url(url: str, variable: str) -> URL:
    try:
        return parse_database_url(url)
    except ValueError:
        raise ConfigError(
            f"{variable} can't be read; write it like sqlite:///bars.db?table=bars or "
            "postgresql+psycopg2://user:password@host/name?table=bars, the password percent-encoded"
        ) from None


def _make_engine(url: URL, variable: str) -> Engine:
    try:
        return create_database_engine(url)
    except ValueError as error:
        raise ConfigError(
            f"{variable} can't be used: {error}; install its driver "
            "(psycopg2-binary for PostgreSQL), or change it"
        ) from None


def _list_names(names: Collection[str]) -> str:
    shown = sorted(names)[:MAX_LISTED]
    return ", ".join(shown) + (", ..." if len(names) > MAX_LISTED else "") if names else "none"


def _plain_record(row: dict[str, Any]) -> dict[str, Any]:
    """Return `row` as a file would have it: no nulls, and NUMERIC as a float."""
    return {
        name: float(value) if isinstance(value, Decimal | int) else value
        for name, value in row.items()
        if value is not None
    }
