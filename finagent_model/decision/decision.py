"""A decision: the signal, and everything that was said and spent on the way to it.

`Execution` names the workflow that asked for it, in the words of the platform and of Airflow.
Timestamps here are those of the record; nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.view import MarketView

EventKind = Literal[
    "question",
    "request",
    "reply",
    "repair",
    "upstream",
    "tool_call",
    "tool_result",
    "retry",
    "failed",
    "skipped",
    "budget",
    "clamp",
    "approval",
    "signal",
]


class Execution(FrozenModel):
    """The workflow run that asked for a decision; every field is None where a person asked."""

    execution_id: str | None = None
    """Groups what one run of a workflow made; the platform's `workflow_execution_id`."""
    workflow_id: str | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = Field(None, ge=-1)
    """Airflow's; -1 for a task that is not mapped."""
    parent_run_id: str | None = None
    """The MLflow run that is the parent of the decision's own run."""


NO_EXECUTION = Execution()
"""No workflow: a person asked for the decision."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step on the way to a decision, for the audit."""

    kind: EventKind
    at: datetime
    """UTC; when it was recorded."""
    agent: str
    """Name of the agent; empty for the desk itself."""
    body: Mapping[str, Any]
    """JSON-ready, numbers finite. Spoken text is under `text`, or in the list `messages`: an entry
    is the text itself, or a mapping with the text under one of its keys.
    """


@dataclass(frozen=True)
class Turn:
    """One message of the conversation, a line of `autogen_conversation.jsonl`."""

    agent_name: str
    message_type: Literal["request", "response", "skipped", "failed"]
    message_content: str
    timestamp: datetime
    """UTC; when it was recorded."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    cached: bool = False
    """Whether the reply came from the cassette."""


@dataclass(frozen=True)
class Decision:
    """One answer of a decider; `signal.status` says whether it succeeded."""

    signal: TradingSignal
    # Records carry the wall clock, so equal decisions would differ if they were compared.
    turns: tuple[Turn, ...] = field(default=(), compare=False)
    calls: int = 0
    """Requests that reached a chat client; replies from the cassette are not counted."""
    events: tuple[Event, ...] = field(default=(), compare=False)
    """Every step in order, for the audit."""


# A protocol, so that a user's own class needs no base class of this package.
class Decider(Protocol):
    """Turns a market view into a decision. Backtests depend on this alone and on no agent."""

    def decide(self, view: MarketView) -> Decision:
        """Decide at `view.as_of`.

        Never raises for a failed model: that is a status of the decision.
        """
