"""All rows of a SQLite file into another database: to move to PostgreSQL, or to keep a copy while
others go on writing.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, Connection, func, insert, select, text

from finagent_model.errors import BadInputError
from finagent_model.store.database import Database
from finagent_model.store.schema import SCHEMA

BATCH = 500


def copy(source: Path, target: Database) -> dict[str, int]:
    """How many rows of each table were copied, with their numbers, in one transaction. Raises
    BadInputError where there is no file or the target holds rows already, and StoreError.
    """
    if not source.is_file():
        raise BadInputError(f"there is no file {str(source)!r} to copy; name a finagent.db")
    url = URL.create("sqlite", database=str(source.absolute()))
    with Database(url.render_as_string()).reading() as old, target.writing() as new:
        return {table: _copy(table, old, new, str(target)) for table in SCHEMA.tables}


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
