"""The one way to open a database, SQLite or PostgreSQL, and to bring its tables up to date.

A database without our tables gets them when it is first used; a SQLite file is made whole, so that
one without tables was emptied, and is refused. One that older code made waits for `finagent db
upgrade`, so that it can be saved before. A connection lives for one call, so that a `Database` may
be kept over a fork. No error shows a password.

`copy_database` copies a SQLite file into another database: to move to PostgreSQL, or to keep a copy
while others go on writing.
"""

from __future__ import annotations

import logging
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
from sqlalchemy import URL, Connection, Engine, Table, event, func, insert, select, text
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError, StatementError

from finagent_model._local_files import (
    WRITE_TIMEOUT_S,
    FileId,
    begin_immediate,
    create_sqlite_file,
    file_id,
    is_emptied,
    make_private_folder,
)
from finagent_model.errors import BadInputError, StoreError
from finagent_model.settings import (
    DATABASE_TIMEOUT_S,
    Settings,
    create_database_engine,
    driver_error_message,
    parse_database_url,
)
from finagent_model.store._schema import (
    OUTBOX,
    SCHEMA,
    SHARED_TABLES,
    messages,
    own_messages,
    value_too_large_error,
)
from finagent_model.store.conversations import takes_text

log = logging.getLogger(__name__)
DATABASE_FILE = "finagent.db"
"""File in FINAGENT_HOME that is used if no database is named."""
MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "finagent_version"
"""Table of the revision. Alembic's usual name may be the platform's, MLflow's or Airflow's."""
UPGRADE_LOCK = 0x66696E61
"""Id of the advisory lock of PostgreSQL that an upgrade holds."""
IS_WRITER = "finagent_writes"
"""Execution option of a connection that is going to write."""
COPY_BATCH = 500
"""Rows that are copied at a time."""
NEWER_CODE = "install the finagent-model that upgraded it, or a later one"


