"""Tables of the store, as the newest revision of `migrations` leaves them.

`artifacts` and `agent_conversations` have the trading platform's columns and may be its own tables.
Our own columns in such a table start with `finagent_`; they repeat values of `metadata`, so that an
index can search them. `value_too_large_error` names the column that was too narrow for a value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    case,
    func,
    inspect,
)
from sqlalchemy.exc import DataError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from finagent_model.errors import ValueTooLargeError

ARTIFACTS, OUTBOX = "artifacts", "finagent_outbox"
DECISIONS, MESSAGES = "finagent_decisions", "agent_conversations"
CLAIMS, OWN_MESSAGES = "finagent_claims", "finagent_messages"
SIGNAL_TEXTS = "finagent_signal_texts"
EXECUTIONS = "workflow_executions"
"""The platform's table of executions, if it is in this database."""
FILTER_COLUMNS = {
    "finagent_model_uri": "model_uri",
    "finagent_model_version": "model_version",
    "finagent_evidence": "evidence",
    "finagent_trained_by": "trained_by",
}
"""Keys of a signal's `metadata` by the columns that repeat them."""
METADATA = "artifact_metadata"
"""The platform's name for the column of `Artifact.metadata`."""


class UtcDateTime(TypeDecorator[datetime]):
    """Column type of an aware datetime, which is written, compared and read in UTC."""

    # SQLite stores no zone, and compares moments as texts: all must be in one zone.
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class LenientJson(TypeDecorator[Any]):
    """Column type of JSON that gives a text as it is stored where it is no JSON."""

    # SQLite stores any text, and one bad row of another program must not hide the good ones.
    impl = JSON
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        parse = super().result_processor(dialect, coltype)
        if parse is None:
            return None

        def parse_or_keep(value: Any) -> Any:
            try:
                return parse(value)
            except ValueError:
                return value

        return parse_or_keep


class is_json(FunctionElement[bool]):
    """Condition that a column of JSON holds JSON; null is none."""

    type = Boolean()
    inherit_cache = True


@compiles(is_json)
def _is_json(element: is_json, compiler: Any, **options: Any) -> str:
    # A column of type JSON takes nothing else.
    return f"({compiler.process(element.clauses, **options)}) IS NOT NULL"


@compiles(is_json, "sqlite")
def _is_json_sqlite(element: is_json, compiler: Any, **options: Any) -> str:
    return f"json_valid({compiler.process(element.clauses, **options)})"


def json_text(column: ColumnElement[Any], key: str) -> ColumnElement[Any]:
    """Return the text under a key of a column's JSON; null where it has none, or is no JSON."""
    # SQLite refuses the whole query where one row of another program holds no JSON.
    return case((is_json(column), column[key].as_string()))


