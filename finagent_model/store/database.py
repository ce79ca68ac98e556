"""Which revision of the schema a database has, and the way to the newest.

The one way to open a database: SQLite, or PostgreSQL.

A database without our tables gets them when it is first used. One that older code made waits for
`finagent db upgrade`, so that it can be saved before. No error shows a password.

All rows of a SQLite file into another database: to move to PostgreSQL, or to keep a copy while
others go on writing. The file is read and never written to, whosever it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, event, func, insert, select, text
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError, StatementError

from finagent_model.errors import BadInputError, StoreError
from finagent_model.settings import (
    DATABASE_TIMEOUT_S,
    Settings,
    create_database_engine,
    driver_error_message,
    parse_database_url,
)
from finagent_model.store.schema import SCHEMA, column_width_errors

VERSIONS = "finagent_version"
"""The table of the revision. Alembic's usual name may be the platform's, MLflow's or Airflow's."""
FOLDER = Path(__file__).with_name("migrations")


@cache
def newest_revision() -> str:
    """The revision that this code works with."""
    head = _scripts().get_current_head()
    assert head is not None
    return head


def current_revision(connection: Connection) -> str | None:
    """The revision of the database; None: it was never prepared by code with revisions."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSIONS})
    return context.get_current_revision()


def is_older(revision: str) -> bool:
    """Whether this code knows the way from `revision`; else a newer code wrote it."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def upgrade(connection: Connection) -> None:
    """All that is missing, in the transaction of `connection`, which must keep others out."""
    scripts = _scripts()

    def steps(revision: str, context: MigrationContext) -> list[RevisionStep]:
        return scripts._upgrade_revs("head", revision)  # as Alembic's own command does

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection, version_table=VERSIONS)
        environment.run_migrations()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])


FILE = "finagent.db"
"""In FINAGENT_HOME, where no database is named."""
UPGRADES = 0x66696E61
"""PostgreSQL's lock of those who upgrade."""
WRITES = "finagent_writes"


class Database:
    """One database. A connection lives for one call, so that it may be kept over a fork."""

    def __init__(self, url: str) -> None:
        """Connects nowhere. Raises StoreError for a URL that can't be read, or without a driver."""
        self._url = _read(url)
        self._engine = _engine(self._url)
        self._ready = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """That of FINAGENT_DATABASE, else a file in FINAGENT_HOME. Raises StoreError."""
        if settings.database is not None:
            return cls(settings.database.get_secret_value())
        path = settings.home.absolute() / FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"FINAGENT_HOME {path.parent} can't be made: {error.strerror}; "
                "name a folder that can be written, or set FINAGENT_DATABASE"
            ) from None
        return cls(URL.create("sqlite", database=str(path)).render_as_string())

    def __str__(self) -> str:
        """The address without its password."""
        return _shown(self._url)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that only reads. Raises StoreError for whatever the block's SQL raises; what
        else the block raises comes through.
        """
        self.prepare()
        with self._connected() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, all of the block or nothing of it. Raises StoreError, as above, and
        UnstorableError for a value that its column does not take.
        """
        self.prepare()
        with self._transaction() as connection:
            yield connection

    def prepare(self) -> None:
        """Make the tables where there are none. Raises StoreError for those of other code."""
        if self._ready:
            return
        found, newest = self.revision(), newest_revision()
        if found is None:
            self.upgrade()
        elif found != newest:
            way = (
                "save it, then run `finagent db upgrade`"
                if is_older(found)
                else "install the finagent-model that upgraded it, or a later one"
            )
            raise StoreError(
                f"the database {self} has revision {found}, this code needs {newest}; {way}"
            )
        self._ready = True

    def revision(self) -> str | None:
        """Of its schema; None: we never prepared it. Raises StoreError."""
        with self._connected() as connection:
            return current_revision(connection)

    def upgrade(self) -> None:
        """Bring the schema to the newest revision, one process at a time. Raises StoreError."""
        if self._engine.dialect.name == "sqlite":
            self._let_readers_and_a_writer_be()
        with self._transaction() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"select pg_advisory_xact_lock({UPGRADES})")
            upgrade(connection)

    def _let_readers_and_a_writer_be(self) -> None:
        """SQLite's write-ahead log, which the file keeps; no reader holds up a writer then."""
        locked = sqlite3.OperationalError  # another process is about to say the same
        with self._connected() as connection, suppress(locked):
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("pragma journal_mode=wal")

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._connected() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"set local lock_timeout = '{DATABASE_TIMEOUT_S}s'")
                yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """What the database or its driver raises is a StoreError, a bug in the block stays one."""
        try:
            connection = self._engine.connect()
        except Exception as error:  # a driver may raise anything, for a URL that it can't use too
            raise self._unusable(error) from None
        try:
            with connection:
                yield connection
        except DataError as error:
            with suppress(SQLAlchemyError), self._engine.connect() as other:
                raise column_width_errors(error, other) from None
            raise self._unusable(error) from None
        except StatementError as error:
            if not isinstance(error, DBAPIError):
                raise  # a value of ours that can't even be told to the driver
            raise self._unusable(error) from None
        except (SQLAlchemyError, sqlite3.Error, CommandError, JSONDecodeError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"the database {self} can't be used: {driver_error_message(error, self._url)}; "
            "see that it runs and may be written, or change FINAGENT_DATABASE"
        )


