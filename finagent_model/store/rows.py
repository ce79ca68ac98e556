"""A decision as rows: artifacts of the platform's three types, and its conversation.

What is large stays where it was: in the artifacts of the decision's MLflow run, which every row
names. A prompt or a response above `LARGEST` characters is null here, its length is told, and
`metadata` says which file of the run has it.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from finagent_model.artifacts.conversation import FILE
from finagent_model.domain.artifact import NewArtifact
from finagent_model.domain.decision import Decision, Turn
from finagent_model.domain.execution import Execution

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
                metadata[f"{name}_artifact"] = FILE
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