def _json(name: str) -> Column[Any]:
    return Column(name, LenientJson(none_as_null=True))


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
    Column("created_at", UtcDateTime, nullable=False, server_default=func.now()),
    Column("updated_at", UtcDateTime),
    Column("finagent_key", Text),
    Column("finagent_status", Text),
    Column("finagent_as_of", UtcDateTime),
    Column("finagent_origin", Text),
    *(Column(name, Text) for name in FILTER_COLUMNS),
    # By origin: a key that somebody else wrote leaves ours free.
    Index("ix_finagent_artifacts_origin", "finagent_origin", "finagent_key", unique=True),
    # Each filter's index ends in `id`, the order of pages: the newest rows need no sorting.
    Index("ix_finagent_artifacts_key", "finagent_key", "id"),
    Index("ix_finagent_artifacts_type", "type", "id"),
    Index("ix_finagent_artifacts_symbol", "symbol", "id"),
    Index("ix_finagent_artifacts_execution", "execution_id", "id"),
    Index("ix_finagent_artifacts_run", "run_id", "id"),
    Index("ix_finagent_artifacts_status", "finagent_status", "id"),
    Index("ix_finagent_artifacts_as_of", "finagent_as_of", "id"),
    Index("ix_finagent_artifacts_created", "created_at", "id"),
    # Covers lists of signals: all that they filter and sort by, so that no long row is read.
    Index(
        "ix_finagent_artifacts_signals",
        *("type", "finagent_as_of", "id", "finagent_origin", "finagent_status"),
        *("action", "confidence", "symbol", "created_at", *FILTER_COLUMNS),
    ),
    # The same for lists of executions.
    Index(
        "ix_finagent_artifacts_executions",
        *("type", "execution_id", "id", "finagent_origin", "finagent_status", "action"),
        *("finagent_as_of", "created_at", "dag_id"),
    ),
)
signal_texts = Table(
    SIGNAL_TEXTS,
    SCHEMA,
    # All texts of one of our signals, a line each and without case: a search reads these alone.
    Column("artifact_id", Integer, primary_key=True, autoincrement=False),
    Column("texts", Text, nullable=False),
)
decisions = Table(
    DECISIONS,
    SCHEMA,
    Column("id", Text, primary_key=True),
    Column("conversation_id", Text, nullable=False, index=True),
    Column("run_id", Text, nullable=False, index=True),
    Column("workflow_execution_id", Text, index=True),
    Column("symbol", Text, nullable=False),
    Column("as_of", UtcDateTime, nullable=False),
    Column("status", Text, nullable=False),
    Column("signal", LenientJson, nullable=False),
    Column("signal_id", Text, index=True),
    Column("audit_head", Text),
)
claims = Table(
    CLAIMS,
    SCHEMA,
    Column("signal_id", Text, primary_key=True),
    Column("holder", Text),
    Column("heartbeats", Integer, nullable=False),
    Column("last_holder", Text),
    Column("run_id", Text),
)
messages = Table(
    MESSAGES,
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("workflow_execution_id", Text, nullable=False, index=True),
    Column("agent_name", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("message_content", Text, nullable=False),
    Column("timestamp", UtcDateTime, index=True),
    Column("tokens_used", Integer),
)
own_messages = Table(
    OWN_MESSAGES,
    SCHEMA,
    Column("id", Integer, primary_key=True),
    Column("workflow_execution_id", Text, nullable=False, index=True),
    Column("run_id", Text, index=True),
    Column("agent_name", Text, nullable=False),
    Column("message_type", Text, nullable=False),
    Column("message_content", Text, nullable=False),
    Column("timestamp", UtcDateTime),
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
    Column("queued_at", UtcDateTime, nullable=False),
    Column("tried_at", UtcDateTime),
    Column("leased_until", UtcDateTime),
    Column("sender", Text),
    Column("not_before", UtcDateTime),
    Index("ix_finagent_outbox_waiting", "state", "execution", "id"),
)
SHARED_TABLES = (ARTIFACTS, MESSAGES)
"""Tables that may be the platform's, with text columns of its widths."""
MAX_CHARS_SHOWN = 60
"""Characters of a refused value that the message quotes."""


def value_too_large_error(error: DataError, connection: Connection) -> ValueTooLargeError:
    """Return the error to raise for a statement that failed with `error`.

    It names the column if one is too narrow for its text, else it quotes the driver.
    """
    # PostgreSQL does not say which column it was, so the widths are read over `connection`.
    for table in SHARED_TABLES:
        if table not in (error.statement or ""):
            continue
        for column in inspect(connection).get_columns(table):
            name, width = str(column["name"]), getattr(column["type"], "length", None)
            for value in _bound_values(error.params, name):
                if width is not None and isinstance(value, str) and len(value) > width:
                    shown = f"{name} {value[:MAX_CHARS_SHOWN]!r}"
                    return ValueTooLargeError(
                        f"{shown} has {len(value)} characters, its column takes {width}",
                        name,
                        value,
                    )
    reason = " ".join(str(error.orig).split())
    return ValueTooLargeError(f"the database takes no such value: {reason}")


def _bound_values(params: Any, column: str) -> Iterator[Any]:
    """Yield the values of a statement's parameters for `column`, of each of its rows."""
    for row in params if isinstance(params, list | tuple) else [params]:
        if isinstance(row, Mapping):
            for key, value in row.items():
                # SQLAlchemy numbers the parameters of an insert of several rows: `name__1`.
                if key == column or key.startswith(f"{column}__"):
                    yield value