def _read(url: str) -> URL:
    try:
        return parse_database_url(url)
    except ValueError:
        raise StoreError(
            "FINAGENT_DATABASE can't be read; write it like sqlite:///finagent.db or "
            "postgresql+psycopg2://user:password@host/name, the password percent-encoded"
        ) from None


def _engine(url: URL) -> Engine:
    try:
        engine = create_database_engine(url)
    except ValueError as error:
        raise StoreError(
            f"the database {_shown(url)} can't be used: {error}; "
            "install its driver (psycopg2-binary for PostgreSQL), or change FINAGENT_DATABASE"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _say_begin_ourselves)
        event.listen(engine, "begin", _begin)
    else:
        event.listen(engine, "begin", _in_utc)
    return engine


def _say_begin_ourselves(connection: Any, _: object) -> None:
    """Python's driver would begin late, and not at all before a change of the schema."""
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    """A writer takes its lock at once: two that read first could not both go on to write."""
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("begin immediate" if writes else "begin")


def _in_utc(connection: Connection) -> None:
    """A column without a zone, in a table that others made, takes what it is told in UTC."""
    connection.exec_driver_sql("set local time zone 'UTC'")


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


BATCH = 500


def copy_database(source: Path, target: Database) -> dict[str, int]:
    """How many rows of each table were copied, with their numbers, in one transaction. Raises
    BadInputError where there is no file, or none with our tables as this code knows them, or the
    target holds rows already, and StoreError.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {str(source)!r} to copy; name a finagent.db")
    file = Database(_read_only(source))
    if (found := file.revision()) != newest_revision():
        raise BadInputError(_other(source, found))
    with file.reading() as old, target.writing() as new:
        return {table: _copy(table, old, new, str(target)) for table in SCHEMA.tables}


def _read_only(source: Path) -> str:
    """Its URL. A write-ahead log is read with it."""
    file = f"file:{quote(str(source.absolute()))}"
    url = URL.create("sqlite", database=file, query={"mode": "ro", "uri": "true"})
    return url.render_as_string()


def _other(source: Path, revision: str | None) -> str:
    if revision is None:
        # No advice to prepare it: it may be another program's.
        return f"{str(source)!r} has no tables of this code, nothing was copied; name a finagent.db"
    upgrade = f"`FINAGENT_DATABASE=sqlite:///{source.absolute()} finagent db upgrade`"
    way = f"save it, then run {upgrade}" if is_older(revision) else "use the newer code"
    needed = f"this code needs {newest_revision()}"
    return f"{str(source)!r} has revision {revision}, {needed}; {way}"


def _copy(name: str, old: Connection, new: Connection, target: str) -> int:
    table, count = SCHEMA.tables[name], 0
    if new.execute(select(func.count()).select_from(table)).scalar_one():
        raise BadInputError(f"{target} has rows in {name}; copy into an empty database")
    for rows in old.execute(select(table)).mappings().partitions(BATCH):
        new.execute(insert(table), [dict(row) for row in rows])
        count += len(rows)
    if count and new.dialect.name == "postgresql" and name != "finagent_decisions":
        # Numbers were given, so that the database has counted none of them.
        next_number = f"pg_get_serial_sequence('{name}', 'id'), (select max(id) from {name})"
        new.execute(text(f"select setval({next_number})"))
    return count