class Database:
    """One database, and the transactions on it."""

    def __init__(self, url: str) -> None:
        """Take a URL, without connecting. Raises StoreError for one that can't be read, or whose
        driver isn't installed.
        """
        self._url = _parse_url(url)
        self._engine = _make_engine(self._url)
        self._file = _local_file(self._url)
        self._is_ready = False
        self._file_id: FileId | None = None
        """The SQLite file that was found ready; another one of that name is checked again."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the database of FINAGENT_DATABASE, or else of the file in FINAGENT_HOME.

        Raises StoreError for a URL that can't be read, or a folder that can't be made.
        """
        if settings.database is not None:
            return cls(settings.database.get_secret_value())
        path = settings.home.absolute() / DATABASE_FILE
        try:
            make_private_folder(path.parent)
        except OSError as error:
            raise StoreError(
                f"FINAGENT_HOME {path.parent} can't be made: {error.strerror}; "
                "name a folder that can be written, or set FINAGENT_DATABASE"
            ) from None
        return cls(URL.create("sqlite", database=str(path)).render_as_string())

    def __str__(self) -> str:
        """Return the URL without its password."""
        return _redact_url(self._url)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection that only reads.

        Raises StoreError for whatever SQL in the block raises; other errors of the block pass.
        """
        self.prepare()
        with self._connect() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection whose writes are committed at the end of the block, or not at all.

        Raises StoreError like `connection`, and ValueTooLargeError for a value that its column does
        not take.
        """
        self.prepare()
        with self._begin() as connection:
            yield connection

    def prepare(self) -> None:
        """Create the tables if there are none.

        Raises StoreError if other code made them, and for a SQLite file that was emptied, or
        removed while this object used it: nothing takes the place of what it held.
        """
        if self._file is not None:
            self._check_file(self._file)
        if self._is_ready:
            return
        revision, newest = self.read_revision(), newest_revision()
        if revision is None:
            if self._file is not None and self._file.exists() and not self._has_tables():
                raise self._emptied_error("it has no tables")
            self.upgrade()
        elif revision != newest:
            way = "save it, then run `finagent db upgrade`" if _is_older(revision) else NEWER_CODE
            raise self._revision_error(revision, way)
        self._is_ready = True
        self._file_id = None if self._file is None else file_id(self._file)

    def read_revision(self) -> str | None:
        """Return the revision of the schema; None if no code of ours has prepared the database.

        Raises StoreError.
        """
        if self._file is not None and not self._file.exists():
            return None  # connecting would make an empty file
        with self._connect() as connection:
            options = {"version_table": VERSION_TABLE}
            return MigrationContext.configure(connection, opts=options).get_current_revision()

    def upgrade(self) -> None:
        """Bring the schema to the newest revision, one process at a time. Raises StoreError.

        Unlike `prepare`, it makes tables in a file that was emptied.
        """
        if self._file is not None and not self._file.exists():
            self._create_file(self._file)
        revision = self.read_revision()
        if revision is not None and not _is_older(revision):
            raise self._revision_error(revision, NEWER_CODE)
        if self._engine.dialect.name == "sqlite":
            self._enable_write_ahead_log()
        with self._begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"select pg_advisory_xact_lock({UPGRADE_LOCK})")
            _run_migrations(connection)

    def _create_file(self, path: Path) -> None:
        def fill(unfinished: Path) -> None:
            Database(URL.create("sqlite", database=str(unfinished)).render_as_string()).upgrade()

        try:
            create_sqlite_file(path, fill)
        except OSError as error:
            raise self._store_error(OSError(f"unable to open it: {error.strerror}")) from None

    def _check_file(self, path: Path) -> None:
        """Raise StoreError for a file that was emptied, or removed since it was found ready."""
        try:
            is_empty, now = is_emptied(path), file_id(path)
        except OSError as error:  # a folder that may not be entered
            raise self._store_error(OSError(f"unable to open it: {error.strerror}")) from None
        if is_empty:
            raise self._emptied_error("it is empty")
        if not self._is_ready or now == self._file_id:
            return
        if now is None:
            raise self._emptied_error("it was removed while it was in use")
        log.warning("the database %s was replaced while it was in use; the new file is used", self)
        self._is_ready = False

    def _has_tables(self) -> bool:
        with self._connect() as connection:
            return bool(
                connection.exec_driver_sql("select count(*) from sqlite_schema").scalar_one()
            )

    def _emptied_error(self, found: str) -> StoreError:
        return StoreError(
            f"the database {self} lost its content: {found}; put a copy back, or run "
            "`finagent db upgrade` for empty tables and `finagent db sync` for what the runs hold"
        )

    def _revision_error(self, revision: str, way: str) -> StoreError:
        return StoreError(
            f"the database {self} has revision {revision}, this code needs {newest_revision()}; "
            f"{way}"
        )

    def _enable_write_ahead_log(self) -> None:
        # The file keeps this mode, in which readers do not block the writer.
        locked = sqlite3.OperationalError  # another process is about to set the same mode
        with self._connect() as connection, suppress(locked):
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.execute("pragma journal_mode=wal")

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self._connect() as plain:
            connection = plain.execution_options(**{IS_WRITER: True})
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"set local lock_timeout = '{DATABASE_TIMEOUT_S}s'")
                yield connection

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Yield a connection, and turn errors of the database or its driver into StoreError."""
        try:
            connection = self._engine.connect()
        except Exception as error:  # a driver may raise anything, for a URL that it can't use too
            raise self._store_error(error) from None
        try:
            with connection:
                yield connection
        except DataError as error:
            with suppress(SQLAlchemyError), self._engine.connect() as other:
                raise value_too_large_error(error, other) from None
            raise self._store_error(error) from None
        except StatementError as error:
            if not isinstance(error, DBAPIError):
                raise  # a bug of ours: the driver never got the value
            raise self._store_error(error) from None
        except (SQLAlchemyError, sqlite3.Error, CommandError, JSONDecodeError) as error:
            raise self._store_error(error) from None

    def _store_error(self, error: Exception) -> StoreError:
        return StoreError(
            f"the database {self} can't be used: {driver_error_message(error, self._url)}; "
            "see that it runs and may be written, or change FINAGENT_DATABASE"
        )


@cache
def newest_revision() -> str:
    """Return the revision of the schema that this code works with."""
    head = _migration_scripts().get_current_head()
    assert head is not None
    return head


def copy_database(source: Path, target: Database) -> dict[str, int]:
    """Copy all rows of a SQLite file, with their ids, in one transaction.

    Returns how many rows each table had. The file is read and never written to. Raises
    BadInputError if there is no file, if it has not our tables at the newest revision, or if the
    target has rows already, and StoreError.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {str(source)!r} to copy; name a finagent.db")
    file = Database(_read_only_url(source))
    if (revision := file.read_revision()) != newest_revision():
        raise BadInputError(_revision_message(source, revision))
    with file.connection() as reader, target.transaction() as writer:
        for name, table in SCHEMA.tables.items():
            if writer.execute(select(func.count()).select_from(table)).scalar_one():
                raise BadInputError(f"{target} has rows in {name}; copy into an empty database")
        return {name: _copy_table(table, reader, writer) for name, table in SCHEMA.tables.items()}


