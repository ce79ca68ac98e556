"""All rows of a SQLite file into another database: to move to PostgreSQL, or to keep a copy while
others go on writing. The file is read and never written to, whosever it is.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, func, insert, select, text

from finagent_model.errors import BadInputError
from finagent_model.store import migrate
from finagent_model.store.database import Database
from finagent_model.store.schema import SCHEMA

BATCH = 500


def copy(source: Path, target: Database) -> dict[str, int]:
    """How many rows of each table were copied, with their numbers, in one transaction. Raises
    BadInputError where there is no file, or none with our tables as this code knows them, or the
    target holds rows already, and StoreError.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {str(source)!r} to copy; name a finagent.db")
    file = Database(_read_only(source))
    if (found := file.revision()) != migrate.newest():
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
    way = f"save it, then run {upgrade}" if migrate.is_older(revision) else "use the newer code"
    needed = f"this code needs {migrate.newest()}"
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
