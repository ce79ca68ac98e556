"""A decision in the database: signal, replies, chart and conversation, whole or not at all.

The same decision a second time adds nothing. Another one on the same symbol, moment and version of
the model adds its conversation under its own execution, and no second signal: a settled one stays,
a failed one gives its place up, and so does one that the later decision says it replaces.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Column, Connection, MetaData, Table
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.domain.decision import Decision
from finagent_model.domain.execution import NOBODYS, Execution
from finagent_model.errors import UnstorableError
from finagent_model.store import artifacts, outbox
from finagent_model.store.artifacts import utc_now
from finagent_model.store.database import Database
from finagent_model.store.rows import artifact_rows, message_row
from finagent_model.store.schema import MESSAGES, Utc, decisions


class DecisionStore:
    """With `queue`, what is written here is queued for the platform in the same transaction."""

    def __init__(
        self, database: Database, queue: bool = False, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database, self._queue, self._clock = database, queue, clock

    def write(
        self,
        decision: Decision,
        run_id: str,
        execution: Execution = NOBODYS,
        experiment_id: str | None = None,
        chart: bool = False,
        replaces: str | None = None,
    ) -> bool:
        """All of it in one transaction; False: it was there already.

        A conversation goes by the workflow's execution; one that no workflow asked for by its run.
        `replaces` is the run of a settled signal that was made while less was known.
        Raises StoreError, and UnstorableError for what no artifact or no column may hold; then
        nothing of it was written.
        """
        try:
            whole, parts = artifact_rows(decision, run_id, experiment_id, execution, chart)
        except ValidationError as error:
            raise _unstorable(error) from None
        now = decision.signal.generated_at
        with self._database.writing() as connection:
            new = artifacts.insert(connection, whole, now)
            number = new or artifacts.replace(connection, whole, now, replaces)
            replaced = number is not None and new is None
            talked = self._converse(connection, decision, run_id, execution, replaced)
            if number is not None:
                written = [artifacts.insert(connection, part, now) for part in parts]
                if self._queue:
                    # The signal last: whoever sees it there finds what led to it.
                    due = [*(n for n in written if n is not None), number]
                    outbox.enqueue(connection, due, execution.execution_id or run_id, self._clock())
        return talked or number is not None

    def _converse(
        self,
        connection: Connection,
        decision: Decision,
        run_id: str,
        asked_by: Execution,
        again: bool,
    ) -> bool:
        """Whether the conversation is new here, or is another one (`again`) to the same end."""
        signal, execution = decision.signal, asked_by.execution_id or run_id
        row = {
            "id": f"{execution}/{signal.conversation_id}",
            "conversation_id": signal.conversation_id,
            "run_id": run_id,
            "workflow_execution_id": asked_by.execution_id,
            "symbol": signal.symbol,
            "as_of": signal.as_of,
            "status": signal.status.value,
            "signal": signal.model_dump(mode="json"),
        }
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        adding = dialect.insert(decisions).values(**row)
        adding = (
            adding.on_conflict_do_update(index_elements=["id"], set_=row)
            if again
            else adding.on_conflict_do_nothing()
        )
        if not connection.execute(adding).rowcount:
            return False
        if decision.turns:
            rows: list[dict[str, Any]] = [message_row(turn, execution) for turn in decision.turns]
            connection.execute(_messages(connection).insert(), rows)
        return True


def _unstorable(error: ValidationError) -> UnstorableError:
    first = error.errors(include_url=False)[0]
    field, value = ".".join(str(part) for part in first["loc"]), first["input"]
    return UnstorableError(f"{field} {value!r:.200} can't be stored: {first['msg']}", field, value)


def _messages(connection: Connection) -> Table:
    """As the database has it: the platform's ids are integers."""
    return Table(MESSAGES, MetaData(), Column("timestamp", Utc), autoload_with=connection)
