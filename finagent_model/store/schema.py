"""The tables, as the newest revision of `migrations` leaves them.

`artifacts` and `agent_conversations` have the trading platform's columns and may be its own tables.
Columns of ours in a table that may be the platform's start with `finagent_`; they repeat what
`metadata` says, to be searched by.

Which value a database had no room for: tables that others made have columns of their widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    func,
    inspect,
)
from sqlalchemy.exc import DataError

from finagent_model.errors import ValueTooLargeError

ARTIFACTS, OUTBOX = "artifacts", "finagent_outbox"
DECISIONS, MESSAGES = "finagent_decisions", "agent_conversations"
METADATA = "artifact_metadata"
"""The platform's name for the column of `Artifact.metadata`."""


class Utc(TypeDecorator[datetime]):
    """A moment; SQLite keeps no zone, so that it is written, compared and read in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _json(name: str) -> Column[Any]:
    return Column(name, JSON(none_as_null=True))


SCHEMA = MetaData()
artifacts = Table(
    ARTIFACTS,
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("symbol", Text),
    Column("run_id", Text),
    Column("experiment_id", Text),
    Column("workflow_id", Text),
    Column("execution_id", Text),
    Column("step_name", Text),
    Column("dag_id", Text),
    Column("task_id", Text),
    Column("prompt", Text),
    Column("response", Text),
    Column("prompt_length", Integer),
    Column("response_length", Integer),
    Column("model_name", Text),
    Column("image_path", Text),
    Column("chart_type", Text),
    _json("chart_data"),
    Column("action", Text),
    Column("confidence", Float),
    _json("signal_data"),
    _json(METADATA),
    Column("created_at", Utc, nullable=False, server_default=func.now()),
    Column("updated_at", Utc),
    Column("finagent_key", Text),
    Column("finagent_status", Text),
    Column("finagent_as_of", Utc),
    Index("ix_finagent_artifacts_key", "finagent_key", unique=True),
    # The newest first, of whatever is asked for: each ends in the order of pages.
    Index("ix_finagent_artifacts_type", "type", "id"),
    Index("ix_finagent_artifacts_symbol", "symbol", "id"),
    Index("ix_finagent_artifacts_execution", "execution_id", "id"),
    Index("ix_finagent_artifacts_run", "run_id", "id"),
    Index("ix_finagent_artifacts_status", "finagent_status", "id"),
    Index("ix_finagent_artifacts_as_of", "finagent_as_of", "id"),
    Index("ix_finagent_artifacts_created", "created_at", "id"),
)
decisions = Table(
    DECISIONS,
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, nullable=False, index=True),
    Column("run_id", Text, nullable=False, index=True),
    Column("workflow_execution_id", Text, index=True),
    Column("symbol", Text, nullable=False),
    Column("as_of", Utc, nullable=False),
    Column("status", Text, nullable=False),
    Column("signal", JSON, nullable=False),
)
messages = Table(
    MESSAGES,
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("workflow_execution_id", Text, nullable=False, index=True),
    Column("agent_name", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("message_content", Text, nullable=False),
    Column("timestamp", Utc, index=True),
    Column("tokens_used", Integer),
)
outbox = Table(
    OUTBOX,
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("artifact_id", Integer, nullable=False, unique=True),
    Column("execution", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text),
    Column("remote_id", Text),
    Column("queued_at", Utc, nullable=False),
    Column("tried_at", Utc),
    Column("leased_until", Utc),
    Column("sender", Text),
    Column("not_before", Utc),
    Index("ix_finagent_outbox_waiting", "state", "execution", "id"),
)
SHARED = (ARTIFACTS, MESSAGES)
"""Tables that may be the platform's."""
MAX_VALUE_SHOWN = 60
"""Characters of the value that a message quotes."""


def column_width_errors(error: DataError, connection: Connection) -> ValueTooLargeError:
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
                    said = f"{name} {value[:MAX_VALUE_SHOWN]!r} has {len(value)} characters"
                    return ValueTooLargeError(f"{said}, its column takes {width}", name, value)
    said = " ".join(str(error.orig).split())
    return ValueTooLargeError(f"the database takes no such value: {said}")


def _given(params: Any, name: str) -> Iterator[Any]:
    """What a statement was told for a column, in each of its rows."""
    for row in params if isinstance(params, list | tuple) else [params]:
        if isinstance(row, Mapping):
            for key, value in row.items():
                if key == name or key.startswith(f"{name}__"):  # of one row, of several in one
                    yield value
