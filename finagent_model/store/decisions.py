"""Write a decision to the database: signal, replies, chart and conversation, whole or not at all.

The same decision a second time adds nothing, and puts right what somebody changed of it. Another
decision on the same symbol, moment and version of the model adds its conversation under its own
execution, and no second signal: a settled signal stays, a failed one is replaced, and so is one
that the later decision says it replaces.

Rows alone prove nothing, since others may write these tables: `pipeline/final_decisions.py`
compares them with the decision's run before a signal counts.

Large texts stay in the artifacts of the decision's MLflow run, which every row names: a prompt or a
response above `MAX_TEXT_CHARS` is null here, its length is stored, and `metadata` names the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue, ValidationError
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from finagent_model.audit.chain import CONVERSATION_FILE
from finagent_model.decision.decision import NO_EXECUTION, Decision, Execution, Turn
from finagent_model.decision.opinions import measure_seconds
from finagent_model.decision.signal import TradingSignal
from finagent_model.errors import ValueTooLargeError
from finagent_model.market.bars import show_as_of
from finagent_model.store import artifacts, outbox
from finagent_model.store._schema import decisions
from finagent_model.store.artifact_models import (
    OURS,
    Artifact,
    NewArtifact,
    replace_unstorable,
)
from finagent_model.store.artifacts import utc_now
from finagent_model.store.conversations import write_messages
from finagent_model.store.database import Database

MAX_TEXT_CHARS = 8192
"""Characters of a prompt or a response that a row stores."""
CHART_FILE = "chart.png"
"""Artifact of a decision's run, if there was anything to draw."""
PLATFORM_NAMES = {
    "confidence_level": "confidence",
    "entry_price": "suggested_entry_price",
    "stop_loss": "suggested_stop_loss",
    "take_profit": "suggested_take_profit",
    "risk_reward_ratio": "r_multiple",
}
"""Field of the signal by the name under which the platform's pages read it."""


TIMEFRAME = "daily"
Snapshot = Mapping[str, JsonValue]
"""Bars of a chart in the platform's form, as `market_data_snapshot` of `reports` makes them."""


@dataclass(frozen=True)
class DecisionRow:
    """What `finagent_decisions` says of one decision."""

    run_id: str
    signal: Any
    """JSON of the signal."""
    audit_head: str | None
    """Head of the audit as it was written; None: older code wrote the row."""


@dataclass(frozen=True)
class SignalRows:
    """What the database says of one signal. None of it is verified."""

    artifact: Artifact | None
    """The row that has the signal's place; None: there is none."""
    decisions: tuple[DecisionRow, ...]
    """That of the artifact's run comes first."""


