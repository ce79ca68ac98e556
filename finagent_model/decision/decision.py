"""Which workflow asked for a decision, in the words of the platform and of Airflow.

A decision: the signal, and everything said and spent on the way to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import TradingSignal
from finagent_model.market.view import MarketView


class Execution(FrozenModel):
    """All of it is empty where a person asked."""

    execution_id: str | None = None
    """Groups what one run of a workflow made; the platform's `workflow_execution_id`."""
    workflow_id: str | None = None
    dag_id: str | None = None
    dag_run_id: str | None = None
    task_id: str | None = None
    map_index: int | None = Field(None, ge=-1)
    """Airflow's; -1 for a task that is not mapped."""
    parent_run_id: str | None = None
    """The MLflow run that the decision's own is a child of."""


NO_EXECUTION = Execution()
EXTERNAL_REPORT: Final = "upstream"
"""Kind of the event that holds an external analyst's report; stored audits have this word."""
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


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened on the way to a decision."""

    kind: EventKind
    at: datetime
    """UTC; the record's own stamp. Nothing is decided by it."""
    agent: str
    """Empty: the desk itself."""
    body: Mapping[str, Any]
    """What JSON can hold, numbers finite. What was said is under `text`, or in the list `messages`:
    there as it is, or under a key of each message.
    """


@dataclass(frozen=True)
class Turn:
    """One message of the conversation, as `autogen_conversation.jsonl` has it."""

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
    """One answer of the desk; `signal.status` says how it went."""

    signal: TradingSignal
    turns: tuple[Turn, ...] = field(default=(), compare=False)
    calls: int = 0
    """Requests that reached a chat client; replies from the cassette are not counted."""
    events: tuple[Event, ...] = field(default=(), compare=False)
    """Everything, in order, for the audit."""


class Decider(Protocol):
    """Whoever turns a view into a decision. Backtests know this and nothing of agents."""

    def decide(self, view: MarketView) -> Decision:
        """Decide at `view.as_of`. Never raises for a failed model: that is a status of the
        decision.
        """
