"""Which value a database had no room for: tables that others made have columns of their widths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DataError

from finagent_model.errors import UnstorableError
from finagent_model.store.schema import ARTIFACTS, MESSAGES

SHARED = (ARTIFACTS, MESSAGES)
"""Tables that may be the platform's."""
SHOWN = 60
"""Characters of the value that a message quotes."""


def unstorable(error: DataError, connection: Connection) -> UnstorableError:
    """Of the statement that raised `error`, with the column if one is too narrow for its text; a
    database that does not tell it is asked by another `connection`.
    """
    for table in SHARED:
        if table not in (error.statement or ""):
            continue
        for column in inspect(connection).get_columns(table):
            name, width = str(column["name"]), getattr(column["type"], "length", None)
            for value in _given(error.params, name):
                if width is not None and isinstance(value, str) and len(value) > width:
                    said = f"{name} {value[:SHOWN]!r} has {len(value)} characters"
                    return UnstorableError(f"{said}, its column takes {width}", name, value)
    said = " ".join(str(error.orig).split())
    return UnstorableError(f"the database takes no such value: {said}")


def _given(params: Any, name: str) -> Iterator[Any]:
    """What a statement was told for a column, in each of its rows."""
    for row in params if isinstance(params, list | tuple) else [params]:
        if isinstance(row, Mapping):
            for key, value in row.items():
                if key == name or key.startswith(f"{name}__"):  # of one row, of several in one
                    yield value
