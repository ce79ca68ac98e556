"""A decision: the signal, and everything said and spent on the way to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from finagent_model.domain.audit import Event
from finagent_model.domain.market_view import MarketView
from finagent_model.domain.signal import TradingSignal


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
