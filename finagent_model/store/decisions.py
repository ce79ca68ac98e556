"""A decision as rows: artifacts of the platform's three types, and its conversation.

What is large stays where it was: in the artifacts of the decision's MLflow run, which every row
names. A prompt or a response above `LARGEST` characters is null here, its length is told, and
`metadata` says which file of the run has it.

A decision in the database: signal, replies, chart and conversation, whole or not at all.

The same decision a second time adds nothing. Another one on the same symbol, moment and version of
the model adds its conversation under its own execution, and no second signal: a settled one stays,
a failed one gives its place up, and so does one that the later decision says it replaces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Column, Connection, MetaData, Table
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.audit.chain import CONVERSATION_FILE
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution, Turn
from finagent_model.errors import ValueTooLargeError
from finagent_model.store import artifacts, outbox
from finagent_model.store.artifacts import NewArtifact, utc_now
from finagent_model.store.database import Database
from finagent_model.store.schema import MESSAGES, Utc, decisions

LARGEST = 8192
CHART = "chart.png"
"""Artifact of a decision's run, where there was anything to draw."""
NUL, SHOWN = "\0", "\N{REPLACEMENT CHARACTER}"
"""PostgreSQL has no NUL in a text."""


def artifact_rows(
    decision: Decision, run_id: str, experiment_id: str | None, execution: Execution, chart: bool
) -> tuple[NewArtifact, list[NewArtifact]]:
    """The signal, and what belongs to it in the order of its steps: the chart, then a row for each
    reply. These are named by the run: what led to a signal that failed stays when it is replaced.
    """
    signal = decision.signal
    title = f"{signal.symbol} {signal.as_of:%Y-%m-%d}"
    lineage: dict[str, Any] = {
        "symbol": signal.symbol,
        "run_id": run_id,
        "experiment_id": experiment_id,
        "workflow_id": execution.workflow_id,
        "execution_id": execution.execution_id,
        "dag_id": execution.dag_id,
        "task_id": execution.task_id,
    }
    about: dict[str, Any] = {
        "signal_id": signal.signal_id,
        "as_of": signal.as_of.astimezone(UTC).isoformat(),
        "model_uri": signal.model_uri,
        "model_version": signal.model_version,
        "conversation_id": signal.conversation_id,
        "dag_run_id": execution.dag_run_id,
        "map_index": execution.map_index,
    }

    def row(step: str, **fields: Any) -> NewArtifact:
        metadata = about | {"key": f"{run_id}/{step}"} | fields.pop("metadata")
        return NewArtifact(step_name=step, metadata=metadata, **lineage, **fields)

    parts = []
    if chart:
        drawn = {"image_path": CHART, "chart_type": "daily", "metadata": {}}
        parts.append(row("00_chart", name=f"{title} chart", type="chart", **drawn))
    for number, (prompt, reply) in enumerate(_replies(decision.turns), 1):
        step = f"{number:02}_{reply.agent_name}"
        name = f"{title} {reply.agent_name}"
        parts.append(row(step, name=name, type="llm", **_llm(prompt, reply)))
    whole = row(
        "99_signal",
        name=f"{title} signal",
        type="signal",
        action=signal.action,
        confidence=signal.confidence_score / 100,
        signal_data=_clean(signal.model_dump(mode="json")),
        model_name=_clean(signal.model_used),
        metadata={
            "key": signal.signal_id,
            "status": signal.status.value,
            "tokens": signal.tokens,
            "cost_usd": signal.cost_usd,
            "evidence": signal.evidence,
            "calibrated": signal.calibrated,
            "trained_by": signal.run_id,
        },
    )
    return whole, parts


def _replies(turns: tuple[Turn, ...]) -> list[tuple[str | None, Turn]]:
    """Each reply, or failure to reply, with what was said to the agent last: the question, an
    answer of a tool, what was wrong with its reply before.
    """
    asked = (turn.message_content for turn in turns if turn.message_type == "request")
    question = next(asked, None)
    heard: dict[str, str] = {}
    found = []
    for turn in turns:
        if turn.message_type == "request":
            heard[turn.agent_name] = turn.message_content
        elif turn.message_type in ("response", "failed"):
            found.append((heard.get(turn.agent_name, question), turn))
    return found


def _llm(prompt: str | None, reply: Turn) -> dict[str, Any]:
    """Tokens of a call that failed are unknown, so null."""
    said = reply.message_content if reply.message_type == "response" else None
    spoke = said is not None
    metadata: dict[str, Any] = {
        "agent_name": reply.agent_name,
        "tokens": reply.prompt_tokens + reply.completion_tokens if spoke else None,
        "prompt_tokens": reply.prompt_tokens if spoke else None,
        "completion_tokens": reply.completion_tokens if spoke else None,
        "cached": reply.cached,
        "said_at": reply.timestamp.astimezone(UTC).isoformat(),
    }
    fields: dict[str, Any] = {"model_name": _clean(reply.model) or None, "metadata": metadata}
    if said is None:
        metadata["failed"] = _clean(reply.message_content)
    for name, text in (("prompt", prompt), ("response", said)):
        if text is not None:
            fields[f"{name}_length"] = len(text)
            if len(text) <= LARGEST:
                fields[name] = _clean(text)
            else:
                metadata[f"{name}_artifact"] = CONVERSATION_FILE
    return fields


def message_row(turn: Turn, execution: str) -> dict[str, Any]:
    """A turn as `agent_conversations` has it; tokens are null where no model can have used any.

    The platform knows two types of message: a turn that is neither `request` nor `response` is a
    `response` there, with JSON for its content that says which:
    `{"skipped": "no dated news in the view"}`.
    """
    kind, content = turn.message_type, turn.message_content
    if kind not in ("request", "response"):
        kind, content = "response", json.dumps({kind: content}, ensure_ascii=False)
    used = turn.prompt_tokens + turn.completion_tokens
    return {
        "workflow_execution_id": execution,
        "agent_name": turn.agent_name,
        "message_type": kind,
        "message_content": _clean(content),
        "timestamp": turn.timestamp.astimezone(UTC),
        "tokens_used": used if turn.message_type == "response" else None,
    }


def _clean(value: Any) -> Any:
    """The same in which every text can be stored."""
    match value:
        case str():
            return value.replace(NUL, SHOWN).encode(errors="replace").decode()
        case dict():
            return {_clean(k): _clean(v) for k, v in value.items()}
        case list():
            return [_clean(v) for v in value]
    return value


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
        execution: Execution = NO_EXECUTION,
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


def _unstorable(error: ValidationError) -> ValueTooLargeError:
    first = error.errors(include_url=False)[0]
    field, value = ".".join(str(part) for part in first["loc"]), first["input"]
    return ValueTooLargeError(
        f"{field} {value!r:.200} can't be stored: {first['msg']}", field, value
    )


def _messages(connection: Connection) -> Table:
    """As the database has it: the platform's ids are integers."""
    return Table(MESSAGES, MetaData(), Column("timestamp", Utc), autoload_with=connection)