class DecisionStore:
    """Writes decisions; with `queue` it also queues their artifacts for the platform."""

    def __init__(
        self, database: Database, queue: bool = False, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database, self._queue, self._clock = database, queue, clock

    def find(self, signal_id: str) -> SignalRows:
        """Return the rows of a signal. Raises StoreError."""
        columns = (decisions.c.run_id, decisions.c.signal, decisions.c.audit_head)
        query = select(*columns).where(decisions.c.signal_id == signal_id).order_by(decisions.c.id)
        with self._database.connection() as connection:
            artifact = artifacts.find_by_key(connection, signal_id, OURS)
            rows = [DecisionRow(*row) for row in connection.execute(query)]
        place = artifact.run_id if artifact else None
        return SignalRows(artifact, tuple(sorted(rows, key=lambda row: row.run_id != place)))

    def audit_heads(self) -> dict[str, str | None]:
        """Return the audit's head of each decision, by run. Raises StoreError."""
        query = select(decisions.c.run_id, decisions.c.audit_head)
        with self._database.connection() as connection:
            return {run_id: head for run_id, head in connection.execute(query)}

    def is_as_written(self, artifact: Artifact, signal: NewArtifact) -> bool:
        """Return whether the row says what the decision's signal says. Raises StoreError."""
        with self._database.connection() as connection:
            return artifacts.is_as_written(connection, artifact, signal)

    def disown(self, artifact_id: int) -> None:
        """Keep a row apart that is no decision of ours: it loses its key. Raises StoreError."""
        with self._database.transaction() as connection:
            artifacts.disown_artifact(connection, artifact_id)

    def write(
        self,
        decision: Decision,
        run_id: str,
        execution: Execution = NO_EXECUTION,
        experiment_id: str | None = None,
        chart: bool = False,
        replaces: str | None = None,
        audit_head: str | None = None,
        *,
        snapshot: Snapshot | None = None,
        is_superseded: bool = False,
        sent_before: bool = False,
    ) -> bool:
        """Write all of a decision in one transaction; return False if it was there already.

        A conversation goes by the workflow's execution; without a workflow, by the run.
        `replaces` is the run of a settled signal that was made with less data, `audit_head` what
        the decision's audit ends with, `snapshot` the bars of the chart. One that `is_superseded`
        takes no other run's place; `sent_before` says that the platform may have its artifacts.
        Raises StoreError, and ValueTooLargeError for what no artifact or no column may hold; then
        nothing is written.
        """
        try:
            signal, parts = artifact_rows(
                decision, run_id, experiment_id, execution, chart, snapshot
            )
        except ValidationError as error:
            raise _too_large_error(error) from None
        now = decision.signal.generated_at
        with self._database.transaction() as connection:
            changed = [artifacts.insert_artifact(connection, signal, now)]
            if changed == [None] and not is_superseded:
                changed = [artifacts.replace_signal(connection, signal, now, replaces)]
            assert signal.key is not None
            place = artifacts.find_by_key(connection, signal.key, OURS)
            has_place = place is not None and place.run_id == run_id
            is_new_conversation = self._write_conversation(
                connection, decision, run_id, execution, audit_head, has_place
            )
            if has_place:
                # The signal goes last: a reader who sees it there finds what led to it.
                # Of an execution the platform reads the newest row as the result.
                before = now - timedelta(microseconds=1)
                changed = [_write_own(connection, part, before) for part in parts] + [
                    changed[0] or artifacts.restore_artifact(connection, signal, now)
                ]
            ids = [artifact_id for artifact_id in changed if artifact_id is not None]
            if ids and self._queue:
                group = execution.execution_id or run_id
                outbox.enqueue(connection, ids, group, self._clock(), sent_before)
        return is_new_conversation or bool(ids)

    def _write_conversation(
        self,
        connection: Connection,
        decision: Decision,
        run_id: str,
        execution: Execution,
        audit_head: str | None,
        has_place: bool,
    ) -> bool:
        """Write the decision's row and its messages; return False if they were there already.

        A decision that `has_place` of its signal overwrites another's row of the same name.
        """
        signal, group = decision.signal, execution.execution_id or run_id
        row = {
            "id": f"{group}/{signal.conversation_id}",
            "conversation_id": signal.conversation_id,
            "run_id": run_id,
            "workflow_execution_id": execution.execution_id,
            "symbol": signal.symbol,
            "as_of": signal.as_of,
            "status": signal.status.value,
            "signal": signal.model_dump(mode="json"),
            "signal_id": signal.signal_id,
            "audit_head": audit_head,
        }
        # A retried workflow has the same execution, so its decision has the same id.
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(decisions).values(**row).on_conflict_do_nothing()
        if not connection.execute(statement).rowcount:
            is_same = decisions.c.id == row["id"]
            stored = connection.execute(select(decisions).where(is_same)).mappings().one()
            if stored["run_id"] == run_id:
                if all(stored[name] == value for name, value in row.items()):
                    return False
                # Somebody changed it, or older code wrote it: its messages are there.
                connection.execute(decisions.update().where(is_same).values(**row))
                return True
            if not has_place:
                return False
            connection.execute(decisions.update().where(is_same).values(**row))
        write_messages(connection, decision.turns, run_id, execution)
        return True


def _write_own(connection: Connection, new: NewArtifact, now: datetime) -> int | None:
    """Write a row of ours; return its id, None if it was there as it is."""
    inserted_id = artifacts.insert_artifact(connection, new, now)
    return inserted_id or artifacts.restore_artifact(connection, new, now)


def artifact_rows(
    decision: Decision,
    run_id: str,
    experiment_id: str | None,
    execution: Execution,
    chart: bool,
    snapshot: Snapshot | None = None,
) -> tuple[NewArtifact, list[NewArtifact]]:
    """Return the signal's artifact, and in the order of their steps the chart's and the replies'.

    Raises pydantic's ValidationError for a value that no artifact may have.
    """
    signal = decision.signal
    title = f"{signal.symbol} {show_as_of(signal.as_of)}"
    lineage: dict[str, Any] = {
        "symbol": signal.symbol,
        "run_id": run_id,
        "experiment_id": experiment_id,
        "workflow_id": execution.workflow_id,
        "execution_id": execution.execution_id,
        "dag_id": execution.dag_id,
        "task_id": execution.task_id,
    }
    common_metadata: dict[str, Any] = {
        "signal_id": signal.signal_id,
        "as_of": signal.as_of.astimezone(UTC).isoformat(),
        "model_uri": signal.model_uri,
        "model_version": signal.model_version,
        "conversation_id": signal.conversation_id,
        "dag_run_id": execution.dag_run_id,
        "map_index": execution.map_index,
    }

    def row(step: str, metadata: dict[str, Any], **fields: Any) -> NewArtifact:
        # The key of a part is by run: what led to a failed signal stays when that is replaced.
        metadata = common_metadata | {"key": f"{run_id}/{step}"} | metadata
        return NewArtifact(step_name=step, metadata=metadata, **lineage, **fields)

    parts = []
    if chart:
        metadata, fields = _chart_fields(run_id, snapshot)
        parts.append(row("00_chart", metadata, name=f"{title} chart", type="chart", **fields))
    replies = _prompts_and_replies(decision)
    for number, (prompt, reply, seconds) in enumerate(replies, 1):
        step = f"{number:02}_{reply.agent_name}"
        metadata, fields = _reply_fields(prompt, reply, seconds)
        if number == len(replies) and not signal.status.is_failure:
            fields["signal_data"] = _reply_summary(signal)
        parts.append(row(step, metadata, name=f"{title} {reply.agent_name}", type="llm", **fields))
    signal_row = row(
        "99_signal",
        {
            "key": signal.signal_id,
            "status": signal.status.value,
            "tokens": signal.tokens,
            "cost_usd": signal.cost_usd,
            "seconds": decision.seconds,
            "evidence": signal.evidence,
            "calibrated": signal.calibrated,
            "trained_by": signal.run_id,
        },
        name=f"{title} signal",
        type="signal",
        action=signal.action,
        confidence=signal.confidence_score / 100,
        signal_data=_with_platform_names(replace_unstorable(signal.model_dump(mode="json"))),
        model_name=replace_unstorable(signal.model_used),
    )
    return signal_row, parts


def _prompts_and_replies(decision: Decision) -> list[tuple[str | None, Turn, float | None]]:
    """Return each reply, or failure to reply, with the last request to its agent before it, and the
    seconds that it took.

    A request is the question, the answer of a tool, or what was wrong with the reply before. An
    agent without requests of its own got the first one of the conversation.
    """
    turns = decision.turns
    requests = (turn.message_content for turn in turns if turn.message_type == "request")
    question = next(requests, None)
    last_request: dict[str, str] = {}
    replies = []
    for turn, seconds in zip(turns, measure_seconds(turns, decision.events), strict=True):
        if turn.message_type == "request":
            last_request[turn.agent_name] = turn.message_content
        elif turn.message_type in ("response", "failed"):
            replies.append((last_request.get(turn.agent_name, question), turn, seconds))
    return replies


def _chart_fields(run_id: str, snapshot: Snapshot | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and the fields of a chart's artifact; the platform draws `snapshot`."""
    # No name of a file: the platform would look for it among the charts of all its workflows, and
    # show another one's.
    fields: dict[str, Any] = {"image_path": f"runs:/{run_id}", "chart_type": TIMEFRAME}
    metadata: dict[str, Any] = {"chart_artifact": CHART_FILE}
    if snapshot is not None:
        timeframe = fields["chart_type"] = snapshot["timeframe"]
        fields["chart_data"] = {"timeframe": timeframe, "bars_count": snapshot["bar_count"]}
        metadata["market_data_snapshot"] = snapshot
        metadata["timeframe"] = timeframe
    return metadata, fields


def _with_platform_names(signal: dict[str, Any]) -> dict[str, Any]:
    return signal | {theirs: signal[ours] for theirs, ours in PLATFORM_NAMES.items()}


def _reply_summary(signal: TradingSignal) -> dict[str, Any]:
    """Return what the platform's page of a run shows of the reply that led to the signal."""
    names = {"action", "confidence", "confidence_score", "reasoning"}
    summary: dict[str, Any] = replace_unstorable(signal.model_dump(mode="json", include=names))
    return summary


def _reply_fields(
    prompt: str | None, reply: Turn, seconds: float | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metadata and the fields of a reply's artifact."""
    response = reply.message_content if reply.message_type == "response" else None
    is_reply = response is not None
    # The tokens of a failed call are unknown: null, not 0.
    metadata: dict[str, Any] = {
        "agent_name": reply.agent_name,
        "tokens": reply.prompt_tokens + reply.completion_tokens if is_reply else None,
        "prompt_tokens": reply.prompt_tokens if is_reply else None,
        "completion_tokens": reply.completion_tokens if is_reply else None,
        "cached": reply.cached,
        "said_at": reply.timestamp.astimezone(UTC).isoformat(),
        "seconds": seconds,
    }
    fields: dict[str, Any] = {"model_name": replace_unstorable(reply.model) or None}
    if response is None:
        metadata["failed"] = replace_unstorable(reply.message_content)
    for name, text in (("prompt", prompt), ("response", response)):
        if text is not None:
            fields[f"{name}_length"] = len(text)
            if len(text) <= MAX_TEXT_CHARS:
                fields[name] = replace_unstorable(text)
            else:
                metadata[f"{name}_artifact"] = CONVERSATION_FILE
    return metadata, fields


def _too_large_error(error: ValidationError) -> ValueTooLargeError:
    first = error.errors(include_url=False)[0]
    field, value = ".".join(str(part) for part in first["loc"]), first["input"]
    return ValueTooLargeError(
        f"{field} {value!r:.200} can't be stored: {first['msg']}", field, value
    )