def _parse_url(url: str) -> URL:
    try:
        return parse_database_url(url)
    except ValueError:
        raise StoreError(
            "FINAGENT_DATABASE can't be read; write it like sqlite:///finagent.db or "
            "postgresql+psycopg2://user:password@host/name, the password percent-encoded"
        ) from None


def _local_file(url: URL) -> Path | None:
    """Return the file of a SQLite URL; None for a server, for memory, and for SQLite's own URIs."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name.startswith((":", "file:")):
        return None
    return Path(name).absolute()


def _redact_url(url: URL) -> str:
    # A query may hold a password, too.
    return url.set(query={}).render_as_string(hide_password=True)


def _make_engine(url: URL) -> Engine:
    try:
        engine = create_database_engine(url)
    except ValueError as error:
        raise StoreError(
            f"the database {_redact_url(url)} can't be used: {error}; "
            "install its driver (psycopg2-binary for PostgreSQL), or change FINAGENT_DATABASE"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _disable_implicit_begin)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _use_utc)
    return engine


def _disable_implicit_begin(connection: Any, _: object) -> None:
    # Python's driver begins late, and not at all before a change of the schema.
    connection.isolation_level = None


def _begin_sqlite(connection: Connection) -> None:
    # A writer locks at once: of two that read first, the second could not go on to write.
    if connection.get_execution_options().get(IS_WRITER):
        driver: Any = connection.connection.driver_connection
        timeout = connection.engine.url.query.get("timeout", WRITE_TIMEOUT_S)
        begin_immediate(driver, float(str(timeout)))
    else:
        connection.exec_driver_sql("begin")


def _use_utc(connection: Connection) -> None:
    # A platform's column without a zone stores the session's local time.
    connection.exec_driver_sql("set local time zone 'UTC'")


def _migration_scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])


def _is_older(revision: str) -> bool:
    """Return whether this code can upgrade from `revision`; else newer code wrote it."""
    return revision in {script.revision for script in _migration_scripts().walk_revisions()}


def _run_migrations(connection: Connection) -> None:
    """Run the missing migrations in the transaction of `connection`, which must lock others out."""
    scripts = _migration_scripts()

    def steps(revision: str, context: MigrationContext) -> list[RevisionStep]:
        # Private, but Alembic's own command calls it; the command itself would open a connection.
        return scripts._upgrade_revs("head", revision)

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(connection, version_table=VERSION_TABLE)
        environment.run_migrations()


def _read_only_url(source: Path) -> str:
    """Return a URL that opens the file for reading, together with its write-ahead log."""
    file = f"file:{quote(str(source.absolute()))}"
    url = URL.create("sqlite", database=file, query={"mode": "ro", "uri": "true"})
    return url.render_as_string()


def _revision_message(source: Path, revision: str | None) -> str:
    if revision is None:
        # No advice to prepare it: it may be another program's file.
        return f"{str(source)!r} has no tables of this code, nothing was copied; name a finagent.db"
    upgrade = f"`FINAGENT_DATABASE=sqlite:///{source.absolute()} finagent db upgrade`"
    way = f"save it, then run {upgrade}" if _is_older(revision) else "use the newer code"
    return f"{str(source)!r} has revision {revision}, this code needs {newest_revision()}; {way}"


def _copy_table(table: Table, reader: Connection, writer: Connection) -> int:
    """Copy the rows of a table; return how many it has."""
    into, count = table, 0
    if table is messages and not takes_text(writer):
        into = own_messages  # the platform numbers executions, and these rows name them
    for rows in reader.execute(select(table)).mappings().partitions(COPY_BATCH):
        values = [dict(row) for row in rows]
        if into is own_messages:
            # Rows of two tables may come here, and nothing refers to their ids.
            values = [{k: v for k, v in row.items() if k != "id"} for row in values]
        writer.execute(insert(into), values)
        count += len(rows)
    if count and writer.dialect.name == "postgresql" and into.name in (*SHARED_TABLES, OUTBOX):
        # The ids were given, so the sequence still stands at its start.
        next_id = f"pg_get_serial_sequence('{into}', 'id'), (select max(id) from {into})"
        writer.execute(text(f"select setval({next_id})"))
    return count
