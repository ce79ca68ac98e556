"""The memory of one decision: what was said, what failed, what it took. A new one for every
decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from finagent_model.agents.replies import AnalystReply, ExecutorReply, Reply
from finagent_model.domain.decision import Turn
from finagent_model.domain.desk_config import DeskConfig, Mode
from finagent_model.domain.signal import Status


@dataclass(frozen=True)
class Failure:
    """Why an agent has no reply."""

    status: Status
    reason: str


@dataclass
class Session:
    """Filled by the agents' clients while the team runs; read by the desk afterwards."""

    config: DeskConfig
    mode: Mode
    clock: Callable[[], datetime]
    past_errors: bool = False
    """Whether a recorded failure is a reply like any other: in a replay."""
    turns: list[Turn] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    tokens: int = 0
    """Of the whole conversation, as recorded, whether or not it was paid for this time."""
    cost_usd: float | None = 0.0
    """At list price; None once a price is unknown."""
    spent_tokens: int = 0
    spent_usd: float | None = 0.0
    """What really went to a client in this session."""
    calls: int = 0
    missed: bool = False
    """A reply that was not recorded was needed in mode `replay`."""

    def record(
        self,
        agent: str,
        kind: Literal["request", "response", "skipped", "failed"],
        content: str,
        *,
        tokens: tuple[int, int] = (0, 0),
        model: str = "",
        cached: bool = False,
    ) -> None:
        """Add a line to the conversation."""
        self.turns.append(Turn(agent, kind, content, self.clock(), *tokens, model, cached))

    def fail(self, agent: str, status: Status, reason: str) -> None:
        """An agent is left out, by name."""
        self.failures[agent] = Failure(status, reason)
        self.record(agent, "failed", f"{status}: {reason}")

    def charge(self, model: str, prompt: int, completion: int, called: bool) -> None:
        """Count a reply's tokens and price; `called` tells a real call from a recorded reply."""
        cost = self.price(model, prompt, completion)
        self.tokens += prompt + completion
        self.cost_usd = _plus(self.cost_usd, cost)
        if called:
            self.calls += 1
            self.spent_tokens += prompt + completion
            self.spent_usd = _plus(self.spent_usd, cost)

    def price(self, model: str, prompt: int, completion: int) -> float | None:
        """Dollars, or None where the price is unknown. `rules` cost nothing."""
        if self.config.client == "rules":
            return 0.0
        price = self.config.prices.get(model)
        return (
            None if price is None else (prompt * price.prompt + completion * price.completion) / 1e6
        )

    @property
    def executor_reply(self) -> ExecutorReply | None:
        replies = [reply for reply in self.replies.values() if isinstance(reply, ExecutorReply)]
        return replies[0] if replies else None

    @property
    def an_analyst_spoke(self) -> bool:
        return any(isinstance(reply, AnalystReply) for reply in self.replies.values())


def _plus(total: float | None, more: float | None) -> float | None:
    return None if total is None or more is None else total + more
