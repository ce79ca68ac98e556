"""Write the messages of a conversation to `agent_conversations`, or else to a table of our own.

`agent_conversations` may be the platform's. Its `workflow_execution_id` is then the number of a row
of `workflow_executions`, with or without a foreign key; in a table of ours it is a text, the name
of the execution. Whatever that table refuses goes to `finagent_messages`: messages never take down
the decision that they led to.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    MetaData,
    Table,
    column,
    inspect,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from finagent_model.decision.decision import Execution, Turn
from finagent_model.store._schema import EXECUTIONS, MESSAGES, UtcDateTime, own_messages
from finagent_model.store.artifact_models import replace_unstorable

log = logging.getLogger(__name__)
EXECUTION = "workflow_execution_id"
"""Column of the platform's number, or in a table of ours of the execution's name."""


def write_messages(
    connection: Connection, turns: Sequence[Turn], run_id: str, execution: Execution
) -> None:
    """Write the messages of the decision of `run_id`, in the transaction of `connection`.

    In our own tables they go by the workflow's execution, without a workflow by the run.
    """
    if not turns:
        return
    rows = [message_row(turn) for turn in turns]
    group = execution.execution_id or run_id
    try:
        # A savepoint: what this table refuses must not end the decision's transaction.
        with connection.begin_nested():
            refusal = _write_shared(connection, rows, group, execution.platform_execution_id)
        # The same holds for every decision from here on, so it is said once a database.
        is_news = connection.execute(select(own_messages.c.id).limit(1)).first() is None
    except SQLAlchemyError as error:
        if connection.invalidated:
            raise  # the database is gone, so no other table takes them
        refusal, is_news = f"{MESSAGES} does not take them: {_first_line(error)}", True
    if refusal is None:
        return
    if is_news:
        log.warning("the messages of run %s go to %s: %s", run_id, own_messages.name, refusal)
    ours = {EXECUTION: group, "run_id": run_id}
    connection.execute(own_messages.insert(), [row | ours for row in rows])


def takes_text(connection: Connection) -> bool:
    """Return whether the table of messages names executions by text, as our own does."""
    column = _shared_table(connection).c.get(EXECUTION)
    return column is not None and not isinstance(column.type, Integer)


def message_row(turn: Turn) -> dict[str, Any]:
    """Return a turn's values of `agent_conversations`; tokens are null unless a model replied."""
    kind, content = turn.message_type, turn.message_content
    if kind not in ("request", "response"):
        # The platform knows these two types only. Any other turn is a response whose content is
        # JSON that names its type: {"skipped": "no dated news in the view"}.
        kind, content = "response", json.dumps({kind: content}, ensure_ascii=False)
    tokens = turn.prompt_tokens + turn.completion_tokens
    return {
        "agent_name": turn.agent_name,
        "message_type": kind,
        "message_content": replace_unstorable(content),
        "timestamp": turn.timestamp.astimezone(UTC),
        "tokens_used": tokens if turn.message_type == "response" else None,
    }


def _write_shared(
    connection: Connection, rows: list[dict[str, Any]], group: str, number: int | None
) -> str | None:
    """Write to `agent_conversations`; return why nothing was written, None where it was."""
    shared = _shared_table(connection)
    if EXECUTION not in shared.c:
        return f"{MESSAGES} has no column {EXECUTION!r}, so it is another system's"
    value: str | int | None = group
    if isinstance(shared.c[EXECUTION].type, Integer):
        value = number if _has_execution(connection, number) else None
        if value is None and not shared.c[EXECUTION].nullable:
            return (
                f"{MESSAGES}.{EXECUTION} must be the number of a row of {EXECUTIONS}, and "
                f"platform_execution_id is {number}; give the DAG the platform's number"
            )
        if value is None and number is not None:
            log.warning("%s has no row %s: the messages name no execution", EXECUTIONS, number)
    connection.execute(shared.insert(), [row | {EXECUTION: value} for row in rows])
    return None


def _has_execution(connection: Connection, number: int | None) -> bool:
    if number is None:
        return False
    if not inspect(connection).has_table(EXECUTIONS):
        return True  # the platform keeps its executions elsewhere, and its word is all there is
    executions = table(EXECUTIONS, column("id", Integer))
    query = select(executions.c.id).where(executions.c.id == number)
    return connection.execute(query).first() is not None


def _shared_table(connection: Connection) -> Table:
    # Reflected, because it may be the platform's own; the tables that it refers to are not read.
    stamp = Column("timestamp", UtcDateTime)
    return Table(MESSAGES, MetaData(), stamp, autoload_with=connection, resolve_fks=False)


def _first_line(error: SQLAlchemyError) -> str:
    # PostgreSQL's further lines quote the row, and so what agents said.
    text = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return text.splitlines()[0] if text else type(error).__name__
