"""Which workflow asked for a decision, in the words of the platform and of Airflow.

A decision: the signal, and everything said and spent on the way to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol, runtime_checkable

from pydantic import Field

from finagent_model._base import FrozenModel
from finagent_model.decision.signal import Action, Status, TradingSignal, confidence_label
from finagent_model.market.bars import BarSeries
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
    """Turns a market view into a decision: a desk, a rule, or a class of your own.

    Walk-forward, backtest, statistics and gate know this and nothing of agents.
    """

    def decide(self, view: MarketView) -> Decision:
        """Return the decision at `view.as_of`, from the view alone.

        A model that fails is a status of the decision, never an exception.
        """


@runtime_checkable
class BatchDecider(Protocol):
    """A decider that decides on many views at once, such as a desk that waits for chat models."""

    def decide_all(
        self, views: Sequence[MarketView], on_decision: Callable[[], object] = ...
    ) -> list[Decision]:
        """Return one decision a view, in their order; `on_decision` is called after each."""


@runtime_checkable
class TrainableDecider(Protocol):
    """A decider that is fitted anew in each fold of a walk-forward."""

    def fit(self, histories: Mapping[str, BarSeries]) -> Decider:
        """Return the decider that speaks until the next fit.

        `histories` are the bars of each symbol in the fold's training window, cut at its end: what
        comes later is not in them.
        """


def make_decision(
    view: MarketView,
    action: Action,
    *,
    reasoning: str,
    author: str,
    confidence: float = 50.0,
    stop: float | None = None,
    target: float | None = None,
    size_percent: float | None = None,
    key_factors: Sequence[str] = (),
    status: Status = Status.OK,
) -> Decision:
    """Return the decision of a decider of your own about `view`.

    `confidence` is a chance in percent that a call makes money; `stop` and `target` are prices as
    traded on the last bar, None for none; `size_percent` is percent of equity, None for all of it.
    The entry is the last close. Raises ValidationError for levels in an order that can't be meant.

        >>> from finagent_model import make_decision, market_view
        >>> view = market_view("GOOG", "2012-06-29")
        >>> decision = make_decision(view, "HOLD", reasoning="nothing to do", author="example")
        >>> decision.signal.action, decision.signal.status.value
        ('HOLD', 'ok')
    """
    acts = action != "HOLD"
    entry = float(view.bars.close[-1]) if acts else None
    ratio = None
    if entry is not None and stop is not None and target is not None and stop != entry:
        ratio = abs(target - entry) / abs(entry - stop)
    question = f"{view.symbol} {view.as_of.isoformat()} {author}"
    score = confidence if status is Status.OK else 0.0
    return Decision(
        TradingSignal(
            symbol=view.symbol,
            action=action,
            confidence=confidence_label(score),
            confidence_score=score,
            raw_confidence_score=score,
            calibrated=False,
            status=status,
            reasoning=reasoning,
            key_factors=tuple(key_factors),
            suggested_entry_price=entry,
            suggested_stop_loss=stop if acts else None,
            suggested_take_profit=target if acts else None,
            r_multiple=ratio,
            position_size_percent=(100.0 if size_percent is None else size_percent)
            if acts
            else None,
            model_used=author,
            generated_at=view.as_of,  # no clock: two evaluations are equal
            as_of=view.as_of,
            conversation_id=hashlib.sha256(question.encode()).hexdigest()[:16],
            tokens=0,
            cost_usd=0.0,
        )
    )
